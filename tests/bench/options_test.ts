import assert from "node:assert/strict";
import { CONTENDERS } from "./contenders/contender.ts";
import { parseOptions } from "./options.ts";

Deno.test("without options everything is compared", () => {
  assert.deepEqual(parseOptions([]), {
    rounds: 5,
    seconds: 2,
    only: "",
    contenders: [...CONTENDERS],
    json: undefined,
    svg: undefined,
  });
});

Deno.test("each option is taken", () => {
  const args = ["--rounds", "1", "--seconds=3", "--only", "bulk", "--contenders", "gateway,nginx"];
  assert.deepEqual(parseOptions([...args, "--json", "a.json", "--svg", "a.svg"]), {
    rounds: 1,
    seconds: 3,
    only: "bulk",
    contenders: ["gateway", "nginx"],
    json: "a.json",
    svg: "a.svg",
  });
});

Deno.test("what cannot be is refused with the reason, and help is none", () => {
  assert.match(String(parseOptions(["--contenders", "envoy"])), /envoy is none of direct/);
  assert.match(String(parseOptions(["--rounds", "0"])), /--rounds must be/);
  assert.match(String(parseOptions(["--seconds", "1.5"])), /--seconds must be/);
  assert.match(String(parseOptions(["--fast"])), /--fast/);
  assert.equal(parseOptions(["--help"]), "");
});
