import { deepStrictEqual, rejects } from "node:assert/strict";
import { answersJson, askAgents } from "./ask_agents.ts";

const OPTIONS = { "admin-socket": ["/a", "/b", "/c"] };

Deno.test("an agent that does not answer takes no other's answer away, and is named", async () => {
  const shown: string[][] = [];
  const ask = (socket: string) =>
    socket === "/b" ? Promise.reject(new Error("/b: no answer")) : Promise.resolve(socket);
  await rejects(
    askAgents(OPTIONS, ask, (answers) => void shown.push(answers)),
    (error) => {
      deepStrictEqual((error as AggregateError).errors, [new Error("/b: no answer")]);
      return true;
    },
  );
  deepStrictEqual(shown, [["/a", "/c"]]);
});

Deno.test("where nobody answers, nothing is shown", async () => {
  const never = () => {
    throw new Error("nothing to show");
  };
  const silent = { "admin-socket": ["/a"] };
  await rejects(askAgents(silent, () => Promise.reject(new Error("x")), never), AggregateError);
});

Deno.test("the JSON of several agents is an array, also when only one has answered", () => {
  deepStrictEqual(JSON.parse(answersJson(OPTIONS, [1])), [1]);
  deepStrictEqual(JSON.parse(answersJson({ "admin-socket": ["/a"] }, [1])), 1);
});
