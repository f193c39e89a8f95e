import * as v from "valibot";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { quoted } from "../names.ts";
import { type Issuer, IssuingError, type PodIdentity } from "./issuer.ts";
import { isOutage } from "../kubernetes/errors.ts";
import { pause } from "../kubernetes/pace.ts";
import { decodePem, encodePem } from "./pem.ts";
import {
  POD_ADDRESSES_ANNOTATION,
  POD_NAME_ANNOTATION,
  POD_NAMESPACE_ANNOTATION,
  POD_UID_ANNOTATION,
  USAGES,
} from "./signing_names.ts";
import { FollowedBundle } from "./trust_bundle.ts";
import { verifyIssued } from "./verify_issued.ts";
import type { LeafFacts } from "./verify.ts";

export interface CertificateRequestIssuerOptions {
  readonly api: KubernetesApi;
  /** Where the trust bundle is. */
  readonly namespace: string;
  readonly signerName: string;
  readonly trustDomain: string;
  /** The lifetime to ask for; the signer may give less. */
  readonly ttlSeconds: number;
  /** Reads a leaf's DER as peers do: `Certificate` in native/certificate.ts. */
  readonly leafFacts: (der: Uint8Array<ArrayBuffer>) => LeafFacts;
  /** Called with the roots, DER, when they have changed, and the first time. */
  readonly onTrustBundle?: (roots: Uint8Array[]) => void;
  /** How long a certificate or the bundle is waited for. */
  readonly deadlineMilliseconds?: number;
}

/** An issuer that holds a watch. */
export interface CertificateRequestIssuer extends Issuer {
  close(): Promise<void>;
}

/**
 * The agent's issuer in a cluster: files a CertificateSigningRequest for the pod, waits for what the signer
 * makes of it, and checks that against what peers will ask of it. Requests stay where they are: the API
 * server collects them, and the agent needs no right to delete.
 */
export function openCertificateRequestIssuer(
  options: CertificateRequestIssuerOptions,
): CertificateRequestIssuer {
  const deadline = options.deadlineMilliseconds ?? DEADLINE_MILLISECONDS;
  const bundle = new FollowedBundle(options);
  const closed = new AbortController();
  return {
    async issue(pod, csr, signal) {
      const late = AbortSignal.timeout(deadline);
      const signals = AbortSignal.any([
        late,
        closed.signal,
        ...signal === undefined ? [] : [signal],
      ]);
      try {
        const chain = await requestCertificate(options, pod, csr, signals);
        const { trustDomain, leafFacts } = options;
        return await bundle.retried(
          (roots) => verifyIssued(chain, { pod, csr, trustDomain, roots, leafFacts }),
          signals,
        );
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof IssuingError) throw error;
        const message = `Cannot issue for ${pod.namespace}/${pod.name}: ${
          late.aborted ? `no certificate after ${deadline / 1000} s` : textOf(error)
        }`;
        throw new IssuingError("unavailable", message, { cause: error });
      }
    },
    trustBundle: () =>
      bundle.roots(AbortSignal.any([AbortSignal.timeout(deadline), closed.signal])),
    async close() {
      closed.abort();
      await bundle.close();
    },
  };
}

/** Files the request and waits for its end: the chain that was issued. */
async function requestCertificate(
  { api, signerName, ttlSeconds }: CertificateRequestIssuerOptions,
  pod: PodIdentity,
  csr: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>[]> {
  const body = {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: {
      generateName: "kube-gateway-",
      annotations: {
        [POD_NAMESPACE_ANNOTATION]: pod.namespace,
        [POD_NAME_ANNOTATION]: pod.name,
        [POD_UID_ANNOTATION]: pod.uid,
        [POD_ADDRESSES_ANNOTATION]: pod.addresses.join(","),
      },
    },
    spec: {
      request: new TextEncoder().encode(encodePem([csr], "CERTIFICATE REQUEST")).toBase64(),
      signerName,
      usages: USAGES,
      ...(ttlSeconds < MIN_EXPIRATION_SECONDS ? {} : { expirationSeconds: ttlSeconds }),
    },
  };
  const ask = (method: string, path: string, body?: unknown) =>
    persistently(() => api.request(method, path, { body, signal, timeoutMs: 5_000 }), signal);
  let request = v.parse(RequestSchema, await ask("POST", COLLECTION, body));
  const path = `${COLLECTION}/${request.metadata.name}`;
  for (let delay = 20;; delay = Math.min(delay * 1.5, 1_000)) {
    const { certificate, conditions } = request.status ?? {};
    const refusal = conditions?.find(({ type }) => type === "Denied" || type === "Failed");
    if (refusal !== undefined) {
      const { type, reason, message } = refusal;
      throw new IssuingError(
        type === "Denied" ? "denied" : "failed",
        `The signer ${type === "Denied" ? "denied" : "could not sign"} ${request.metadata.name}: ${
          quoted(`${reason ?? ""}: ${message ?? ""}`, 512).slice(1, -1)
        }`,
      );
    }
    if (certificate) return chainOf(certificate);
    await pause(delay * (0.9 + 0.2 * Math.random()), signal);
    request = v.parse(RequestSchema, await ask("GET", path));
  }
}

/** What fails because the API server is away is tried again until the signal; the client sets the pace. */
async function persistently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      signal.throwIfAborted();
      if (!isOutage(error)) throw error;
    }
  }
}

function chainOf(base64: string): Uint8Array<ArrayBuffer>[] {
  try {
    if (base64.length > MAX_CHAIN_CHARACTERS) throw new TypeError(`${base64.length} characters`);
    return decodePem(new TextDecoder().decode(Uint8Array.fromBase64(base64)), "CERTIFICATE", 8);
  } catch (cause) {
    throw new IssuingError("bad_certificate", "Cannot read the issued certificate", { cause });
  }
}

function textOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, 500);
}

const RequestSchema = v.object({
  metadata: v.object({ name: v.string() }),
  status: v.optional(v.object({
    certificate: v.nullish(v.string()),
    conditions: v.nullish(v.array(v.object({
      type: v.string(),
      reason: v.nullish(v.string()),
      message: v.nullish(v.string()),
    }))),
  })),
});

const COLLECTION = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const DEADLINE_MILLISECONDS = 30_000;

/** The API server's own limit (certificates.k8s.io/v1); less is the signer's to know. */
const MIN_EXPIRATION_SECONDS = 600;

/** Leaf and intermediates, base64 of PEM: a few kilobytes. */
const MAX_CHAIN_CHARACTERS = 131_072;
