/**
 * One local pod's way into the gateway and out of it.
 *
 *     waiting ─► enrolling ─► active ─► leaving ─► gone
 *        ▲            │
 *        └── retry ───┘   with the reason, shown in status
 *
 * Entering, in this order: programs attached (the pod is held: peers are refused), namespace found and
 * proved, listeners open, certificate issued, workers serving, and only then the entry in the `pods` map
 * that lets connections through. Leaving is the reverse.
 */
import { parseAddress } from "../addresses.ts";
import { newKeyAndRequest } from "../identity/csr.ts";
import type { Issuer } from "../identity/issuer.ts";
import { cookieOf, encodeCookie, encodePod } from "../kernel/maps.ts";
import type { Redirector } from "../kernel/redirector.ts";
import { logger } from "../log.ts";
import { isIpv4 } from "../native/socket_address.ts";
import type { RelayWorkers } from "../relay/workers.ts";
import { processesOf } from "./cgroup.ts";
import type { WantedEnrolment } from "./desired.ts";
import { openListeners } from "./listeners.ts";
import { findNamespace, type PodNamespace, stillInUse } from "./namespace.ts";

const log = logger("enrolment");

/** Peers learn of a withdrawal within this time; until then the pod still answers their tunnels. */
const WITHDRAWAL_MILLISECONDS = 500;

/** How long streams may go on after the annotation was removed. */
const DRAIN_MILLISECONDS = 30_000;

/** A failed renewal is tried again after this, doubled up to the maximum. */
const RETRY_MILLISECONDS = { first: 1_000, most: 300_000 };

export type EnrolmentState = "waiting" | "enrolling" | "active" | "leaving" | "gone";

/** What all enrolments of a node share. */
export interface EnrolmentServices {
  readonly redirector: Redirector;
  readonly workers: RelayWorkers;
  readonly issuer: Issuer;
  readonly procRoot: string;
  /** The set of active enrolments has changed: publish it. Resolves when the registry has it. */
  readonly publish: () => Promise<void>;
}

export interface CertificateStatus {
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export class Enrolment {
  state: EnrolmentState = "waiting";
  /** Why it is not active. */
  reason: string | undefined = "its cgroup has not been found yet";
  certificate: CertificateStatus | undefined;
  #cgroup: string | undefined;
  #namespace: PodNamespace | undefined;
  #cookie: bigint | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly wanted: WantedEnrolment, readonly services: EnrolmentServices) {}

  get name(): string {
    return `${this.wanted.namespace}/${this.wanted.name}`;
  }

  /** Tries to enrol; when something is missing yet, goes back to waiting with the reason. */
  async enrol(cgroup: string | undefined): Promise<void> {
    if (this.state !== "waiting") return;
    this.state = "enrolling";
    try {
      await this.#enter(cgroup);
    } catch (error) {
      await this.#withdrawWorkers(0);
      this.state = "waiting";
      this.#setReason(error instanceof Error ? error.message : String(error));
      return;
    }
    this.state = "active";
    this.reason = undefined;
    log.info("enrolled {pod}", { pod: this.name, identity: this.wanted.identity });
    await this.services.publish();
  }

  /**
   * Whether processes of the pod still stand in the namespace that was enrolled: not when the pod has gone or
   * got a new sandbox. Throws when that cannot be told.
   */
  isCurrent(): boolean {
    if (this.#cgroup === undefined || this.#namespace === undefined) return true;
    return stillInUse(
      this.#namespace.identity,
      processesOf(this.#cgroup),
      this.services.procRoot,
    );
  }

  /**
   * Withdraws the pod and removes everything of it. `gracefully`: peers are given time to hear of it and
   * streams to end; otherwise all is cut at once (the pod or the agent goes).
   */
  async leave(gracefully: boolean): Promise<void> {
    const wasActive = this.state === "active";
    this.state = "leaving";
    clearTimeout(this.#renewal);
    if (wasActive) await this.services.publish();
    this.services.redirector.detach(this.wanted.uid);
    if (this.#cookie !== undefined) {
      this.services.redirector.pods.delete(encodeCookie(this.#cookie));
      if (wasActive && gracefully) await delay(WITHDRAWAL_MILLISECONDS);
    }
    await this.#withdrawWorkers(gracefully ? DRAIN_MILLISECONDS : 0);
    this.state = "gone";
    log.info("un-enrolled {pod}", { pod: this.name });
  }

  async #enter(cgroup: string | undefined): Promise<void> {
    const { wanted, services } = this;
    if (cgroup === undefined) throw new Error("its cgroup has not been found yet");
    if (this.#cgroup !== cgroup) services.redirector.attach(wanted.uid, cgroup);
    this.#cgroup = cgroup;
    if (wanted.addresses.length === 0) throw new Error("it has no IP address yet");

    const found = findNamespace(processesOf(cgroup), wanted.addresses, services.procRoot);
    if ("missing" in found) throw new Error(found.missing);
    this.#namespace = found;
    const credentials = await this.#obtainCredentials();
    const listeners = openListeners(found.namespace, wanted.addresses, services.workers.count);
    this.#cookie = listeners.cookie;
    await services.workers.enrol({
      pod: {
        uid: wanted.uid,
        name: this.name,
        addresses: wanted.addresses,
        cookie: listeners.cookie,
        namespace: found.namespace.descriptor,
        outboundPort: listeners.outboundPort,
      },
      sockets: listeners.sets.map(({ outbound, inbound }) => ({
        outbound: outbound.map(({ descriptor }) => descriptor),
        inbound: inbound.map(({ descriptor }) => descriptor),
      })),
    }, credentials);
    this.#letThrough(listeners.cookie, listeners.outboundPort);
  }

  #letThrough(cookie: bigint, outboundPort: number): void {
    const addresses = this.wanted.addresses.map(parseAddress);
    this.services.redirector.pods.set(
      encodeCookie(cookie),
      encodePod({
        ipv4: addresses.find(isIpv4),
        ipv6: addresses.find((address) => !isIpv4(address)),
        outboundPort,
      }),
    );
  }

  async #obtainCredentials() {
    const { issuer } = this.services;
    const { privateKey, csr } = await newKeyAndRequest();
    const issued = await issuer.issue(this.wanted, csr);
    const roots = await issuer.trustBundle();
    this.certificate = issued;
    this.#renewAt(halfLife(issued));
    return { chain: issued.chain, privateKey, roots };
  }

  #renewAt(milliseconds: number, retry = RETRY_MILLISECONDS.first): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(async () => {
      try {
        const credentials = await this.#obtainCredentials();
        this.services.workers.renew(this.wanted.uid, credentials);
        log.info("renewed the certificate of {pod}", { pod: this.name });
      } catch (error) {
        log.error("renewing the certificate of {pod} failed: {reason}", {
          pod: this.name,
          reason: String(error),
        });
        this.#renewAt(jittered(retry), Math.min(2 * retry, RETRY_MILLISECONDS.most));
      }
    }, milliseconds);
  }

  #setReason(reason: string): void {
    if (reason !== this.reason) {
      log.info("{pod} waits: {reason}", { pod: this.name, reason });
    }
    this.reason = reason;
  }

  /** Ends what {@link #enter} began, from the workers on. */
  async #withdrawWorkers(drainMilliseconds: number): Promise<void> {
    clearTimeout(this.#renewal);
    if (this.#cookie !== undefined) {
      await this.services.workers.withdraw(this.wanted.uid, drainMilliseconds);
      this.#forgetFlows(this.#cookie);
      this.#cookie = undefined;
    }
    // Lent to the workers until now.
    this.#namespace?.namespace[Symbol.dispose]();
    this.#namespace = undefined;
  }

  /** Notes of connections that nobody accepted: without listeners nobody will. */
  #forgetFlows(cookie: bigint): void {
    const { flows } = this.services.redirector;
    for (const key of flows.keys()) if (cookieOf(key) === cookie) flows.delete(key);
  }
}

/** Half of the certificate's life from now, give or take a tenth, so that a node's pods do not renew at once. */
function halfLife({ notAfter }: CertificateStatus): number {
  // setTimeout takes 31 bits of milliseconds: 24 days. Renewing earlier than needed does no harm.
  return Math.min(jittered((notAfter.getTime() - Date.now()) / 2), 2 ** 31 - 1);
}

function jittered(milliseconds: number): number {
  return milliseconds * (0.9 + 0.2 * Math.random());
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
