import { Certificate } from "./certificate.ts";
import { cString } from "./libc.ts";
import { libcrypto } from "./libcrypto.ts";
import { libssl } from "./libssl.ts";
import { notNull, succeeded, verifyErrorText } from "./openssl_error.ts";
import { verifyingContext } from "./tls_context.ts";

/** Why peers would not take a chain. */
export interface ChainFlaw {
  /** OpenSSL's words, and which certificate they are about. */
  readonly reason: string;
  /** Nothing else is wrong than that it leads to none of the roots. */
  readonly isRootMissing: boolean;
  /** By the clock here it is not valid yet, or its leaf is not any more. */
  readonly isUntimely: boolean;
}

/**
 * What is wrong with a chain (DER, leaf first) for peers that trust `roots` (DER), whether they are
 * its clients or its servers; undefined when nothing is. It is verified as in a handshake
 * (ssl_verify_cert_chain, OpenSSL's ssl/ssl_cert.c): with the parameters, the security level and
 * the two purposes of the contexts that pods use.
 *
 * @throws {OpenSslError} when one of them is no certificate.
 */
export function chainFlaw(
  chain: readonly Uint8Array[],
  roots: readonly Uint8Array[],
): ChainFlaw | undefined {
  using resources = new DisposableStack();
  const parsed = chain.map((der) => resources.use(Certificate.parse(new Uint8Array(der))));
  return flawOf(parsed, roots);
}

/**
 * Whether a leaf that was accepted before leads to one of these roots (DER), whatever else has
 * become of it.
 */
export function leadsToOne(leaf: Certificate, roots: readonly Uint8Array[]): boolean {
  return !(flawOf([leaf], roots)?.isRootMissing ?? false);
}

function flawOf(
  chain: readonly Certificate[],
  roots: readonly Uint8Array[],
): ChainFlaw | undefined {
  const [leaf] = chain;
  if (leaf === undefined) {
    return { reason: "there is none", isRootMissing: false, isUntimely: false };
  }
  using resources = new DisposableStack();
  const context = verifyingContext(roots);
  resources.defer(() => libssl.SSL_CTX_free(context));
  const stack = notNull(libcrypto.OPENSSL_sk_new_null(), "OPENSSL_sk_new_null", ABOUT);
  resources.defer(() => libcrypto.OPENSSL_sk_free(stack));
  // As a peer's message has them: with the leaf.
  for (const { pointer } of chain) libcrypto.OPENSSL_sk_push(stack, pointer);
  return flawFor(CLIENT, context, leaf, stack) ?? flawFor(SERVER, context, leaf, stack);
}

function flawFor(
  purpose: Uint8Array<ArrayBuffer>,
  context: Deno.PointerObject,
  leaf: Certificate,
  stack: Deno.PointerObject,
): ChainFlaw | undefined {
  const store = notNull(libcrypto.X509_STORE_CTX_new(), "X509_STORE_CTX_new", ABOUT);
  try {
    const trusted = libssl.SSL_CTX_get_cert_store(context);
    const begun = libcrypto.X509_STORE_CTX_init(store, trusted, leaf.pointer, stack);
    succeeded(begun, "X509_STORE_CTX_init", ABOUT);
    const parameters = libcrypto.X509_STORE_CTX_get0_param(store);
    const level = libssl.SSL_CTX_get_security_level(context);
    libcrypto.X509_VERIFY_PARAM_set_auth_level(parameters, level);
    const chosen = libcrypto.X509_STORE_CTX_set_default(store, purpose);
    succeeded(chosen, "X509_STORE_CTX_set_default", ABOUT);
    const own = libssl.SSL_CTX_get0_param(context);
    succeeded(libcrypto.X509_VERIFY_PARAM_set1(parameters, own), "X509_VERIFY_PARAM_set1", ABOUT);
    if (libcrypto.X509_verify_cert(store) === 1) return undefined;
    const code = libcrypto.X509_STORE_CTX_get_error(store);
    const depth = libcrypto.X509_STORE_CTX_get_error_depth(store);
    return {
      reason: `${verifyErrorText(BigInt(code))} (${WHICH[depth] ?? `certificate ${depth}`})`,
      isRootMissing: ROOT_MISSING.has(code),
      isUntimely: code === X509_V_ERR_CERT_NOT_YET_VALID ||
        (code === X509_V_ERR_CERT_HAS_EXPIRED && depth === 0),
    };
  } finally {
    libcrypto.X509_STORE_CTX_free(store);
  }
}

const ABOUT = "verifying a chain";
const WHICH = ["the leaf", "its CA"];

/**
 * Names of openssl/x509_vfy.h's table of parameters: how one's server and one's client are
 * verified.
 */
const SERVER = cString("ssl_server");
const CLIENT = cString("ssl_client");

/**
 * X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN,
 * UNABLE_TO_GET_ISSUER_CERT_LOCALLY and UNABLE_TO_VERIFY_LEAF_SIGNATURE (openssl/x509_vfy.h).
 */
const ROOT_MISSING: ReadonlySet<number> = new Set([2, 18, 19, 20, 21]);

/** X509_V_ERR_CERT_NOT_YET_VALID and CERT_HAS_EXPIRED (openssl/x509_vfy.h). */
const X509_V_ERR_CERT_NOT_YET_VALID = 9;
const X509_V_ERR_CERT_HAS_EXPIRED = 10;
