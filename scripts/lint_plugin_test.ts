import assert from "node:assert/strict";
import plugin from "./lint_plugin.ts";

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

Deno.test("imports that point up are found, types and tests excepted", () => {
  const cases: [file: string, source: string, found: number][] = [
    ["src/relay/x.ts", 'import { a } from "../control/a.ts";', 1],
    ["src/relay/x.ts", 'import type { A } from "../control/a.ts";', 0],
    ["src/relay/x_test.ts", 'import { a } from "../control/a.ts";', 0],
    ["src/relay/x.ts", 'import { a } from "../native/a.ts";', 0],
    ["src/native/x.ts", 'import { a } from "../addresses.ts";', 0],
    ["src/identity/x.ts", 'import { a } from "../native/a.ts";', 1],
    ["src/control/cluster/x.ts", 'import { a } from "../../agent.ts";', 1],
    ["src/operate/x.ts", 'import { a } from "../agent.ts";', 1],
    ["src/commands/x.ts", 'import { a } from "../agent.ts";', 0],
  ];
  for (const [file, source, found] of cases) {
    assert.equal(messages(file, source).length, found, `${file}: ${source}`);
  }
});
