/**
 * Who has charge of a node, with a state directory that says what the test says, and real admin
 * sockets.
 */
import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import type { Holder } from "../kernel/state_directory.ts";
import { until } from "../../tests/lab/delay.ts";
import { serveAdmin } from "./admin.ts";
import { standBy, takeCharge } from "./charge.ts";
import type { AgentStatus } from "./status.ts";

/** A state directory that others have, and the socket of an agent that may answer. */
class Place implements Disposable {
  readonly #directory = Deno.makeTempDirSync();
  readonly socket = `${this.#directory}/admin.sock`;
  readonly path = "/state";
  holder: Holder | undefined;
  taken = 0;
  asked = 0;
  readonly stop = Promise.withResolvers<void>();

  take(): Holder | undefined {
    this.taken++;
    return this.holder;
  }

  /** An agent answers on the socket. */
  agent(): Disposable {
    const status = () => {
      this.asked++;
      return Promise.resolve({ node: "node-a", pid: 7 } as AgentStatus);
    };
    const notAsked = () => Promise.reject(new Error("not asked"));
    return serveAdmin(this.socket, {
      "/status": status,
      "/audit": notAsked,
      "/connections": notAsked,
    });
  }

  standBy(): Promise<boolean> {
    return standBy(this, this.socket, this.stop.promise);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

Deno.test("a state directory that another has is not taken, and its holder is named", async () => {
  using place = new Place();
  place.holder = { pid: 42 };
  await rejects(
    takeCharge(place, place.socket),
    /^Error: process 42 has the state directory \/state already: stop it, or give/,
  );
  place.holder = { pid: undefined };
  await rejects(takeCharge(place, place.socket), /another process has the state directory/);
});

Deno.test("an agent that answers on the admin socket is not replaced, one that does not has gone", async () => {
  using place = new Place();
  await takeCharge(place, place.socket);
  using _agent = place.agent();
  await rejects(
    takeCharge(place, place.socket),
    /the agent of node-a \(process 7\) answers on .* already: stop it/,
  );
});

Deno.test("who stands by waits for the state directory, then for the admin socket, and takes charge once", async () => {
  using place = new Place();
  place.holder = { pid: 42 };
  const agent = place.agent();
  let hasCharge: boolean | undefined;
  const standing = place.standBy().then((result) => hasCharge = result);
  await holds(() => place.taken >= 2);
  deepStrictEqual([place.asked, hasCharge], [0, undefined], "not before it is its turn");
  place.holder = undefined;
  await holds(() => place.asked >= 2);
  const { taken } = place;
  await holds(() => place.asked >= 4);
  deepStrictEqual([place.taken, hasCharge], [taken, undefined], "what it has is not taken again");
  agent[Symbol.dispose]();
  await standing;
  strictEqual(hasCharge, true);
});

Deno.test("who is told to stop while it stands by has no charge, whatever it waits for", async () => {
  {
    using place = new Place();
    place.holder = { pid: 42 };
    const standing = place.standBy();
    place.stop.resolve();
    strictEqual(await standing, false);
  }
  {
    using place = new Place();
    using _agent = place.agent();
    const standing = place.standBy();
    await holds(() => place.asked > 0);
    place.stop.resolve();
    strictEqual(await standing, false, "it has the state directory, and the other is still there");
  }
});

Deno.test("an admin socket that never answers keeps nobody from stopping", async () => {
  using place = new Place();
  using silent = Deno.listen({ transport: "unix", path: place.socket });
  const standing = place.standBy();
  using _connection = await silent.accept();
  const began = performance.now();
  place.stop.resolve();
  strictEqual(await standing, false);
  ok(performance.now() - began < 10_000, "not when its answer is given up");
});

async function holds(condition: () => boolean): Promise<void> {
  await until(condition, 5_000, () => `not in time: ${condition}`);
}
