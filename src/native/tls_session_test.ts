import assert from "node:assert/strict";
import { newKeyAndRequest } from "../identity/csr.ts";
import { openInProcessIssuer } from "../identity/in_process.ts";
import { identityOfLeaf } from "../identity/verify.ts";
import { drainErrors } from "./openssl_error.ts";
import { ScatterBuffer } from "./scatter.ts";
import { AlpnProtocol, type Credentials, TlsContext } from "./tls_context.ts";
import { MAX_RECORD, TlsEngine, TlsError, type TlsSession } from "./tls_session.ts";

const TRUST_DOMAIN = "cluster.local";

/** What a pod of one CA shows. */
async function credentials(ca: string, address = "10.0.0.1"): Promise<Credentials> {
  const issuer = await openInProcessIssuer({
    directory: `${ca}/ca`,
    trustDomain: TRUST_DOMAIN,
    ttlSeconds: 3600,
  });
  const { privateKey, csr } = await newKeyAndRequest();
  const pod = {
    uid: "u",
    namespace: "shop",
    name: "web",
    serviceAccount: "web",
    addresses: [address],
  };
  const { chain } = await issuer.issue(pod, csr);
  return { chain, privateKey, roots: await issuer.trustBundle() };
}

/** One side of a connection in memory: what its engine produces is the other's to be fed. */
class Side {
  readonly sent: Uint8Array[] = [];

  constructor(readonly engine: TlsEngine, readonly session: TlsSession) {}

  /** Feeds the engine with all of `other`'s output, runs `action`, and keeps what comes of it. */
  turn<T>(other: Side, action: () => T): T {
    const input = concatenated(other.sent.splice(0));
    this.engine.incoming.bytes.set(input);
    this.engine.feed(input.length);
    try {
      return action();
    } finally {
      this.sent.push(this.engine.outgoing.bytes.slice(0, this.engine.produced));
      this.engine.clearOutgoing();
    }
  }
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Shakes hands to the end, or throws what either side throws. */
function shakeHands(client: Side, server: Side): void {
  let [clientDone, serverDone] = [false, false];
  for (let turn = 0; turn < 10 && !(clientDone && serverDone); turn++) {
    if (!clientDone) clientDone = client.turn(server, () => client.session.handshake());
    if (!serverDone) serverDone = server.turn(client, () => server.session.handshake());
  }
  assert(clientDone && serverDone, "the handshake did not come to an end");
}

Deno.test("TLS sessions that share an engine", async (t) => {
  const [ours, theirs] = [await Deno.makeTempDir(), await Deno.makeTempDir()];
  using protocol = new AlpnProtocol("test/1");
  const engine = new TlsEngine(protocol);
  const good = await credentials(ours);
  using context = new TlsContext(good, protocol);
  const pair = (clientContext = context, serverContext = context, clientEngine = engine) => ({
    client: new Side(clientEngine, clientEngine.session(clientContext, "client")),
    server: new Side(engine, engine.session(serverContext, "server")),
  });
  const free = (...sides: Side[]) => sides.forEach(({ session }) => session[Symbol.dispose]());

  await t.step("know each other after the handshake", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    for (const { session } of [client, server]) {
      using certificate = session.peerCertificate();
      const identity = identityOfLeaf(certificate.leafFacts(), TRUST_DOMAIN);
      assert.equal(identity.id, "spiffe://cluster.local/ns/shop/sa/web");
      assert.deepEqual(identity.addresses, ["10.0.0.1"]);
    }
    free(client, server);
  });

  await t.step("carry records of every size, and many in one read", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    const source = new ScatterBuffer(4 * MAX_RECORD);
    crypto.getRandomValues(source.bytes);
    const sizes = [1, 2, 63, 64, 65, 1000, MAX_RECORD - 1, MAX_RECORD, ...Array(500).fill(3)];
    client.turn(server, () => sizes.forEach((size) => client.session.write(source, 0, size)));
    const target = new ScatterBuffer(204_800);
    const received = server.turn(client, () => {
      const records: number[] = [];
      while (engine.unread > 0) {
        const count = server.session.read(target, 0);
        assert.deepEqual(target.bytes.slice(0, count), source.bytes.slice(0, count));
        records.push(count);
      }
      return records;
    });
    assert.deepEqual(received, sizes);
    free(client, server);
  });

  await t.step("fifty handshakes, a step of each in turn, do not disturb each other", () => {
    const pairs = Array.from({ length: 50 }, () => ({ ...pair(), done: 0 }));
    for (let turn = 0; turn < 10; turn++) {
      for (const each of pairs.filter(({ done }) => done < 2)) {
        const { client, server } = each;
        each.done = Number(client.turn(server, () => client.session.handshake()));
        each.done += Number(server.turn(client, () => server.session.handshake()));
      }
    }
    assert(pairs.every(({ done }) => done === 2));
    for (const { client, server } of pairs.reverse()) free(server, client);
  });

  await t.step("end with close_notify", () => {
    const { client, server } = pair();
    shakeHands(client, server);
    client.turn(server, () => client.session.close());
    const end = server.turn(client, () => server.session.read(new ScatterBuffer(MAX_RECORD), 0));
    assert.equal(end, -1);
    free(client, server);
  });

  const refusals: [name: string, make: () => Promise<ReturnType<typeof pair>>, reason: RegExp][] = [
    ["a client of another CA", async () => {
      const other = await credentials(theirs);
      return pair(new TlsContext({ ...other, roots: good.roots }, protocol));
    }, /certificate refused: unable to get local issuer|self.signed/],
    ["a server of another CA", async () => {
      const other = await credentials(theirs);
      return pair(context, new TlsContext({ ...other, roots: good.roots }, protocol));
    }, /certificate refused: unable to get local issuer|self.signed/],
    ["another application protocol", () => {
      const other = new AlpnProtocol("test/2");
      return Promise.resolve(pair(new TlsContext(good, other), context, new TlsEngine(other)));
    }, /application protocol/],
  ];
  for (const [name, make, reason] of refusals) {
    await t.step(`refuse ${name}, and the next session works`, async () => {
      const { client, server } = await make();
      assert.throws(
        () => shakeHands(client, server),
        (error) => error instanceof TlsError && reason.test(error.reason),
      );
      free(client, server);
      assert.deepEqual(drainErrors(), []);
      const next = pair();
      shakeHands(next.client, next.server);
      free(next.client, next.server);
    });
  }

  await t.step("are freed: two thousand handshakes leave no memory behind", () => {
    const run = (count: number) => {
      for (let index = 0; index < count; index++) {
        const { client, server } = pair();
        shakeHands(client, server);
        free(client, server);
      }
    };
    run(500);
    const before = Deno.memoryUsage().rss;
    run(2000);
    const grown = (Deno.memoryUsage().rss - before) / 1e6;
    assert(grown < 20, `grew by ${grown} MB`); // one leaked session a handshake would be 100 MB and more
  });
  for (const directory of [ours, theirs]) await Deno.remove(directory, { recursive: true });
});
