import { errorText } from "../error_text.ts";
import type { ApiClient } from "../kubernetes/api.ts";
import { quoted } from "../names.ts";
import { type Issuer, IssuingError, type PodIdentity } from "./issuer.ts";
import type { V1CertificateSigningRequest, Wire } from "../kubernetes/models.ts";
import { ApiError, isOutage } from "../kubernetes/errors.ts";
import { decodePem, encodePem } from "./pem.ts";
import { RequestOutcomes } from "./request_outcomes.ts";
import {
  NODE_LABEL,
  POD_ADDRESSES_ANNOTATION,
  POD_NAME_ANNOTATION,
  POD_NAMESPACE_ANNOTATION,
  POD_UID_ANNOTATION,
  REQUESTS_PATH,
  USAGES,
} from "./signing_names.ts";
import { FollowedBundle } from "./trust_bundle.ts";
import { verifyIssued } from "./verify_issued.ts";

export interface CertificateRequestIssuerOptions {
  readonly api: ApiClient;
  /** The agent's. */
  readonly nodeName: string;
  /** Where the trust bundle is. */
  readonly namespace: string;
  readonly signerName: string;
  readonly trustDomain: string;
  /** The lifetime to ask for; the signer may give less. */
  readonly ttlSeconds: number;
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
 * The agent's issuer in a cluster: files a CertificateSigningRequest for the pod, waits for what
 * the signer makes of it, and checks that against what peers will ask of it. Requests stay where
 * they are: the API server collects them, and the agent needs no right to delete.
 */
export function openCertificateRequestIssuer(
  options: CertificateRequestIssuerOptions,
): CertificateRequestIssuer {
  const deadline = options.deadlineMilliseconds ?? DEADLINE_MILLISECONDS;
  const bundle = new FollowedBundle(options);
  const outcomes = new RequestOutcomes(options.api, options.nodeName, options.signerName);
  const closed = new AbortController();
  return {
    async issue(pod, request, signal) {
      const late = AbortSignal.timeout(deadline);
      const signals = AbortSignal.any([
        late,
        closed.signal,
        ...signal === undefined ? [] : [signal],
      ]);
      try {
        const chain = await requestCertificate(options, outcomes, pod, request.csr, signals);
        const { trustDomain } = options;
        const { publicKey } = request;
        return await bundle.retried(
          (roots) => verifyIssued(chain, { pod, publicKey, trustDomain, roots }),
          signals,
        );
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof IssuingError) throw error;
        const message = `Cannot issue for ${pod.namespace}/${pod.name}: ${
          late.aborted ? `no certificate after ${deadline / 1000} s` : errorText(error)
        }`;
        throw new IssuingError("unavailable", message, { cause: error });
      }
    },
    trustBundle: () =>
      bundle.roots(AbortSignal.any([AbortSignal.timeout(deadline), closed.signal])),
    trustProblem: () => bundle.problem(),
    async close() {
      closed.abort();
      await Promise.all([bundle.close(), outcomes.close()]);
    },
  };
}

/** Files the request and waits for its end: the chain that was issued. */
async function requestCertificate(
  { api, nodeName, signerName, ttlSeconds }: CertificateRequestIssuerOptions,
  outcomes: RequestOutcomes,
  pod: PodIdentity,
  csr: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>[]> {
  // The name is made here, so that a request whose answer was lost is not filed twice.
  const name = `kube-gateway-${crypto.randomUUID()}`;
  const body = {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: {
      name,
      labels: { [NODE_LABEL]: nodeName },
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
  } satisfies Wire<V1CertificateSigningRequest>;
  const failed = new AbortController(); // of what waits for the outcome, when filing fails
  const outcome = outcomes.of(name, AbortSignal.any([signal, failed.signal]));
  outcome.catch(() => {}); // awaited below, or nobody needs it
  try {
    await persistently(
      () => api.request("POST", REQUESTS_PATH, { body, signal, timeoutMs: 5_000 }),
      signal,
    );
  } catch (error) {
    const isFiled = error instanceof ApiError && error.status === 409;
    if (!isFiled) {
      failed.abort();
      throw error;
    }
  }
  const { certificate, refusal } = await outcome;
  if (certificate !== undefined) return chainOf(certificate);
  const isDenied = refusal?.type === "Denied";
  throw new IssuingError(
    isDenied ? "denied" : "failed",
    `The signer ${isDenied ? "denied" : "could not sign"} ${name}: ${
      quoted(`${refusal?.reason}: ${refusal?.message}`, 512).slice(1, -1)
    }`,
  );
}

/**
 * persistently repeats an attempt that fails because the API server is away, until the signal; the
 * client sets the pace.
 */
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

/**
 * The deadline is long because each try files a request that stays for hours: when the signer is
 * away, a few that wait long are better than many.
 */
const DEADLINE_MILLISECONDS = 300_000;

/**
 * MIN_EXPIRATION_SECONDS is the least that the API server takes (certificates.k8s.io/v1); a shorter
 * life is the signer's to know.
 */
const MIN_EXPIRATION_SECONDS = 600;

/** Leaf and intermediates, base64 of PEM: a few kilobytes. */
const MAX_CHAIN_CHARACTERS = 131_072;
