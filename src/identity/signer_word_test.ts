import { match, strictEqual } from "node:assert/strict";
import { signerProblem, type SignerWord } from "./signer_word.ts";

const AT = Date.parse("2026-01-01T00:00:00.000Z");
const word = (problem?: string): string =>
  JSON.stringify(
    {
      at: new Date(AT).toISOString(),
      until: new Date(AT + 60_000).toISOString(),
      problem,
    } satisfies SignerWord,
  );
const after = (seconds: number) => 1_000 * seconds;

Deno.test("a signer that is well, late, or in trouble", () => {
  strictEqual(signerProblem(word(), after(0)), undefined);
  strictEqual(signerProblem(word(), after(120)), undefined, "one may be late");
  match(signerProblem(word(), after(121)) ?? "", /no signer has been heard of since 2026-01-01T/);
  const endless = word().replace("2026-01-01T00:01", "2036-01-01T00:01");
  match(signerProblem(endless, after(1_201)) ?? "", /no signer/, "whatever its clock says");
  strictEqual(
    signerProblem(word("the CA\nhas expired"), after(0)),
    'the signer says: "the CA\\nhas expired"',
  );
  match(signerProblem(word("it has expired"), after(600)) ?? "", /no signer has been heard/);
});

Deno.test("what nobody has said is no problem, whatever else stands there", () => {
  const { until } = JSON.parse(word()) as SignerWord;
  for (
    const text of [undefined, "", "x", "{}", "[]", "null", `{"at":"x","until":"${until}"}`]
  ) strictEqual(signerProblem(text, after(600)), undefined);
  const long = signerProblem(word("x".repeat(100_000)), after(0)) ?? "";
  strictEqual(long.length < 1_100, true, `${long.length}`);
});
