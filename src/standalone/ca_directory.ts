import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import { basename, dirname, join, resolve } from "node:path";
import { IssuingError } from "../identity/issuer.ts";
import { caId, ECDSA_P256, newCa } from "../identity/new_ca.ts";

/** An ECDSA P-256 certificate authority whose key and certificate have been read and checked. */
export interface CertificateAuthority {
  readonly certificate: x509.X509Certificate;
  /** Not extractable. */
  readonly privateKey: CryptoKey;
}

/**
 * Opens the CA in `directory` (`ca.key`, PKCS#8 PEM, and `ca.crt`, PEM), and makes it on first use.
 * Any number of agents may do so at once: each prepares a whole directory beside the final one and
 * renames it, which succeeds for exactly one; all of them then read what is there.
 *
 * @throws {IssuingError} `ca_unusable` when others could read or change the files, or they are not
 * a valid
 * CA of this trust domain. Never repairs or replaces: a CA made anew would cut every enrolled pod
 * off.
 */
export async function openCaDirectory(
  directory: string,
  trustDomain: string,
): Promise<CertificateAuthority> {
  if (await lstatOrUndefined(directory) === undefined) await makeCa(directory, trustDomain);
  await requirePrivate(directory, "directory");
  const keyFile = join(directory, "ca.key");
  const certificateFile = join(directory, "ca.crt");
  await requirePrivate(keyFile, "file");
  await requirePrivate(certificateFile, "file");

  const certificate = await parsed(
    certificateFile,
    (text) => new x509.X509Certificate(text),
  );
  const privateKey = await parsed(keyFile, (text) => {
    const pkcs8 = x509.PemConverter.decodeFirst(text);
    return crypto.subtle.importKey("pkcs8", pkcs8, ECDSA_P256, false, ["sign"]);
  });
  await requireCa(certificateFile, certificate, trustDomain);
  await requirePair(keyFile, certificate, privateKey);
  return { certificate, privateKey };
}

/**
 * @throws {IssuingError} `ca_unusable` when the CA's certificate is not valid at `now`.
 */
export function requireCurrent(file: string, certificate: x509.X509Certificate, now: Date): void {
  if (now >= certificate.notAfter) {
    throw unusable(file, `it expired on ${certificate.notAfter.toISOString()}`, START_OVER);
  }
  if (now < certificate.notBefore) {
    const from = certificate.notBefore.toISOString();
    throw unusable(file, `it is not valid before ${from}`, "Set this machine's clock");
  }
}

/**
 * Writes a new CA beside `directory` and renames it into place; another's, made meanwhile, stays.
 */
async function makeCa(directory: string, trustDomain: string): Promise<void> {
  const temporary = join(
    dirname(resolve(directory)),
    `.${basename(directory)}-${crypto.randomUUID()}`,
  );
  try {
    await Deno.mkdir(temporary, { mode: 0o700 });
    const { key, certificate } = await newCa(trustDomain);
    await writePrivate(join(temporary, "ca.key"), key);
    await writePrivate(join(temporary, "ca.crt"), certificate);
    await Deno.rename(temporary, directory);
  } catch (cause) {
    await Deno.remove(temporary, { recursive: true }).catch(() => {});
    if (await lstatOrUndefined(directory) !== undefined) return; // another agent was faster
    throw new IssuingError("ca_unusable", `Cannot make a CA in ${directory}`, { cause });
  }
}

/** Owned by us, a plain file or directory, nothing for group and others. */
async function requirePrivate(path: string, kind: "file" | "directory"): Promise<void> {
  const info = await lstatOrUndefined(path);
  if (info === undefined) throw unusable(path, "it is missing", START_OVER);
  if (kind === "file" ? !info.isFile : !info.isDirectory) {
    throw unusable(path, `it is no plain ${kind}`, START_OVER);
  }
  if (info.uid !== Deno.uid()) {
    throw unusable(path, `user ${info.uid} owns it`, `Run: chown ${Deno.uid()} ${path}`);
  }
  const mode = (info.mode ?? 0o777) & 0o777;
  if ((mode & 0o077) !== 0) {
    const wanted = kind === "file" ? "600" : "700";
    throw unusable(
      path,
      `its mode ${mode.toString(8)} lets other users in`,
      `If nobody can have read the key, run: chmod ${wanted} ${path}`,
    );
  }
}

async function requireCa(
  file: string,
  certificate: x509.X509Certificate,
  trustDomain: string,
): Promise<void> {
  requireCurrent(file, certificate, new Date());
  const constraints = certificate.getExtension(x509.BasicConstraintsExtension);
  const usages = certificate.getExtension(x509.KeyUsagesExtension)?.usages ?? 0;
  if (constraints?.ca !== true || (usages & x509.KeyUsageFlags.keyCertSign) === 0) {
    throw unusable(file, "it may not sign certificates", START_OVER);
  }
  if (!await certificate.verify({ signatureOnly: true }).catch(() => false)) {
    throw unusable(file, "it is not signed by its own key", START_OVER);
  }
  const names = certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
  const ids = names.filter((name) => name.type === "url").map((name) => name.value);
  if (ids.length !== 1 || ids[0] !== caId(trustDomain)) {
    const is = ids.map((id) => JSON.stringify(id.slice(0, 300))).join(", ") || "none";
    throw unusable(
      file,
      `its trust domain is ${is}, not ${JSON.stringify(caId(trustDomain))}`,
      `Start with that --trust-domain, or ${START_OVER.toLowerCase()}`,
    );
  }
}

/** The key must be the certificate's: sign with one, verify with the other. */
async function requirePair(
  file: string,
  certificate: x509.X509Certificate,
  privateKey: CryptoKey,
): Promise<void> {
  const probe = crypto.getRandomValues(new Uint8Array(32));
  const signature = await crypto.subtle.sign(ECDSA_P256, privateKey, probe);
  const fits = await certificate.publicKey.export(ECDSA_P256, ["verify"])
    .then((key) => crypto.subtle.verify(ECDSA_P256, key, signature, probe), () => false);
  if (!fits) throw unusable(file, "it is not the key of ca.crt", START_OVER);
}

async function parsed<T>(file: string, read: (text: string) => T | Promise<T>): Promise<T> {
  try {
    return await read(await Deno.readTextFile(file));
  } catch (cause) {
    throw unusable(file, "it cannot be read as PEM of an ECDSA P-256 CA", START_OVER, cause);
  }
}

async function writePrivate(file: string, text: string): Promise<void> {
  using handle = await Deno.open(file, { write: true, createNew: true, mode: 0o600 });
  await handle.write(new TextEncoder().encode(text));
  await handle.sync(); // the rename must not outlive the contents in a power failure
}

async function lstatOrUndefined(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.lstat(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return undefined;
    throw new IssuingError("ca_unusable", `Cannot look at ${path}`, { cause });
  }
}

function unusable(file: string, what: string, doThis: string, cause?: unknown): IssuingError {
  return new IssuingError(
    "ca_unusable",
    `Cannot use the CA's ${file}: ${what}. ${doThis}.`,
    cause === undefined ? undefined : { cause },
  );
}

const START_OVER =
  "To start over with a new CA, stop every agent that shares it and remove the directory";
