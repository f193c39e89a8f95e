/**
 * A million strangers at the handshake: whatever they send, a server's session refuses it with a
 * TlsError or waits for more, takes none of them for a peer, and keeps nothing. fuzz_test.ts does
 * the same over sockets.
 */
import { deepEqual, strictEqual } from "node:assert/strict";
import { credentials } from "../standalone/credentials_for_tests.ts";
import { generator, mutate, type Random } from "../random_for_tests.ts";
import { drainErrors } from "./openssl_error.ts";
import { AlpnProtocol, TlsContext } from "./tls_context.ts";
import { MAX_RECORD, TlsEngine, TlsError } from "./tls_session.ts";

const CASES = 1_000_000;
/** Of the first case; each case has the next one, so that one alone can be run again. */
const SEED = 0x746c_0000;
const KEPT_BYTES = 64 * 2 ** 20;
/** The longest answer: a server's whole flight. */
const MOST_ANSWERED = 8_192;

/** openssl/ssl3.h: what a record says that it holds. */
const RECORD = { changeCipherSpec: 20, alert: 21, handshake: 22, applicationData: 23 } as const;

Deno.test("a million strangers: refused or waiting, never let in, nothing kept", async () => {
  using protocol = new AlpnProtocol("kube-gateway/1");
  const engine = new TlsEngine(protocol);
  const directory = await Deno.makeTempDir();
  const shown = await credentials(directory);
  await Deno.remove(directory, { recursive: true });
  using context = new TlsContext(shown, protocol);
  const stranger = new Stranger(clientHello(engine, context));
  const counts = { refused: 0, waiting: 0, answered: 0 };
  let before = 0;
  for (let number = 0; number < CASES; number++) {
    if (number === CASES / 10) before = Deno.memoryUsage().rss; // OpenSSL's heap has found its size
    const seed = SEED + number;
    try {
      counts[attempt(engine, context, stranger, generator(seed))]++;
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  const kept = Deno.memoryUsage().rss - before;
  strictEqual(kept < KEPT_BYTES, true, `${kept} bytes more than before`);
  // Every sort of stranger has to be there for this to mean anything.
  for (const count of Object.values(counts)) {
    strictEqual(count > CASES / 10, true, JSON.stringify(counts));
  }
});

/**
 * One stranger's session from its first byte to its end. `answered`: it got the server's flight
 * before that.
 */
function attempt(
  engine: TlsEngine,
  context: TlsContext,
  stranger: Stranger,
  random: Random,
): "refused" | "waiting" | "answered" {
  using session = engine.session(context, "server");
  let answered = 0;
  try {
    for (const piece of stranger.pieces(random)) {
      engine.incoming.bytes.set(piece);
      engine.feed(piece.length);
      strictEqual(session.handshake(), false, "a stranger was let in");
      answered += engine.produced;
      engine.clearOutgoing();
    }
    return answered > 0 ? "answered" : "waiting";
  } catch (error) {
    if (!(error instanceof TlsError)) throw error;
    return answered > 0 ? "answered" : "refused";
  } finally {
    strictEqual(
      answered + engine.produced <= MOST_ANSWERED,
      true,
      "a stranger got too long an answer",
    );
    engine.clearOutgoing();
    deepEqual(drainErrors(), []);
  }
}

/** What a client of ours says first. */
function clientHello(engine: TlsEngine, context: TlsContext): Uint8Array {
  using session = engine.session(context, "client");
  engine.feed(0);
  session.handshake();
  const hello = engine.outgoing.bytes.slice(0, engine.produced);
  engine.clearOutgoing();
  return hello;
}

/** Makes up what strangers send, in buffers that are used again. */
class Stranger {
  readonly #bytes = new Uint8Array(2 * MAX_RECORD);
  #length = 0;

  constructor(readonly hello: Uint8Array) {}

  /** In the pieces in which the server is to read it. */
  pieces(random: Random): Uint8Array[] {
    const isBehindHello = random(4) === 0;
    this.#length = 0;
    if (isBehindHello) this.#secondFlight(random);
    else this.#firstFlight(random);
    const cut = random(2) === 0 ? this.#length : random(this.#length + 1);
    const pieces = [this.#bytes.subarray(0, cut), this.#bytes.subarray(cut, this.#length)];
    return isBehindHello ? [this.hello, ...pieces] : pieces;
  }

  /** Noise, a record of it, part of a ClientHello, or one with something wrong. */
  #firstFlight(random: Random): void {
    const kind = random(8);
    if (kind === 0) return this.#noise(random(200), random);
    if (kind === 1) return this.#record(random);
    this.#bytes.set(this.hello);
    this.#length = this.hello.length;
    if (kind === 2) this.#length = random(this.hello.length);
    else {
      for (let count = random(3); count >= 0; count--) {
        this.#length = mutate(this.#bytes, this.#length, random);
      }
    }
  }

  /** Records of every type, most of them not even encrypted. */
  #secondFlight(random: Random): void {
    for (let count = random(4); count >= 0; count--) this.#record(random);
  }

  #record(random: Random): void {
    const types = Object.values(RECORD);
    const type = random(10) === 0 ? random(256) : types[random(types.length)] ?? 0;
    const length = random(50) === 0 ? random(MAX_RECORD / 4) : random(40);
    const claimed = random(10) === 0 ? random(2 ** 16) : length;
    for (
      const byte of [type, 3, random(10) === 0 ? random(256) : 3, claimed >> 8, claimed & 0xff]
    ) {
      this.#bytes[this.#length++] = byte;
    }
    if (type === RECORD.changeCipherSpec && random(2) === 0) this.#bytes[this.#length++] = 1;
    else this.#noise(length, random);
  }

  /** Mostly small bytes, so that some of them mean something. */
  #noise(length: number, random: Random): void {
    for (; length > 0; length--) {
      this.#bytes[this.#length++] = random(3) === 0 ? random(256) : random(24);
    }
  }
}
