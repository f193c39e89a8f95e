import { Certificate } from "./certificate.ts";
import { forgetVerified, rememberVerified } from "./chain_verifier.ts";
import { cString } from "./libc.ts";
import { libcrypto } from "./libcrypto.ts";
import { libssl } from "./libssl.ts";
import { drainErrors, notNull, OpenSslError, succeeded } from "./openssl_error.ts";

/** What a pod shows and trusts. All DER. */
export interface Credentials {
  /** Leaf first, without the root. */
  readonly chain: readonly Uint8Array[];
  /** PKCS#8. */
  readonly privateKey: Uint8Array;
  readonly roots: readonly Uint8Array[];
}

/**
 * One pod's TLS settings, for both roles: TLS 1.3 only, a verified peer certificate required, no
 * tickets, no resumption, no early data, one application protocol. Sessions keep what they started
 * with, so a context can be replaced and disposed of while its tunnels live.
 */
export class TlsContext implements Disposable {
  readonly pointer: Deno.PointerObject;

  constructor(credentials: Credentials, protocol: AlpnProtocol) {
    const pointer = verifyingContext(credentials.roots);
    this.pointer = pointer;
    try {
      libssl.SSL_CTX_set_alpn_protos(pointer, protocol.wire, protocol.wire.length);
      libssl.SSL_CTX_set_alpn_select_cb(pointer, protocol.select.pointer, null);
      load(pointer, credentials);
    } catch (error) {
      libssl.SSL_CTX_free(pointer);
      throw error;
    }
    rememberVerified(pointer);
  }

  [Symbol.dispose](): void {
    forgetVerified(this.pointer);
    libssl.SSL_CTX_free(this.pointer);
  }
}

/**
 * An SSL_CTX that verifies peers as every pod does, by roots in DER. The caller frees it.
 *
 * @throws {OpenSslError} when a root is no certificate, or there is none.
 */
export function verifyingContext(roots: readonly Uint8Array[]): Deno.PointerObject {
  const context = notNull(libssl.SSL_CTX_new(libssl.TLS_method()), "SSL_CTX_new", "TLS context");
  try {
    restrict(context);
    trust(context, roots);
    return context;
  } catch (error) {
    libssl.SSL_CTX_free(context);
    throw error;
  }
}

function restrict(context: Deno.PointerObject): void {
  const set = (command: number, value: bigint, about: string) =>
    succeeded(libssl.SSL_CTX_ctrl(context, command, value, null), "SSL_CTX_ctrl", about);
  set(SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, "TLS 1.3 at least");
  set(SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_3_VERSION, "TLS 1.3 at most");
  // Without NO_AUTO_CHAIN each handshake would look for the own chain's root, verify it and send
  // it, which the peer has already.
  const mode = SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN;
  libssl.SSL_CTX_ctrl(context, SSL_CTRL_MODE, mode, null);
  libssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF, null);
  libssl.SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
  succeeded(libssl.SSL_CTX_set_num_tickets(context, 0n), "SSL_CTX_set_num_tickets", "no tickets");
  succeeded(
    libssl.SSL_CTX_set_ciphersuites(context, CIPHER_SUITES),
    "SSL_CTX_set_ciphersuites",
    "TLS 1.3 cipher suites",
  );
  // OpenSSL before 3.5 does not know the post-quantum group and refuses the whole list.
  if (libssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0n, POST_QUANTUM_GROUPS) !== 1n) {
    drainErrors();
    succeeded(
      libssl.SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0n, GROUPS),
      "SSL_CTX_set1_groups_list",
      "key exchange groups",
    );
  }
  libssl.SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, null);
  libssl.SSL_CTX_set_verify_depth(context, 4);
  succeeded(
    libcrypto.X509_VERIFY_PARAM_set_flags(
      libssl.SSL_CTX_get0_param(context),
      X509_V_FLAG_X509_STRICT | X509_V_FLAG_PARTIAL_CHAIN,
    ),
    "X509_VERIFY_PARAM_set_flags",
    "strict chain verification that ends at a trusted CA, whoever has signed that",
  );
}

function trust(context: Deno.PointerObject, roots: readonly Uint8Array[]): void {
  if (roots.length === 0) {
    throw new OpenSslError("X509_STORE_add_cert", ["the trust bundle is empty"], "TLS context");
  }
  const store = libssl.SSL_CTX_get_cert_store(context);
  for (const der of roots) {
    using root = Certificate.parse(new Uint8Array(der));
    succeeded(
      libcrypto.X509_STORE_add_cert(store, root.pointer),
      "X509_STORE_add_cert",
      "trust bundle",
    );
  }
}

function load(context: Deno.PointerObject, { chain, privateKey }: Credentials): void {
  const [leaf, ...intermediates] = chain;
  if (leaf === undefined) {
    throw new OpenSslError("SSL_CTX_use_certificate", ["the chain is empty"], "TLS context");
  }
  succeeded(
    libssl.SSL_CTX_use_certificate_ASN1(context, leaf.length, new Uint8Array(leaf)),
    "SSL_CTX_use_certificate",
    "the pod's certificate",
  );
  for (const der of intermediates) {
    using intermediate = Certificate.parse(new Uint8Array(der));
    succeeded(
      libssl.SSL_CTX_ctrl_pointer(context, SSL_CTRL_CHAIN_CERT, 1n, intermediate.pointer),
      "SSL_CTX_add1_chain_cert",
      "the pod's chain",
    );
  }
  succeeded(
    libssl.SSL_CTX_use_PrivateKey_ASN1(
      EVP_PKEY_EC,
      context,
      new Uint8Array(privateKey),
      BigInt(privateKey.length),
    ),
    "SSL_CTX_use_PrivateKey",
    "the pod's key",
  );
  succeeded(libssl.SSL_CTX_check_private_key(context), "SSL_CTX_check_private_key", "pod");
}

/** The one application protocol that both sides must agree on (RFC 7301), offered and required. */
export class AlpnProtocol implements Disposable {
  /** One length-prefixed name. */
  readonly wire: Uint8Array<ArrayBuffer>;
  readonly select: Deno.UnsafeCallback<typeof SELECT>;

  constructor(name: string) {
    const bytes = new TextEncoder().encode(name);
    this.wire = Uint8Array.of(bytes.length, ...bytes);
    const chosen = Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.wire));
    // A server answers with the protocol or refuses the handshake with no_application_protocol.
    this.select = new Deno.UnsafeCallback(
      SELECT,
      (_ssl, out, outLength, offered, offeredLength) => {
        if (
          out === null || outLength === null || offered === null
        ) return SSL_TLSEXT_ERR_ALERT_FATAL;
        // SAFETY: OpenSSL passes `offeredLength` readable bytes and two writable results (8 and 1
        // byte); the result points into `wire`, which lives as long as this object.
        const list = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(offered, offeredLength));
        if (!offers(list, bytes)) return SSL_TLSEXT_ERR_ALERT_FATAL;
        new BigUint64Array(Deno.UnsafePointerView.getArrayBuffer(out, 8))[0] = BigInt(chosen) + 1n;
        new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(outLength, 1))[0] = bytes.length;
        return SSL_TLSEXT_ERR_OK;
      },
    );
  }

  /**
   * Whether the session agreed on it: a side that offers no protocol at all passes the callback by.
   */
  isAgreed(session: Deno.PointerObject): boolean {
    libssl.SSL_get0_alpn_selected(session, this.#name, this.#nameLength);
    const pointer = Deno.UnsafePointer.create(new BigUint64Array(this.#name.buffer)[0] ?? 0n);
    const length = new Uint32Array(this.#nameLength.buffer)[0] ?? 0;
    if (pointer === null || length !== this.wire.length - 1) return false;
    // SAFETY: OpenSSL keeps the selected name, `length` bytes, as long as the session.
    const name = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, length));
    return name.every((byte, index) => byte === this.wire[index + 1]);
  }

  [Symbol.dispose](): void {
    this.select.close();
  }

  readonly #name = new Uint8Array(8);
  readonly #nameLength = new Uint8Array(4);
}

function offers(list: Uint8Array, name: Uint8Array): boolean {
  for (let at = 0; at < list.length; at += 1 + (list[at] ?? 0)) {
    const offered = list.subarray(at + 1, at + 1 + (list[at] ?? 0));
    if (offered.length === name.length && offered.every((b, i) => b === name[i])) return true;
  }
  return false;
}

/** SSL_CTX_alpn_select_cb_func (openssl/ssl.h). */
const SELECT = {
  parameters: ["pointer", "pointer", "pointer", "pointer", "u32", "pointer"],
  result: "i32",
} as const;

// openssl/ssl.h, openssl/tls1.h, openssl/x509_vfy.h, openssl/obj_mac.h
const SSL_CTRL_MODE = 33;
const SSL_CTRL_SET_SESS_CACHE_MODE = 44;
const SSL_CTRL_CHAIN_CERT = 89;
const SSL_CTRL_SET_GROUPS_LIST = 92;
const SSL_CTRL_SET_MIN_PROTO_VERSION = 123;
const SSL_CTRL_SET_MAX_PROTO_VERSION = 124;
const TLS1_3_VERSION = 0x0304n;
const SSL_MODE_NO_AUTO_CHAIN = 0x8n;
const SSL_MODE_RELEASE_BUFFERS = 0x10n;
const SSL_SESS_CACHE_OFF = 0n;
const SSL_OP_NO_TICKET = 1n << 14n;
const SSL_VERIFY_PEER = 1;
const SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2;
const X509_V_FLAG_X509_STRICT = 0x20n;
const X509_V_FLAG_PARTIAL_CHAIN = 0x80000n;
const EVP_PKEY_EC = 408;
const SSL_TLSEXT_ERR_OK = 0;
const SSL_TLSEXT_ERR_ALERT_FATAL = 2;
const CIPHER_SUITES = cString(
  "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
);
const POST_QUANTUM_GROUPS = cString("X25519MLKEM768:X25519:P-256");
const GROUPS = cString("X25519:P-256");
