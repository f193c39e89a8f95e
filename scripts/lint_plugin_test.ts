import assert from "node:assert/strict";
import plugin, { importVisitor, LAYERS } from "./lint_plugin.ts";

function messages(file: string, source: string): string[] {
  return Deno.lint.runPlugin(plugin, `/repository/${file}`, source).map(({ message }) => message);
}

Deno.test("pointers outside src/native/ are found, however they are named", () => {
  for (
    const source of [
      "Deno.dlopen('x', {});",
      "const { dlopen } = Deno;",
      "Deno.UnsafePointer.of(x);",
    ]
  ) {
    assert.equal(messages("src/relay/x.ts", source).length, 1, source);
    assert.equal(messages("src/native/x.ts", source).length, 0, source);
  }
  assert.deepEqual(messages("src/relay/x.ts", "Deno.exit(0); const { exit } = Deno;"), []);
});

Deno.test("imports that point up are found in every form, tests excepted", () => {
  const cases: [file: string, source: string, found: number][] = [
    ["src/relay/x.ts", 'import { a } from "../control/a.ts";', 1],
    ["src/relay/x.ts", 'import type { A } from "../control/a.ts";', 1],
    ["src/relay/x.ts", 'export { a } from "../control/a.ts";', 1],
    ["src/relay/x.ts", 'export * from "../control/a.ts";', 1],
    ["src/relay/x.ts", 'await import("../control/a.ts");', 1],
    ["src/relay/x.ts", "export const a = 1;", 0],
    ["src/relay/x_test.ts", 'import { a } from "../control/a.ts";', 0],
    ["src/relay/x.ts", 'import { a } from "../native/a.ts";', 0],
    ["src/native/x.ts", 'import { a } from "../addresses.ts";', 0],
    ["src/identity/x.ts", 'import { a } from "../native/a.ts";', 0],
    ["src/control/pods/x.ts", 'import { a } from "../../agent.ts";', 1],
    ["src/operate/x.ts", 'import { a } from "../agent.ts";', 1],
    ["src/commands/x.ts", 'import { a } from "../agent.ts";', 0],
  ];
  for (const [file, source, found] of cases) {
    assert.equal(messages(file, source).length, found, `${file}: ${source}`);
  }
});

Deno.test("an error that is thrown for another without it as its cause is found", () => {
  const caught = (then: string) => messages("src/x.ts", `try { a(); } catch (cause) { ${then} }`);
  assert.equal(caught('throw new Error("no");').length, 1);
  assert.equal(caught("if (b) throw new TypeError(`no: ${cause.message}`, {});").length, 1);
  assert.deepEqual(caught('throw new Error("no", { cause });'), []);
  assert.deepEqual(caught('throw new Reason("code", "no", { cause: cause.cause });'), []);
  assert.deepEqual(caught("throw cause;"), []);
  assert.deepEqual(messages("src/x.ts", 'throw new Error("no");'), []);
});

Deno.test("a comment of more than 100 columns is found, a drawing, a string and what stands behind code are not", () => {
  const words = "word ".repeat(21);
  const cases: [source: string, found: number][] = [
    [`// ${words}`, 1],
    [`/** ${words} */`, 1],
    [`  /**\n   * ${words}\n   */`, 1],
    [`/** ${"word ".repeat(18)}*/`, 0],
    [`/**\n *     ${words}\n */`, 0],
    [`a(); // ${words}`, 0],
    [`const a = "// ${words}";`, 0],
  ];
  for (const [source, found] of cases) {
    assert.equal(messages("src/x.ts", source).length, found, source);
  }
});

Deno.test("no files of src import each other in a circle, types included", async () => {
  const circles = circlesOf(await importsBelow(new URL("../src/", import.meta.url)));
  assert.deepEqual(circles, []);
});

Deno.test("src/README.md draws the layers as they are", async () => {
  const readme = await Deno.readTextFile(new URL("../src/README.md", import.meta.url));
  const [, chain = ""] = /^Imports point one way:\s+`([^`]+)`/m.exec(readme) ?? [];
  assert.deepEqual(chain.split("→").map((layer) => layer.trim()), LAYERS);
});

Deno.test("circles are found, each once", () => {
  const graph = new Map([
    ["a", ["b"]],
    ["b", ["c", "d"]],
    ["c", ["a"]],
    ["d", ["e"]],
    ["e", []],
    ["f", ["f"]],
  ]);
  assert.deepEqual(circlesOf(graph), [["a", "b", "c"], ["f"]]);
});

/** The modules below a folder, without tests, and what each imports of them. */
async function importsBelow(root: URL): Promise<Map<string, string[]>> {
  const graph = new Map<string, string[]>();
  for (const file of await filesBelow(root)) {
    const sources: string[] = [];
    const create = () => importVisitor((_node, source) => void sources.push(source));
    const collector = { name: "collector", rules: { imports: { create } } };
    Deno.lint.runPlugin(collector, file, await Deno.readTextFile(file));
    const paths = sources.filter((source) => source.startsWith("."))
      .map((source) => new URL(source, `file://${file}`).pathname);
    graph.set(
      file.replace(root.pathname, ""),
      paths.map((path) => path.replace(root.pathname, "")),
    );
  }
  return graph;
}

async function filesBelow(directory: URL): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(directory)) {
    if (isDirectory) files.push(...await filesBelow(new URL(`${name}/`, directory)));
    else if (name.endsWith(".ts") && !name.endsWith("_test.ts")) {
      files.push(new URL(name, directory).pathname);
    }
  }
  return files;
}

/** The groups of nodes that reach each other (strongly connected components), each sorted. */
function circlesOf(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const reached = new Map([...graph.keys()].map((node) => [node, reachableFrom(graph, node)]));
  const circles = new Map<string, string[]>();
  for (const [node, others] of reached) {
    if (!others.has(node)) continue;
    const circle = [...others].filter((other) => reached.get(other)?.has(node)).sort();
    circles.set(circle.join(), circle);
  }
  return [...circles.values()];
}

function reachableFrom(graph: ReadonlyMap<string, readonly string[]>, start: string): Set<string> {
  const reached = new Set<string>();
  const ahead = [...graph.get(start) ?? []];
  for (let next; (next = ahead.pop()) !== undefined;) {
    if (reached.has(next)) continue;
    reached.add(next);
    ahead.push(...graph.get(next) ?? []);
  }
  return reached;
}
