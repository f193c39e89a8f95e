import { libcrypto } from "./libcrypto.ts";

/** An OpenSSL call that failed, with every reason that its error queue held. */
export class OpenSslError extends Error {
  constructor(call: string, readonly reasons: string[], about: string) {
    super(`${call} failed (${reasons.join("; ") || "no reason given"}): ${about}`);
    this.name = "OpenSslError";
  }
}

/** Empties the calling thread's error queue: the reasons, oldest first. */
export function drainErrors(): string[] {
  const reasons: string[] = [];
  for (;;) {
    const code = libcrypto.ERR_get_error();
    if (code === 0n) return reasons;
    reasons.push(staticText(libcrypto.ERR_reason_error_string(code)) ?? `error ${code}`);
  }
}

/** `pointer`, or a thrown error when it is NULL. */
export function notNull(
  pointer: Deno.PointerValue,
  call: string,
  about: string,
): Deno.PointerObject {
  if (pointer === null) throw new OpenSslError(call, drainErrors(), about);
  return pointer;
}

/** Throws unless `result` is 1, OpenSSL's word for success. */
export function succeeded(result: number | bigint, call: string, about: string): void {
  if (Number(result) !== 1) throw new OpenSslError(call, drainErrors(), about);
}

/** Why a chain did not verify (X509_V_ERR_*, openssl/x509_vfy.h). */
export function verifyErrorText(code: bigint): string {
  return staticText(libcrypto.X509_verify_cert_error_string(code)) ?? `verify error ${code}`;
}

function staticText(pointer: Deno.PointerValue): string | undefined {
  // SAFETY: these calls return NULL or static C strings of the library.
  return pointer === null ? undefined : Deno.UnsafePointerView.getCString(pointer);
}
