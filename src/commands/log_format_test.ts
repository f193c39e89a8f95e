import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { configure, type LogRecord, reset, type TextFormatter } from "@logtape/logtape";
import { logger, logSentence } from "../log.ts";
import { jsonLines, textLines } from "./log_format.ts";

const log = logger("test");

Deno.test("a text line is a sentence without quotes, and names once what it is about", async () => {
  await says(
    () => log.info("enrolled {pod}", { pod: "shop/web", identity: "spiffe://a/ns/shop/sa/web" }),
    "INFO kube-gateway.test: enrolled shop/web identity=spiffe://a/ns/shop/sa/web",
  );
  await says(
    () =>
      log.warn("issued {pod} a certificate", { pod: "shop/web", addresses: ["10.0.0.1", "::1"] }),
    'WARN kube-gateway.test: issued shop/web a certificate addresses="10.0.0.1, ::1"',
  );
  await says(
    () => log.info("ready", { workers: 2, node: undefined, at: new Date(0), empty: "" }),
    'INFO kube-gateway.test: ready workers=2 at=1970-01-01T00:00:00.000Z empty=""',
  );
});

Deno.test("an error is told with its causes", async () => {
  const error = new Error("fetch failed", { cause: new Error("connection refused") });
  await says(
    () => log.error("{node}: {error}", { node: "node-a", error }),
    "ERROR kube-gateway.test: node-a: fetch failed: connection refused",
  );
});

Deno.test("a sentence that somebody else wrote keeps its braces, and its properties are not said twice", async () => {
  const sentence = "/x.yaml: unexpected } after {pod} {{";
  await says(
    () => logSentence(log, "warning", sentence, { file: "/x.yaml", line: 3 }),
    `WARN kube-gateway.test: ${sentence} line=3`,
  );
  const [json] = await lines(jsonLines(), () => logSentence(log, "warning", sentence, { line: 3 }));
  const { message, line, level } = JSON.parse(json ?? "");
  deepStrictEqual({ message, line, level }, { message: sentence, line: 3, level: "WARN" });
});

Deno.test("whoever chose a text cannot forge a line, a property or a colour", async () => {
  await says(
    () =>
      log.warn("denied {name}", { name: "a\n2026 INFO b", who: "x y=1", how: "\x1b[31m\u202e" }),
    'WARN kube-gateway.test: denied a\\u{a}2026 INFO b who="x y=1" how=\\u{1b}[31m\\u{202e}',
  );
});

/** Asserts what one log call writes, without its time. */
async function says(call: () => void, expected: string): Promise<void> {
  const written = await lines(textLines(), call);
  strictEqual(written.length, 1);
  const [time, ...rest] = (written[0] ?? "").split(" ");
  strictEqual(new Date(time ?? "").toISOString(), time);
  strictEqual(rest.join(" "), `${expected}\n`);
}

async function lines(format: TextFormatter, call: () => void): Promise<string[]> {
  const written: string[] = [];
  const sink = (record: LogRecord) => void written.push(format(record));
  await configure({
    sinks: { sink },
    loggers: [
      { category: "kube-gateway", sinks: ["sink"] },
      { category: ["logtape", "meta"], lowestLevel: "error" },
    ],
  });
  try {
    call();
    return written;
  } finally {
    await reset();
  }
}
