import * as v from "valibot";
import { errorText } from "../error_text.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError } from "../kubernetes/errors.ts";
import type { V1Lease, Wire } from "../kubernetes/models.ts";
import { logger } from "../log.ts";
import { jittered, pause } from "../waiting.ts";

const log = logger("signer");

/** Who leads by a coordination.k8s.io/v1 Lease, and how fast that changes. */
export interface LeaseOptions {
  readonly api: ApiRequests;
  readonly namespace: string;
  /** The Lease's name. */
  readonly name: string;
  /** This candidate's; no other may have the same. */
  readonly identity: string;
  readonly times?: LeaseTimes;
  /** Called each time this candidate becomes the leader. */
  readonly onLead?: () => void;
}

/**
 * LeaseTimes are in milliseconds; `renewDeadline` must be shorter than `duration` by more than a
 * request may take.
 */
export interface LeaseTimes {
  /** How long others wait before they take an unrenewed lease. */
  readonly duration: number;
  /** How long after its last renewal the leader goes on acting. */
  readonly renewDeadline: number;
  readonly retry: number;
}

/** As client-go's leader election has them. */
export const LEASE_TIMES: LeaseTimes = { duration: 15_000, renewDeadline: 10_000, retry: 2_000 };

/**
 * A candidacy for the Lease, which lasts until it is closed, by client-go's rules: a lease is free
 * when its holder has let it go or has not renewed it for its duration, which is measured from when
 * *this* process saw it change (clocks differ), and every write is guarded by the resourceVersion.
 * A leader that cannot renew stops acting at the renew deadline, counted from the beginning of its
 * last successful renewal, before anybody may take the lease.
 *
 *     standing by ─► leading (until #heldUntil, which each renewal moves on) ─► standing by
 */
export class Candidacy {
  readonly #options: LeaseOptions;
  readonly #times: LeaseTimes;
  readonly #stop = new AbortController();
  readonly #seen: Seen = { version: "", at: 0 };
  /** By `performance.now`. */
  #heldUntil = -Infinity;
  /** What the log and `onLead` were told; `#heldUntil` decides. */
  #isKnownToLead = false;
  readonly #done: Promise<void>;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#times = options.times ?? LEASE_TIMES;
    this.#done = this.#run();
  }

  /** For how many milliseconds this one may still act as the leader; 0 when it may not. */
  remaining(): number {
    if (this.#stop.signal.aborted) return 0;
    return Math.max(0, this.#heldUntil - performance.now());
  }

  /** Gives the lease back, so that another can take it at once. */
  async close(): Promise<void> {
    const isHeld = this.remaining() > 0;
    this.#stop.abort();
    await this.#done;
    if (isHeld) await release(this.#options, this.#times).catch(() => {}); // it will run out
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#round();
      await pause(jittered(1.1 * this.#times.retry), this.#stop.signal).catch(() => {}); // closed
    }
  }

  async #round(): Promise<void> {
    const { identity, name: lease } = this.#options;
    const began = performance.now();
    try {
      const isOurs = await takeOrRenew(this.#options, this.#times, this.#seen);
      // It ran out unnoticed in a process that stood still, or before a slow renewal was answered:
      // what was not done meanwhile is begun by `onLead`.
      if (this.remaining() === 0) this.#isKnownToLead = false;
      this.#heldUntil = isOurs ? began + this.#times.renewDeadline : -Infinity;
    } catch (error) {
      log.warn("the Lease {lease} could not be renewed: {error}", {
        lease,
        error: errorText(error),
      });
    }
    const leads = this.remaining() > 0;
    if (leads === this.#isKnownToLead) return;
    this.#isKnownToLead = leads;
    log.info(leads ? "{identity} leads" : "{identity} no longer leads", { identity, lease });
    if (leads) this.#options.onLead?.();
  }
}

/** The last change of another's lease that was seen here, by this process's own clock. */
interface Seen {
  version: string;
  at: number;
}

/** Whether the lease is ours now. */
async function takeOrRenew(options: LeaseOptions, times: LeaseTimes, seen: Seen): Promise<boolean> {
  const { api, namespace, name, identity } = options;
  const timeoutMs = times.renewDeadline;
  const now = microTime();
  const lease = await readLease(options, timeoutMs);
  if (lease === undefined) {
    const spec = ownSpec(identity, times, now, now, 0);
    return await won(api.request("POST", collection(namespace), {
      timeoutMs,
      body: {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: { name, namespace },
        spec,
      } satisfies Wire<V1Lease>,
    }));
  }
  const { metadata, spec = {} } = lease;
  const holder = spec.holderIdentity ?? "";
  if (metadata.resourceVersion !== seen.version) {
    seen.version = metadata.resourceVersion;
    seen.at = performance.now();
  }
  const ours = holder === identity;
  const duration = (spec.leaseDurationSeconds ?? times.duration / 1000) * 1000;
  if (!ours && holder !== "" && performance.now() < seen.at + duration) return false;
  const transitions = (spec.leaseTransitions ?? 0) + (ours ? 0 : 1);
  const acquired = ours ? spec.acquireTime ?? now : now;
  return await won(api.request("PUT", `${collection(namespace)}/${name}`, {
    timeoutMs,
    body: {
      ...lease,
      spec: { ...spec, ...ownSpec(identity, times, acquired, now, transitions) },
    },
  }));
}

/** False when another candidate's write came first. */
async function won(write: Promise<unknown>): Promise<boolean> {
  try {
    await write;
    return true;
  } catch (error) {
    if (error instanceof ApiError && error.status === 409) return false;
    throw error;
  }
}

async function release(options: LeaseOptions, times: LeaseTimes): Promise<void> {
  const timeoutMs = Math.min(2_000, times.renewDeadline);
  const lease = await readLease(options, timeoutMs);
  if (lease?.spec?.holderIdentity !== options.identity) return;
  const spec = {
    ...lease.spec,
    holderIdentity: "",
    leaseDurationSeconds: 1,
    renewTime: microTime(),
  };
  await options.api.request("PUT", `${collection(options.namespace)}/${options.name}`, {
    timeoutMs,
    body: { ...lease, spec },
  });
}

async function readLease({ api, namespace, name }: LeaseOptions, timeoutMs: number) {
  try {
    const path = `${collection(namespace)}/${name}`;
    return v.parse(LeaseSchema, await api.request("GET", path, { timeoutMs }));
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  }
}

function ownSpec(
  holderIdentity: string,
  times: LeaseTimes,
  acquireTime: string,
  renewTime: string,
  leaseTransitions: number,
) {
  const leaseDurationSeconds = Math.ceil(times.duration / 1000);
  return { holderIdentity, leaseDurationSeconds, acquireTime, renewTime, leaseTransitions };
}

function collection(namespace: string): string {
  return `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
}

/** meta/v1 MicroTime: RFC 3339 with six digits. */
function microTime(): string {
  return new Date().toISOString().replace("Z", "000Z");
}

const LeaseSchema = v.looseObject({
  metadata: v.looseObject({ resourceVersion: v.string() }),
  spec: v.optional(v.looseObject({
    holderIdentity: v.nullish(v.string()),
    leaseDurationSeconds: v.nullish(v.number()),
    acquireTime: v.nullish(v.string()),
    leaseTransitions: v.nullish(v.number()),
  })),
});
