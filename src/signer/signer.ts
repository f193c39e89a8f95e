/**
 * The cluster's certificate authority: follows the requests for its signer name and takes each to its end.
 * Of several signers the one that holds the Lease acts; the others are ready to.
 */
import "reflect-metadata"; // @peculiar/x509 needs it loaded first
import * as x509 from "@peculiar/x509";
import * as v from "valibot";
import { errorText } from "../error_text.ts";
import { pause } from "../kubernetes/pace.ts";
import { CA_SECRET, REQUESTS_PATH } from "../identity/signing_names.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { watchList } from "../kubernetes/watch.ts";
import { logger } from "../log.ts";
import { BundleStore } from "./bundle_store.ts";
import { openCa, readCa } from "./ca.ts";
import { readCsr } from "./facts.ts";
import { RequestHandler } from "./handler.ts";
import { campaign, type LeaseTimes } from "./lease.ts";
import { WorkQueue } from "./queue.ts";
import { Rotation } from "./rotation.ts";

const log = logger("signer");

export interface SignerOptions {
  readonly api: KubernetesApi;
  /** The gateway's: CA, bundle and Lease are there, and the agents' service account. */
  readonly namespace: string;
  readonly signerName: string;
  readonly agentServiceAccount: string;
  readonly trustDomain: string;
  /** The longest, and the usual, lifetime of a certificate. */
  readonly certificateSeconds: number;
  /** This replica's name; no other may have it. */
  readonly identity: string;
  /** How long a new root is in the bundle before it signs. */
  readonly propagationMilliseconds?: number;
  readonly leaseTimes?: LeaseTimes;
  /** Between two looks at the bundle. */
  readonly reviewMilliseconds?: number;
}

/** What probes ask. */
export class SignerHealth {
  leading = false;
  /** Why it could not do its work now if it led; undefined when it could. */
  problem: string | undefined = "it has not read the CA and the requests yet";
}

/** Runs until `stop` resolves; gives the Lease back. */
export async function runSigner(
  options: SignerOptions,
  stop: Promise<void>,
  health: SignerHealth = new SignerHealth(),
): Promise<void> {
  const { api, namespace, trustDomain } = options;
  const rotation = new Rotation(new BundleStore(api, namespace), {
    propagationMilliseconds: options.propagationMilliseconds ?? 60_000,
    ttlSeconds: options.certificateSeconds,
  });
  const stopped = new AbortController();
  stop = stop.finally(() => stopped.abort());
  if (!await readFirstCa(options, rotation, health, stopped.signal)) return;

  // The watches may speak before the candidacy is there, and the candidacy before the requests are.
  let pending = new Set<string>();
  const candidacy = campaign({
    api,
    namespace,
    name: LEASE,
    identity: options.identity,
    times: options.leaseTimes,
    onLead: () => {
      void review();
      for (const name of pending) queue.add(name);
    },
  });
  let seen: ReadonlyMap<string, OpenRequest> = new Map();
  const handler = new RequestHandler({
    x509,
    seen: (name) => seen.get(name)?.object,
    api,
    trustDomain,
    rotation,
    candidacy,
    settings: {
      signerName: options.signerName,
      requester: `system:serviceaccount:${namespace}:${options.agentServiceAccount}`,
      ttlSeconds: options.certificateSeconds,
    },
  });
  const queue = new WorkQueue({
    concurrency: CONCURRENCY,
    backoff: { first: 100, most: 5_000 },
    work: (name) => handler.handle(name),
  });
  const requests = watchList(api, {
    name: "signing requests",
    path: REQUESTS_PATH,
    query: { fieldSelector: `spec.signerName=${options.signerName}` },
    read: readRequest,
    onChange: (requests) => {
      seen = requests;
      const open = new Set(current([...requests.values()]));
      for (const name of pending) {
        if (open.has(name)) continue;
        queue.forget(name);
        handler.forget(name);
      }
      const added = [...open].filter((name) => !pending.has(name));
      pending = open;
      if (candidacy.remaining() > 0) { for (const name of added) queue.add(name); }
    },
  });
  const secrets = watchList(api, {
    name: "CA",
    path: `/api/v1/namespaces/${namespace}/secrets`,
    query: { fieldSelector: `metadata.name=${CA_SECRET}` },
    read: (secret) => secret,
    onChange: (secrets) => void follow(secrets.values().next().value),
  });
  const follow = async (secret: unknown) => {
    if (secret === undefined) {
      return log.error("the CA's Secret is gone: signing goes on with its CA");
    }
    try {
      rotation.offer(await readCa(secret, trustDomain));
      health.problem = undefined;
      await review();
    } catch (error) {
      health.problem = errorText(error);
      log.error("the CA's Secret is not used: {error}", { error: errorText(error) });
    }
  };
  const review = async () => {
    const remaining = candidacy.remaining();
    health.leading = remaining > 0;
    if (remaining === 0) return;
    await rotation.review(Math.min(remaining, 5_000)).catch((error) =>
      log.error("the trust bundle could not be brought up to date: {error}", {
        error: errorText(error),
      })
    );
  };
  const reviews = setInterval(review, options.reviewMilliseconds ?? 10_000);

  await stop;
  clearInterval(reviews);
  await Promise.all([requests.close(), secrets.close(), queue.close()]);
  await candidacy.close();
}

/** Retries until there is a CA; false when it is time to stop before that. */
async function readFirstCa(
  { api, namespace, trustDomain }: SignerOptions,
  rotation: Rotation,
  health: SignerHealth,
  signal: AbortSignal,
): Promise<boolean> {
  for (let delay = 500; !signal.aborted; delay = Math.min(delay * 2, 10_000)) {
    try {
      rotation.offer(await openCa(api, namespace, trustDomain));
      health.problem = undefined;
      return true;
    } catch (error) {
      health.problem = errorText(error);
      log.error("the CA cannot be read: {error}", { error: errorText(error) });
    }
    await pause(delay, signal).catch(() => {});
  }
  return false;
}

/** What is kept of a request that is not at its end. */
interface OpenRequest {
  readonly name: string;
  readonly createdAt: Date;
  readonly object: unknown;
}

/** Bad ones cannot come from an API server: passed over, like those that are at their end. */
function readRequest(value: unknown): OpenRequest | undefined {
  try {
    const { name, createdAt, state } = readCsr(value);
    const isOpen = state === "pending" || state === "approved";
    return isOpen ? { name, createdAt, object: value } : undefined;
  } catch (error) {
    if (!(error instanceof v.ValiError)) throw error;
    return undefined;
  }
}

/** Those that somebody still waits for, going by the API server's own clock; the others it will collect. */
function current(requests: readonly OpenRequest[]): string[] {
  const newest = Math.max(...requests.map(({ createdAt }) => createdAt.getTime()));
  return requests.filter(({ createdAt }) => createdAt.getTime() >= newest - ABANDONED_MILLISECONDS)
    .map(({ name }) => name);
}

/** The Lease by which signers agree on a leader. */
export const LEASE = "kube-gateway-signer";

/** Requests that are worked on at once; most of that time is waiting for the API server. */
const CONCURRENCY = 16;

/** Agents wait for half a minute. */
const ABANDONED_MILLISECONDS = 10 * 60_000;
