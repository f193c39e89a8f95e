import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { until } from "../../tests/lab/delay.ts";
import { ApiError } from "../kubernetes/errors.ts";
import type { Unheard } from "../kubernetes/watch.ts";
import { UnreadLists } from "./unread_lists.ts";

const TIMES = { look: 5, unread: 30 };
const REFUSED: () => unknown = () => {
  throw new ApiError(403, "Forbidden", "GET /version: 403");
};
const BROKEN: () => unknown = () => {
  throw new ApiError(503, "ServiceUnavailable", "GET /version: 503");
};
const AWAY: () => unknown = () => {
  throw new TypeError("connection refused");
};

function unheard(since: number, why: string, isOutage = false): Unheard {
  return { since, why, isOutage };
}

/**
 * Three lists, of which the registry and the others are heard or not, and a server that answers so.
 */
function open(server: { answer: () => unknown; asked: number }) {
  const state: { unheard: Unheard | undefined; others: Unheard | undefined } = {
    unheard: undefined,
    others: undefined,
  };
  /** How many lists were unread when that was told. */
  const told: number[] = [];
  const request = () => {
    server.asked++;
    try {
      return Promise.resolve(server.answer());
    } catch (error) {
      return Promise.reject(error);
    }
  };
  const lists: UnreadLists = new UnreadLists(
    { request },
    () => told.push(lists.list().length),
    TIMES,
  );
  lists.follow({
    name: "registry",
    list: { unheard: () => state.unheard },
    hides: "Much is not seen",
    hidesPeers: true,
  });
  for (const name of ["deny list", "namespaces"]) {
    lists.follow({
      name,
      list: { unheard: () => state.others },
      hides: "Nothing",
      hidesPeers: false,
    });
  }
  lists.begin();
  const untilAsked = (times: number) => {
    const before = server.asked;
    return until(() => server.asked >= before + times, 10_000, () => `asked ${server.asked}`);
  };
  return { lists, state, untilAsked, told };
}

Deno.test("a list that is refused while the server answers is unread, until it is heard", async () => {
  for (const answer of [() => ({ major: "1" }), REFUSED]) {
    const { lists, state, told } = open({ answer, asked: 0 });
    const none = lists.list();
    state.unheard = unheard(performance.now() - 5_000, "GET /apis: 403 no right");
    await until(() => lists.list().length > 0, 10_000, () => "not unread");
    const [unread] = lists.list();
    deepStrictEqual([unread?.name, unread?.hidesPeers, none], ["registry", true, []]);
    match(unread?.message ?? "", /not been read since .*: GET \/apis: 403 no right\. Much is not/);
    const same = lists.list();
    state.unheard = { ...state.unheard, why: "another reason" };
    strictEqual(lists.list(), same, "the same object, whatever goes wrong next");
    state.unheard = undefined;
    await until(() => lists.list().length === 0, 10_000, () => "still unread");
    deepStrictEqual(told, [1, 0]);
    lists.close();
  }
});

Deno.test("while the server is away no list counts, and one that is young does not", async () => {
  const server = { answer: AWAY, asked: 0 };
  const { lists, state, untilAsked } = open(server);
  state.unheard = unheard(performance.now() - 60_000, "connection refused");
  await untilAsked(8);
  deepStrictEqual(lists.list(), [], "the server is away");
  server.answer = BROKEN;
  await untilAsked(8);
  deepStrictEqual(lists.list(), [], "an outage is no answer");
  server.answer = () => server.asked % 3 === 0 ? AWAY() : "";
  await untilAsked(12);
  deepStrictEqual(lists.list(), [], "it has only just come back, each time");
  state.unheard = unheard(performance.now() + 60_000, "one cut");
  server.answer = () => "";
  await untilAsked(8);
  deepStrictEqual(lists.list(), [], "it may be read in a moment");
  lists.close();
});

Deno.test("nobody is asked while every list is heard, and what is unread stays so in an outage", async () => {
  const server = { answer: (): unknown => "", asked: 0 };
  const { lists, state, untilAsked } = open(server);
  state.unheard = unheard(performance.now() - 5_000, "refused");
  await until(() => lists.list().length > 0, 10_000, () => "not unread");
  server.answer = AWAY;
  await untilAsked(5);
  strictEqual(lists.list().length, 1);
  state.unheard = undefined;
  await until(() => lists.list().length === 0, 10_000, () => "still unread");
  const { asked } = server;
  const looks = Promise.withResolvers<void>();
  setTimeout(looks.resolve, 20 * TIMES.look);
  await looks.promise;
  strictEqual(server.asked, asked);
  lists.close();
});

Deno.test("while most lists fail as in an outage they are problems, and nothing is refused for it", async () => {
  const { lists, state, untilAsked } = open({ answer: () => "", asked: 0 });
  const told = () => lists.list().map(({ name, hidesPeers }) => `${name} ${hidesPeers}`);
  const become = (...wanted: string[]) =>
    until(() => `${told()}` === `${wanted}`, 10_000, () => `${told()}`);
  state.unheard = state.others = unheard(performance.now() - 5_000, "500", true);
  await become("registry false", "deny list false", "namespaces false");
  await untilAsked(8);
  deepStrictEqual(told()[0], "registry false", "however long it lasts");
  state.others = undefined; // back, but for one
  await become("registry true");
  state.others = state.unheard;
  await become("registry true", "deny list false", "namespaces false");
  state.unheard = state.others = undefined;
  await become();
  state.unheard = state.others = unheard(performance.now() - 5_000, "403");
  await become("registry true", "deny list false", "namespaces false");
  lists.close();
});

Deno.test("a server that takes long to answer is asked once meanwhile", async () => {
  const { setInterval } = globalThis;
  let look = () => {};
  globalThis.setInterval = ((end: () => void) => {
    look = end;
    return setInterval(() => {}, 3_600_000);
  }) as typeof setInterval;
  const answered = Promise.withResolvers<string>();
  const server = { answer: (): unknown => answered.promise, asked: 0 };
  const { lists, state } = open(server);
  globalThis.setInterval = setInterval;
  state.unheard = unheard(performance.now() - 5_000, "refused");
  for (let count = 0; count < 5; count++) look();
  strictEqual(server.asked, 1);
  answered.resolve("");
  for (let count = 2; count <= 3; count++) {
    await until(() => (look(), server.asked === count), 5_000, () => `asked ${server.asked}`);
  }
  await until(() => lists.list().length === 1, 5_000, () => "not unread");
  lists.close();
});
