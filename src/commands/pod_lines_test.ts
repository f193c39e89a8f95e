import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { LogRecord } from "@logtape/logtape";
import { ownerOf, PodLines } from "./pod_lines.ts";

function line(properties: Record<string, unknown>, logger = "relay"): LogRecord {
  const message = "something has happened";
  return {
    category: ["kube-gateway", logger],
    level: "warning",
    timestamp: 0,
    message: [message],
    rawMessage: message,
    properties,
  };
}

Deno.test("a hundred pods of one namespace have one share of the log, and take nothing of another's", () => {
  const lines = new PodLines();
  const flood = (now: number) =>
    Array.from(
      { length: 1_000 },
      (_, index) => lines.take(line({ pod: `evil/web-${index % 100}` }), now),
    ).flatMap((said) => said ?? []);
  strictEqual(flood(1_000).length, 300);
  for (const each of ["shop/web", "shop/db"]) {
    const own = line({ pod: each });
    deepStrictEqual(lines.take(own, 1_000), own);
  }
  deepStrictEqual(
    lines.take(line({ pod: "evil/web-0", suppressed: 4 }), 2_000)?.properties,
    { pod: "evil/web-0", suppressed: 704 },
    "what the relay has left out, and what was left out here",
  );
});

Deno.test("what is about no pod, and the access log, are not thinned out here", () => {
  const lines = new PodLines();
  for (const record of [line({ node: "node-a" }), line({ pod: "shop/web" }, "access")]) {
    for (let index = 0; index < 1_000; index++) strictEqual(lines.take(record, 1_000), record);
  }
});

Deno.test("whose flood a line may be", () => {
  const owners: [Record<string, unknown>, string][] = [
    [{ pod: "shop/web", node: "node-a" }, "shop"],
    [{ where: "shop/frontend" }, "shop"],
    [{ node: "node-a", csr: "csr-1" }, "node node-a"],
    [{ where: "/sys/fs/cgroup" }, ""],
    [{ where: "10.0.0.1" }, ""],
    [{}, ""],
  ];
  for (const [properties, owner] of owners) strictEqual(ownerOf(line(properties)), owner);
});
