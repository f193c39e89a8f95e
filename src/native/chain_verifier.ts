import { digestOf, secondsLeft } from "./certificate.ts";
import { libcrypto } from "./libcrypto.ts";
import { libssl } from "./libssl.ts";

/** However long a certificate is good, its chain is verified again after this. */
const MAX_SECONDS = 600;

/** Of each context. */
const MAX_LEAVES = 1024;

/**
 * Makes a context remember which leaves it has verified, until they expire or for ten minutes: a
 * pair of pods that makes another tunnel is spared a tenth of the handshake. What the leaf says is
 * judged each time, by its caller (identity/verify.ts), and that the peer has its key by TLS
 * itself. The context's roots must not change.
 */
export function rememberVerified(context: Deno.PointerObject): void {
  contexts.set(Deno.UnsafePointer.value(context), new Map());
  libssl.SSL_CTX_set_cert_verify_callback(context, verifyChain.pointer, context);
}

/** To be called before the context is freed; sessions that are left verify everything. */
export function forgetVerified(context: Deno.PointerObject): void {
  contexts.delete(Deno.UnsafePointer.value(context));
}

/**
 * By the context's address: what the leaf's digest and the verifying side were verified for. An
 * address is not another context's before the last session of this one is freed.
 */
const contexts = new Map<ReturnType<typeof Deno.UnsafePointer.value>, Map<string, Validity>>();

/**
 * By the wall clock, as certificates count, in milliseconds since 1970: a clock that jumps, either
 * way, ends it.
 */
interface Validity {
  readonly from: number;
  readonly to: number;
}

/**
 * In the place of X509_verify_cert: 1, or 0 with the reason in `store`. Never closed: sessions
 * outlive contexts.
 */
const verifyChain = new Deno.UnsafeCallback(
  { parameters: ["pointer", "pointer"], result: "i32" } as const,
  (store, argument) => {
    try {
      return verify(store, contexts.get(Deno.UnsafePointer.value(argument)));
    } catch {
      return 0; // nothing may be thrown through OpenSSL
    }
  },
);

function verify(store: Deno.PointerValue, verified: Map<string, Validity> | undefined): number {
  const key = verified === undefined ? undefined : keyOf(store);
  if (verified === undefined || key === undefined) return verifyNow(store);
  const known = verified.get(key);
  const now = Date.now();
  if (known !== undefined && known.from <= now && now < known.to) return 1;
  const result = verifyNow(store);
  if (result === 1) remember(verified, key, store);
  else verified.delete(key);
  return result;
}

function verifyNow(store: Deno.PointerValue): number {
  return libcrypto.X509_verify_cert(store) === 1 ? 1 : 0;
}

function remember(verified: Map<string, Validity>, key: string, store: Deno.PointerValue): void {
  const leaf = libcrypto.X509_STORE_CTX_get0_cert(store);
  if (leaf === null) return;
  const life = Math.min(MAX_SECONDS, secondsLeft(leaf));
  const [oldest] = verified.keys();
  if (verified.size >= MAX_LEAVES && oldest !== undefined) verified.delete(oldest);
  const now = Date.now();
  verified.set(key, { from: now, to: now + 1000 * life });
}

/**
 * The leaf's digest and who verifies: a leaf may be good for one side only (extended key usage).
 */
function keyOf(store: Deno.PointerValue): string | undefined {
  const leaf = libcrypto.X509_STORE_CTX_get0_cert(store);
  const session = libcrypto.X509_STORE_CTX_get_ex_data(store, sessionIndex);
  if (leaf === null || session === null) return undefined;
  return `${libssl.SSL_is_server(session)} ${digestOf(leaf)}`;
}

const sessionIndex = libssl.SSL_get_ex_data_X509_STORE_CTX_idx();
