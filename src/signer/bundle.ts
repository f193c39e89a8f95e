/**
 * The trust bundle: the roots that all pods trust, and the signer's record of each, by which a root
 * is brought in before it signs and taken out after its last certificate:
 *
 *     new ─► in the bundle ─► propagated, signs ─► replaced ─► last certificate expired, out
 */
import { createHash, X509Certificate } from "node:crypto";
import * as v from "valibot";
import type { V1ConfigMap, Wire } from "../kubernetes/models.ts";
import { errorText } from "../error_text.ts";
import { encodePem } from "../identity/pem.ts";
import { readRoots } from "../identity/trust_bundle.ts";
import { ROOTS_ANNOTATION, TRUST_BUNDLE, TRUST_BUNDLE_KEY } from "../identity/signing_names.ts";

/**
 * One root of the bundle. Without a record it was put there by a person, who will take it out too.
 */
export interface BundleRoot {
  readonly der: Uint8Array;
  /** Since when pods may know it. */
  readonly addedAt?: Date;
  /** No certificate that it leads to lives longer than this; undefined when it has none. */
  readonly neededUntil?: Date;
}

export interface BundleChange {
  /** The root of the CA that is in the Secret, DER. */
  readonly root: Uint8Array;
  readonly now: Date;
  /**
   * Until when certificates are about to be issued, by root: DER in lower-case hexadecimal's
   * SHA-256.
   */
  readonly issuedUntil?: ReadonlyMap<string, Date>;
}

/**
 * nextBundle returns the bundle as it should be now: with the Secret's root, and without roots that
 * no certificate needs any more. It returns the same array when nothing changes.
 */
export function nextBundle(
  current: readonly BundleRoot[],
  { root, now, issuedUntil = new Map() }: BundleChange,
): readonly BundleRoot[] {
  const wanted = fingerprint(root);
  const next = current
    .map((one) => withRecord(one, one.addedAt, issuedUntil.get(fingerprint(one.der))))
    .filter((one) => fingerprint(one.der) === wanted || isNeeded(one, now))
    .map((one) =>
      fingerprint(one.der) === wanted ? withRecord(one, one.addedAt ?? now, undefined) : one
    );
  if (!next.some(({ der }) => fingerprint(der) === wanted)) {
    // Without a bundle before, no pod has a certificate that another could fail to trust.
    const addedAt = current.length === 0 ? new Date(0) : now;
    const until = issuedUntil.get(wanted);
    next.push({ der: root, addedAt, ...(until === undefined ? {} : { neededUntil: until }) });
  }
  const same = next.length === current.length && next.every((one, i) => one === current[i]);
  return same ? current : next;
}

/** Whether all pods may be expected to trust `root`, so that it may sign. */
export function isPropagated(
  bundle: readonly BundleRoot[],
  root: Uint8Array,
  now: Date,
  propagationMilliseconds: number,
): boolean {
  const addedAt = recordOf(bundle, root)?.addedAt;
  return addedAt !== undefined && now.getTime() - addedAt.getTime() >= propagationMilliseconds;
}

/** The bundle's entry for a root. */
export function recordOf(
  bundle: readonly BundleRoot[],
  root: Uint8Array,
): BundleRoot | undefined {
  const wanted = fingerprint(root);
  return bundle.find(({ der }) => fingerprint(der) === wanted);
}

/** SHA-256 of a certificate's DER, lower-case hexadecimal. */
export function fingerprint(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}

/**
 * The bundle in a ConfigMap. A record that is damaged counts as none: its root stays.
 *
 * @throws {DamagedBundle} when its PEM is damaged or holds no certificates: nobody may guess what
 * was meant.
 */
export function readBundle(configMap: unknown): BundleRoot[] {
  const { metadata, data } = v.parse(BundleSchema, configMap);
  const records = recordsOf(metadata.annotations?.[ROOTS_ANNOTATION]);
  const seen = new Set<string>();
  return rootsOf(data?.[TRUST_BUNDLE_KEY] ?? "").flatMap((der) => {
    const id = fingerprint(der);
    if (seen.has(id)) return [];
    seen.add(id);
    const { addedAt, neededUntil } = records[id] ?? {};
    return [withRecord({ der }, dateOf(addedAt), dateOf(neededUntil))];
  });
}

/**
 * A trust bundle that cannot be read: it stands where a good one stood, and never replaces that.
 */
export class DamagedBundle extends Error {
  override readonly name = "DamagedBundle";
}

function rootsOf(pem: string): Uint8Array[] {
  try {
    return readRoots(pem);
  } catch (cause) {
    const message = `ConfigMap ${TRUST_BUNDLE} is damaged: ${errorText(cause)}`;
    throw new DamagedBundle(message, { cause });
  }
}

/** The ConfigMap for a bundle; `existing` keeps what others have written in it. */
export function bundleObject(
  bundle: readonly BundleRoot[],
  namespace: string,
  existing: unknown,
): Wire<V1ConfigMap> {
  const { metadata, data } = existing === undefined
    ? { metadata: {}, data: {} }
    : v.parse(BundleSchema, existing);
  const records = Object.fromEntries(
    bundle.filter(({ addedAt }) => addedAt !== undefined).map((
      { der, addedAt, neededUntil },
    ) => [fingerprint(der), { addedAt, neededUntil }]),
  );
  return {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: {
      ...metadata,
      name: TRUST_BUNDLE,
      namespace,
      annotations: { ...metadata.annotations, [ROOTS_ANNOTATION]: JSON.stringify(records) },
    },
    data: { ...data, [TRUST_BUNDLE_KEY]: encodePem(bundle.map(({ der }) => der), "CERTIFICATE") },
  };
}

/** `root` itself when it says that already. */
function withRecord(
  root: BundleRoot,
  addedAt: Date | undefined,
  neededUntil: Date | undefined,
): BundleRoot {
  const later = neededUntil !== undefined && !(root.neededUntil && root.neededUntil >= neededUntil);
  if (root.addedAt?.getTime() === addedAt?.getTime() && !later) return root;
  const until = later ? neededUntil : root.neededUntil;
  return {
    der: root.der,
    ...(addedAt === undefined ? {} : { addedAt }),
    ...(until === undefined ? {} : { neededUntil: until }),
  };
}

function isNeeded({ der, addedAt, neededUntil }: BundleRoot, now: Date): boolean {
  if (addedAt === undefined) return true;
  if (neededUntil === undefined || neededUntil < now) return false;
  return new Date(new X509Certificate(der).validTo) > now;
}

function recordsOf(text: string | undefined): Record<string, Record<string, unknown>> {
  try {
    const read = v.safeParse(RecordsSchema, JSON.parse(text ?? "{}"));
    return read.success ? read.output : {};
  } catch {
    return {};
  }
}

function dateOf(value: unknown): Date | undefined {
  const date = new Date(typeof value === "string" ? value : NaN);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

const BundleSchema = v.object({
  metadata: v.looseObject({ annotations: v.optional(v.record(v.string(), v.string())) }),
  data: v.optional(v.record(v.string(), v.string())),
});

const RecordsSchema = v.record(v.string(), v.record(v.string(), v.unknown()));
