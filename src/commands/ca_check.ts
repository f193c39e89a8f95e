import { parseAllDocuments } from "yaml";
import * as v from "valibot";
import type { X509Certificate } from "@peculiar/x509";
import { errorText } from "../error_text.ts";
import { IssuingError } from "../identity/issuer.ts";
import { CA_SECRET } from "../identity/signing_names.ts";
import { readCa, requireAccepted } from "../signer/ca.ts";
import { listOption, optionalText, type Options, textOption, UsageError } from "./command_line.ts";

/**
 * `kube-gateway ca check FILE`: tries a CA as the signer will, and says what peers would say of
 * what it signs. FILE is the Secret's manifest, or PEM with the CA's certificate first.
 *
 * @throws {IssuingError} `ca_unusable`, with the reason.
 * @throws {UsageError} when a file cannot be read, or there is no key.
 */
export async function caCheckCommand(file: string, options: Options): Promise<void> {
  const text = await textOf(file);
  const secret = secretIn(text) ?? secretOf(text, await keyIn(file, text, options));
  const trustDomain = textOption(options, "trust-domain");
  const addresses = listOption(options, "address", (address) => address);
  const { subject, notAfter } = await tried(file, secret, trustDomain, addresses);
  console.log(`ok: peers accept what ${JSON.stringify(subject)} signs for ${trustDomain}`);
  for (const address of addresses) console.log(`ok: for a pod at ${address}, too`);
  console.log(`it ends at ${notAfter.toISOString()}`);
}

async function textOf(file: string): Promise<string> {
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    const todo = "name a file that holds the Secret's manifest, or PEM";
    throw new UsageError(`cannot read ${file}: ${errorText(error)}: ${todo}`, { cause: error });
  }
}

async function keyIn(file: string, text: string, options: Options): Promise<string> {
  const keyFile = optionalText(options, "key");
  if (keyFile !== undefined) return await textOf(keyFile);
  if (text.includes("PRIVATE KEY-----")) return text;
  throw new UsageError(`${file} holds no private key: name the file that does with --key`);
}

async function tried(
  file: string,
  secret: unknown,
  trustDomain: string,
  addresses: readonly string[],
): Promise<X509Certificate> {
  try {
    const ca = await readCa(secret, trustDomain);
    for (const address of addresses) await requireAccepted(ca, trustDomain, [address]);
    return ca.certificate;
  } catch (error) {
    if (!(error instanceof IssuingError)) throw error;
    const message = error.message.replace(`Secret ${CA_SECRET}`, file);
    throw new IssuingError(error.reason, message, { cause: error.cause });
  }
}

/**
 * The Secret in a manifest, as the API server would have it; undefined when the text is no
 * manifest.
 */
function secretIn(text: string): unknown {
  for (const document of parseAllDocuments(text)) {
    if ("errors" in document && document.errors.length > 0) return undefined;
    const { success, output } = v.safeParse(ManifestSchema, document.toJS());
    if (!success) continue;
    const { type, data, stringData } = output;
    const encoded = Object.entries(stringData ?? {}).map(([key, value]) => [key, encode(value)]);
    return { type, data: { ...data, ...Object.fromEntries(encoded) } };
  }
  return undefined;
}

function secretOf(certificate: string, key: string): unknown {
  const data = { "tls.crt": encode(certificate), "tls.key": encode(key) };
  return { type: "kubernetes.io/tls", data };
}

function encode(text: string): string {
  return new TextEncoder().encode(text).toBase64();
}

const ManifestSchema = v.object({
  kind: v.literal("Secret"),
  type: v.optional(v.string()),
  data: v.optional(v.record(v.string(), v.string())),
  stringData: v.optional(v.record(v.string(), v.string())),
});
