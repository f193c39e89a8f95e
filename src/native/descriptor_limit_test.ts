import { match, strictEqual } from "node:assert/strict";
import { readFileSync } from "node:fs";
import { allowDescriptors } from "./descriptor_limit.ts";

const CAP_SYS_RESOURCE = 24n; // linux/capability.h

Deno.test("the limit is raised where that is allowed, never lowered, and told as it is", () => {
  const proc = (file: string) => readFileSync(`/proc/self/${file}`, "utf8");
  const before = allowDescriptors(0);
  const capabilities = BigInt(`0x${/^CapEff:\s+(\w+)/m.exec(proc("status"))?.[1]}`);
  const mayRaise = (capabilities >> CAP_SYS_RESOURCE & 1n) === 1n;
  const expected = mayRaise ? before + 100 : before; // Deno has raised it to the hard limit already

  strictEqual(allowDescriptors(before + 100), expected);
  match(proc("limits"), new RegExp(`^Max open files +${expected} +`, "m"));
  strictEqual(allowDescriptors(10), expected);
  const most = Number(readFileSync("/proc/sys/fs/nr_open", "utf8"));
  strictEqual(allowDescriptors(most + 1), mayRaise ? most : before); // as many as anybody may
});
