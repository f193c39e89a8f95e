import assert from "node:assert/strict";

const REPOSITORY = new URL("../", import.meta.url).pathname;

async function run(command: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const [program = "", ...args] = command;
  const output = await new Deno.Command(program, { args, cwd: REPOSITORY }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) =>
    new TextDecoder().decode(bytes)
  );
  return { code: output.code, stdout: stdout ?? "", stderr: stderr ?? "" };
}

Deno.test("the demo observes every step of its story", async () => {
  const { code, stdout, stderr } = await run(["scripts/demo", "--json"]);
  assert.equal(code, 0, stdout + stderr);
  const story = JSON.parse(stdout);
  assert.equal(story.observed, true);
  assert(story.seconds < 30, `it took ${story.seconds} s`);
  const facts = story.steps.map((step: { facts: Record<string, unknown> }) => step.facts);
  const [lab, plain, , encrypted, status, back, lost] = facts;
  const from = [lab["pod-01"]];
  assert.deepEqual([plain.destinationPorts, plain.heardFrom], [[9000], from]);
  assert.deepEqual([encrypted.destinationPorts, encrypted.heardFrom], [[18443], from]);
  assert.equal(encrypted.readable, 0);
  assert.equal(status.active, 2);
  assert.deepEqual([back.destinationPorts, back.heardFrom], [[9000], from]);
  assert.equal(lost.failed, 0);
});

Deno.test("without root, demo and test say so in one line", async () => {
  for (const script of ["scripts/demo", "scripts/test"]) {
    const { code, stdout, stderr } = await run([
      "setpriv",
      "--reuid=65534",
      "--clear-groups",
      script,
    ]);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.match(stderr, /^setup: needs root[^\n]*\n$/);
  }
});
