import { Certificate } from "./certificate.ts";
import { libcrypto } from "./libcrypto.ts";
import { libssl } from "./libssl.ts";
import { drainErrors, notNull, verifyErrorText } from "./openssl_error.ts";
import { ScatterBuffer } from "./scatter.ts";
import type { AlpnProtocol, TlsContext } from "./tls_context.ts";

/** The most plaintext that one TLS record holds (RFC 8446 section 5.1). */
export const MAX_RECORD = 16384;

/** The most ciphertext that is read from a socket at once. */
export const INCOMING_SIZE = 65536;

/**
 * The same where memory is short: a record at most, with its header and tag, and a little of the
 * next.
 */
export const SMALL_INCOMING_SIZE = 16_448;

/** What was encrypted before it is sent: four full records and what OpenSSL may add of its own. */
const OUTGOING_SIZE = 196608;

/** Why a session cannot go on. `reason` says it in OpenSSL's or X.509's own words. */
export class TlsError extends Error {
  constructor(readonly reason: string) {
    super(reason);
    this.name = "TlsError";
  }
}

/**
 * The memory through which all TLS sessions of one worker speak: ciphertext that was received goes
 * in, plain text comes out, and the reverse. A session is driven to the end of what it was given
 * before the next one starts, so one pair of buffers serves them all and an idle session owns none.
 *
 * Both are memory BIOs on our own buffers (BIO_set_mem_buf): OpenSSL reads from where recvmsg()
 * wrote, and writes where sendmsg() reads.
 */
export class TlsEngine {
  /** Ciphertext of the last read. */
  readonly incoming = new ScatterBuffer(INCOMING_SIZE);
  /** Ciphertext to be sent. */
  readonly outgoing = new ScatterBuffer(OUTGOING_SIZE);

  readonly #readBio = memoryBio();
  readonly #writeBio = memoryBio();
  /** struct buf_mem_st: length 0, data 8, max 16, flags 24 (openssl/buffer.h). */
  readonly #pinnedRead = bufMem(this.incoming, INCOMING_SIZE);
  readonly #pinnedWrite = bufMem(this.outgoing, OUTGOING_SIZE);
  readonly #readLength = new Uint32Array(this.#pinnedRead.buffer, 0, 1);
  readonly #readData = new BigUint64Array(this.#pinnedRead.buffer, 8, 1);
  readonly #readMax = new Uint32Array(this.#pinnedRead.buffer, 16, 1);
  readonly #incomingStart = this.#readData[0] ?? 0n;
  readonly #writeLength = new Uint32Array(this.#pinnedWrite.buffer, 0, 1);

  constructor(readonly protocol: AlpnProtocol) {
    this.incoming.add(0, SMALL_INCOMING_SIZE);
    this.incoming.add(SMALL_INCOMING_SIZE, INCOMING_SIZE - SMALL_INCOMING_SIZE);
    this.feed(0);
    this.clearOutgoing();
  }

  /**
   * Receives ciphertext, of one of the two sizes at most: bytes, 0 at the end of the stream, or
   * minus the errno.
   */
  receive(descriptor: number, most: number): number {
    return this.incoming.receive(descriptor, most === INCOMING_SIZE ? 2 : 1);
  }

  /** Lets the sessions read the first `length` bytes of {@link incoming}, and nothing of before. */
  feed(length: number): void {
    this.#readLength[0] = length;
    this.#readMax[0] = INCOMING_SIZE;
    this.#readData[0] = this.#incomingStart;
    libcrypto.BIO_ctrl(this.#readBio, BIO_C_SET_BUF_MEM, BIO_NOCLOSE, this.#pinnedRead);
  }

  /** Bytes of {@link incoming} that no session has taken yet. */
  get unread(): number {
    return libcrypto.BIO_ctrl_pending(this.#readBio);
  }

  /** Bytes of ciphertext that wait in {@link outgoing}. */
  get produced(): number {
    return this.#writeLength[0] ?? 0;
  }

  clearOutgoing(): void {
    this.#writeLength[0] = 0;
    libcrypto.BIO_ctrl(this.#writeBio, BIO_C_SET_BUF_MEM, BIO_NOCLOSE, this.#pinnedWrite);
  }

  /** A new session; see {@link TlsSession}. */
  session(context: TlsContext, role: "client" | "server"): TlsSession {
    const pointer = notNull(libssl.SSL_new(context.pointer), "SSL_new", "TLS session");
    libcrypto.BIO_up_ref(this.#readBio);
    libcrypto.BIO_up_ref(this.#writeBio);
    libssl.SSL_set_bio(pointer, this.#readBio, this.#writeBio);
    if (role === "client") libssl.SSL_set_connect_state(pointer);
    else libssl.SSL_set_accept_state(pointer);
    return new TlsSession(pointer, this.protocol);
  }
}

/** What two sides have agreed on, by the names that TLS has for it. */
export interface TlsFacts {
  readonly version: "TLSv1.3";
  readonly cipher: string;
  /** Of the key exchange; X25519MLKEM768 is safe from quantum computers. */
  readonly group: string;
}

/**
 * One TLS connection, without its socket: it reads what its engine was fed and leaves in the engine
 * what is to be sent, also when it throws (the alert).
 */
export class TlsSession implements Disposable {
  #pointer: Deno.PointerObject | null;

  constructor(pointer: Deno.PointerObject, readonly protocol: AlpnProtocol) {
    this.#pointer = pointer;
  }

  /**
   * Goes on with the handshake: true when it is done and the chain verified, false when it needs
   * more from the peer. Throws a TlsError with the reason.
   */
  handshake(): boolean {
    const result = libssl.SSL_do_handshake(this.#pointer);
    if (result === 1) {
      if (!this.protocol.isAgreed(this.#live)) throw new TlsError("no common application protocol");
      return true;
    }
    if (this.#error(result) === SSL_ERROR_WANT_READ) return false;
    throw this.#failure("the connection was closed during the handshake");
  }

  /** What the handshake has agreed on. */
  facts(): TlsFacts {
    const cipher = libssl.SSL_CIPHER_get_name(libssl.SSL_get_current_cipher(this.#pointer));
    const group = Number(libssl.SSL_ctrl(this.#pointer, SSL_CTRL_GET_NEGOTIATED_GROUP, 0n, null));
    return {
      version: "TLSv1.3", // the only one that a context allows
      cipher: cipher === null ? "unknown" : Deno.UnsafePointerView.getCString(cipher),
      group: GROUP_NAMES.get(group) ?? `group ${group}`,
    };
  }

  /** The peer's leaf. The caller disposes of it. */
  peerCertificate(): Certificate {
    return new Certificate(
      notNull(
        libssl.SSL_get1_peer_certificate(this.#pointer),
        "SSL_get1_peer_certificate",
        "the peer sent no certificate",
      ),
    );
  }

  /**
   * Decrypts the next record into `buffer` at `offset` (a multiple of GRAIN, with MAX_RECORD bytes
   * of room): bytes, 0 when more ciphertext is needed, -1 after the peer's close_notify. Throws a
   * TlsError.
   */
  read(buffer: ScatterBuffer, offset: number): number {
    const count = libssl.SSL_read(this.#pointer, buffer.pointer(offset), MAX_RECORD);
    if (count > 0) return count;
    const error = this.#error(count);
    if (error === SSL_ERROR_WANT_READ) return 0;
    if (error === SSL_ERROR_ZERO_RETURN) return -1;
    throw this.#failure("the peer broke the TLS connection");
  }

  /** Encrypts `length` bytes of `buffer` at `offset` (a multiple of GRAIN) as one record. */
  write(buffer: ScatterBuffer, offset: number, length: number): void {
    const count = libssl.SSL_write(this.#pointer, buffer.pointer(offset), length);
    if (count !== length) throw this.#failure("the TLS connection can no longer send");
  }

  /** Leaves a close_notify in the engine. */
  close(): void {
    if (libssl.SSL_shutdown(this.#pointer) < 0) drainErrors();
  }

  [Symbol.dispose](): void {
    if (this.#pointer === null) return;
    libssl.SSL_free(this.#pointer);
    this.#pointer = null;
  }

  get #live(): Deno.PointerObject {
    return notNull(this.#pointer, "SSL", "the session was disposed of");
  }

  #error(result: number): number {
    return libssl.SSL_get_error(this.#pointer, result);
  }

  #failure(fallback: string): TlsError {
    const reasons = drainErrors();
    const verified = libssl.SSL_get_verify_result(this.#pointer);
    if (verified !== X509_V_OK) {
      return new TlsError(`certificate refused: ${verifyErrorText(verified)}`);
    }
    return new TlsError(reasons.length > 0 ? reasons.join("; ") : fallback);
  }
}

function memoryBio(): Deno.PointerObject {
  return notNull(libcrypto.BIO_new(libcrypto.BIO_s_mem()), "BIO_new", "TLS buffers");
}

function bufMem(buffer: ScatterBuffer, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(8, BigInt(Deno.UnsafePointer.value(buffer.pointer(0))), true);
  view.setBigUint64(16, BigInt(size), true);
  return bytes;
}

// openssl/bio.h, openssl/ssl.h, openssl/x509_vfy.h
const BIO_NOCLOSE = 0n;
const BIO_C_SET_BUF_MEM = 114;
const SSL_ERROR_WANT_READ = 2;
const SSL_ERROR_ZERO_RETURN = 6;
const X509_V_OK = 0n;
const SSL_CTRL_GET_NEGOTIATED_GROUP = 134;
/**
 * openssl/obj_mac.h's NIDs, and IANA's number + 2^24 for what has none
 * (SSL_get_negotiated_group(3)).
 */
const GROUP_NAMES = new Map([
  [1034, "X25519"],
  [415, "P-256"],
  [0x100_11ec, "X25519MLKEM768"],
]);
