import assert from "node:assert/strict";

const REPOSITORY = new URL("..", import.meta.url).pathname;

interface Story {
  observed: boolean;
  seconds: number;
  steps: { step: string; observed: boolean; facts: Facts }[];
}

interface Facts {
  "pod-01"?: string;
  destinationPorts?: number[];
  readable?: number;
  heard?: number;
  heardFrom?: string[];
  active?: number;
  said?: number;
  failed?: number;
}

Deno.test("the demo observes every step of its story", async () => {
  const { code, stdout, stderr } = await run(["scripts/demo", "--json"]);
  assert.equal(code, 0, stdout + stderr);
  const story = JSON.parse(stdout) as Story;
  assert.equal(story.observed, true);
  assert.ok(story.seconds < 30, `it took ${story.seconds} s`);
  assert.deepEqual(story.steps.map(({ observed }) => observed), Array(7).fill(true));

  const [lab, plain, , encrypted, status, back, lost] = story.steps.map(({ facts }) => facts);
  const heardFrom = [lab?.["pod-01"]];
  for (const clear of [plain, back]) {
    assert.deepEqual([clear?.destinationPorts, clear?.heardFrom], [[9000], heardFrom]);
    assert.ok((clear?.readable ?? 0) >= 3);
  }
  assert.deepEqual([encrypted?.destinationPorts, encrypted?.heardFrom], [[18443], heardFrom]);
  assert.equal(encrypted?.readable, 0);
  assert.ok((encrypted?.heard ?? 0) >= 3);
  assert.equal(status?.active, 2);
  assert.equal(lost?.failed, 0);
  assert.ok((lost?.said ?? 0) >= 9);
});

Deno.test("Ctrl-C in the middle of the demo leaves nothing behind", async () => {
  const demo = new Deno.Command("scripts/demo", {
    cwd: REPOSITORY,
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let told = "";
  for await (const chunk of demo.stdout.pipeThrough(new TextDecoderStream())) {
    const isFirst = !told.includes("✓");
    told += chunk;
    if (isFirst && told.includes("✓")) demo.kill("SIGINT");
  }
  assert.equal((await demo.status).code, 130, told);
  // The script becomes the demo, so its pid is the lab's owner's.
  const { stdout } = await run(["sh", "-c", "ip netns list; cat /proc/mounts; ls -d /tmp/*"]);
  assert.ok(!stdout.includes(`kgw-lab-${demo.pid}-`), stdout);
});

Deno.test("without root, demo and test say so in one line", async () => {
  // Not root, but able to read the repository where only root can, as below /root.
  const nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
  const reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
  for (const script of ["scripts/demo", "scripts/test"]) {
    const { code, stdout, stderr } = await run([...nobody, ...reading, script]);
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(stderr, /^(setup|scripts\/test): needs root[^\n]*\n$/);
  }
});

async function run(command: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const [program = "", ...args] = command;
  const output = await new Deno.Command(program, { args, cwd: REPOSITORY }).output();
  const decoder = new TextDecoder();
  const [stdout, stderr] = [decoder.decode(output.stdout), decoder.decode(output.stderr)];
  return { code: output.code, stdout, stderr };
}
