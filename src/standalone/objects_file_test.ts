import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { FileError, parseObjectsFile } from "./objects_file.ts";

const pod = (name: string) => `kind: Pod\nmetadata:\n  name: ${name}\n  uid: uid-${name}\n`;

Deno.test("YAML of many documents and JSON give their objects, YAML with lines", () => {
  const text = `# a comment\n---\n${pod("a")}---\n---\n${pod("b")}---\nkind: List\nitems:\n- ${
    pod("c").replaceAll("\n", "\n  ")
  }\n`;
  deepStrictEqual(
    parseObjectsFile("x.yaml", text).map((o) => [o.kind === "Pod" && o.pod.name, o.line]),
    [["a", 3], ["b", 9], ["c", 16]],
  );
  const json = JSON.stringify({ kind: "Pod", metadata: { name: "a", uid: "u" } });
  deepStrictEqual(
    parseObjectsFile("x.json", json).map((o) => [o.kind === "Pod" && o.pod.name, o.line]),
    [["a", undefined]],
  );
  deepStrictEqual(parseObjectsFile("x.yaml", ""), []);
  deepStrictEqual(parseObjectsFile("x.yml", "# nothing\n---\n"), []);
});

Deno.test("a mistake is named with its line", () => {
  const json = (name: string) =>
    JSON.stringify({ kind: "Pod", metadata: { name, uid: "u" } }, undefined, 2);
  for (
    const [file, text, line, message] of [
      ["x.yaml", "kind: Pod\nmetadata:\n  name: a\n bad: [\n", 4, /./],
      ["x.yaml", "kind: Pod\nmetadata:\n  name: a\n  name: b\n", 4, /unique/],
      ["x.yaml", `${pod("a")}---\nkind: Pod\nmetadata:\n  name: Bad\n  uid: u\n`, 8, /"Bad"/],
      ["x.yaml", `${pod("a")}---\nkind: Pod\nmetadata:\n  name: b\n`, 8, /metadata\.uid/],
      ["x.yaml", `${pod("a")}  annotations:\n    kube-gateway.io: true\n`, 6, /quotes/],
      ["x.yaml", `${pod("a")}---\njust text\n`, 6, /./],
      ["x.yaml", "a: *nowhere\n", 1, /alias/i],
      ["x.json", '{\n  "kind": "Pod",\n  "x": }\n', undefined, /JSON/],
      ["x.json", '{\n  "kind": "Pod",\n}\n', 3, /JSON/],
      ["x.json", '{\n  "kind": "Pod",\n', 3, /JSON/],
      ["x.json", json("Bad"), 4, /"Bad"/],
    ] as const
  ) {
    throws(() => parseObjectsFile(file, text), (error: unknown) => {
      strictEqual(error instanceof FileError, true, `${text}: ${error}`);
      strictEqual((error as FileError).line, line, `${text}: ${error}`);
      match((error as Error).message, message);
      return true;
    });
  }
});

Deno.test("hostile YAML ends as an error, quickly", () => {
  const laughs = [
    "a0: &a0 [x,x,x,x,x,x,x,x,x]",
    ...Array.from(
      { length: 9 },
      (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join(",")}]`,
    ),
    "kind: Pod",
  ].join("\n");
  throws(() => parseObjectsFile("x.yaml", laughs), /alias/);
  const start = performance.now();
  for (const text of ["[".repeat(200_000), "- ".repeat(100_000), "{a: ".repeat(50_000)]) {
    throws(() => parseObjectsFile("x.yaml", text), (error: Error) => {
      strictEqual(error instanceof FileError, true, String(error));
      return error.message.length < 400;
    });
  }
  strictEqual(performance.now() - start < 10_000, true);
});

Deno.test("keys of a prototype are only keys", () => {
  parseObjectsFile("x.yaml", "kind: ConfigMap\n__proto__: {polluted: yes}\nconstructor: 1\n");
  parseObjectsFile("x.json", '{"kind": "ConfigMap", "__proto__": {"polluted": 1}}');
  strictEqual(({} as Record<string, unknown>).polluted, undefined);
});
