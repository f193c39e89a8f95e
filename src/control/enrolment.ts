/**
 * One local pod's way into the gateway and out of it.
 *
 *     waiting ─► enrolling ─► active ─► leaving ─► gone
 *        ▲            │
 *        └── retry ───┘   with the reason, shown in status
 *
 * Entering, in this order: programs attached (the pod is held: peers are refused), namespace found and
 * proved, listeners open, the entry in the `pods` map that lets connections through to them, where they wait
 * for the certificate (5 s at most), workers serving. Leaving is the reverse.
 */
import { parseAddress } from "../addresses.ts";
import { newKeyAndRequest } from "../identity/csr.ts";
import { type Issuer, IssuingError } from "../identity/issuer.ts";
import { cookieOf, encodeCookie, encodePod } from "../kernel/maps.ts";
import type { Redirector } from "../kernel/redirector.ts";
import { logger } from "../log.ts";
import { isIpv4 } from "../native/socket_address.ts";
import type { RelayWorkers } from "../relay/workers.ts";
import { processesOf } from "./cgroup.ts";
import type { WantedEnrolment } from "./desired.ts";
import { closeListeners, openListeners, type PodListeners } from "./listeners.ts";
import { findNamespace, type PodNamespace, stillInUse } from "./namespace.ts";

const log = logger("enrolment");

/** Peers learn of a withdrawal within this time; until then the pod still answers their tunnels. */
const WITHDRAWAL_MILLISECONDS = 500;

/** How long connections may wait for the pod's certificate before they are refused again. */
const HOLD_MILLISECONDS = 5_000;

/** A pod that waits for longer than this is worth a line in the log. */
const PATIENCE_MILLISECONDS = 5_000;

/** How long streams may go on after the annotation was removed. */
const DRAIN_MILLISECONDS = 30_000;

/** A failed renewal is tried again after this, doubled up to the maximum or a tenth of what is left. */
const RETRY_MILLISECONDS = { first: 1_000, most: 300_000 };

/** A pod without a certificate is held: the signer is asked at least this often. */
const MOST_PATIENT_MILLISECONDS = 60_000;

export type EnrolmentState = "waiting" | "enrolling" | "active" | "leaving" | "gone";

/** What all enrolments of a node share. */
export interface EnrolmentServices {
  readonly redirector: Redirector;
  readonly workers: RelayWorkers;
  readonly issuer: Issuer;
  readonly procRoot: string;
  /** The set of active enrolments has changed: publish it. Resolves when the registry has it. */
  readonly publish: () => Promise<void>;
  /** An enrolment's state or reason has changed: somebody may want to be told. */
  readonly changed: () => void;
}

export interface CertificateStatus {
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export class Enrolment {
  #state: EnrolmentState = "waiting";
  #reason: string | undefined = "its cgroup has not been found yet";
  /** The pod's namespace was found at the last attempt, so what it waits for is ours to bring. */
  isPresent = false;
  certificate: CertificateStatus | undefined;
  /** Canonical text; empty until they are known from the pod's object or from its namespace. */
  addresses: readonly string[];
  readonly #created = performance.now();
  #logged: string | undefined;
  #cgroup: string | undefined;
  #namespace: PodNamespace | undefined;
  #listeners: PodListeners | undefined;
  /** Asked for once, also when waiting for it is given up and begun again. */
  #issuing: Promise<Credentials> | undefined;
  /** A signer that has refused is not asked again before this. */
  #askAgain = { at: -Infinity, after: RETRY_MILLISECONDS.first };
  /** The workers have something of the pod. */
  #served = false;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  /** What the workers show and trust. */
  #shown: Credentials | undefined;

  constructor(readonly wanted: WantedEnrolment, readonly services: EnrolmentServices) {
    this.addresses = wanted.addresses;
  }

  get state(): EnrolmentState {
    return this.#state;
  }

  /** Why it is not active. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Whether it is young enough for its missing parts to appear at any moment. */
  get isNew(): boolean {
    return performance.now() - this.#created < PATIENCE_MILLISECONDS;
  }

  /** Whether this is still what is wanted: an object that names no addresses yet says nothing against ours. */
  satisfies(wanted: WantedEnrolment): boolean {
    return wanted.identity === this.wanted.identity &&
      (wanted.addresses.length === 0 || this.addresses.length === 0 ||
        sameMembers(wanted.addresses, this.addresses));
  }

  get name(): string {
    return `${this.wanted.namespace}/${this.wanted.name}`;
  }

  /** Tries to enrol; when something is missing yet, goes back to waiting with the reason. */
  async enrol(cgroup: string | undefined): Promise<void> {
    if (this.state !== "waiting" || performance.now() < this.#askAgain.at) return;
    this.#become("enrolling", this.#reason);
    try {
      await this.#enter(cgroup);
    } catch (error) {
      await this.#withdraw(0);
      const reason = error instanceof Error ? error.message : String(error);
      this.#become("waiting", reason);
      return this.#complain(reason);
    }
    this.#become("active", undefined);
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

  /** From the next handshake on these are the roots that peers are verified by. */
  trust(roots: Uint8Array[]): void {
    if (this.#shown !== undefined && this.#state === "active") {
      this.#show({ ...this.#shown, roots });
    }
  }

  /**
   * Withdraws the pod and removes everything of it. `gracefully`: peers are given time to hear of it and
   * streams to end; otherwise all is cut at once (the pod or the agent goes).
   */
  async leave(gracefully: boolean): Promise<void> {
    const wasActive = this.state === "active";
    this.#become("leaving", undefined);
    clearTimeout(this.#renewal);
    if (wasActive) await this.services.publish();
    this.services.redirector.detach(this.wanted.uid);
    if (wasActive && gracefully) await delay(WITHDRAWAL_MILLISECONDS);
    await this.#withdraw(gracefully ? DRAIN_MILLISECONDS : 0);
    this.#become("gone", undefined);
    log.info("un-enrolled {pod}", { pod: this.name });
  }

  /**
   * Makes room for another enrolment of the same pod, whose addresses or namespace have changed. The programs
   * stay: until that is active, the pod is held and sends nothing in clear.
   */
  async giveWay(): Promise<void> {
    const wasActive = this.state === "active";
    this.#become("leaving", undefined);
    await this.#withdraw(0);
    if (wasActive) await this.services.publish();
    this.#become("gone", undefined);
    log.info("enrolling {pod} anew", { pod: this.name });
  }

  #become(state: EnrolmentState, reason: string | undefined): void {
    const isNews = state !== "enrolling" && (state !== this.#state || reason !== this.#reason);
    this.#state = state;
    this.#reason = reason;
    if (isNews) this.services.changed();
  }

  async #enter(cgroup: string | undefined): Promise<void> {
    const { wanted, services } = this;
    this.isPresent = false;
    if (cgroup === undefined) throw new Error("its cgroup has not been found yet");
    if (this.#cgroup !== cgroup) services.redirector.attach(wanted.uid, cgroup);
    this.#cgroup = cgroup;

    const found = findNamespace(processesOf(cgroup), wanted.addresses, services.procRoot);
    if ("missing" in found) throw new Error(found.missing);
    this.#namespace = found;
    this.isPresent = true;
    if (!sameMembers(found.addresses, this.addresses)) this.#issuing = undefined;
    this.addresses = found.addresses;

    const listeners = openListeners(found.namespace, found.addresses, services.workers.count);
    this.#listeners = listeners;
    this.#letThrough(listeners);
    const credentials = await this.#credentials();
    this.#served = true;
    await services.workers.enrol({
      pod: {
        uid: wanted.uid,
        name: this.name,
        addresses: found.addresses,
        cookie: listeners.cookie,
        namespace: found.namespace.descriptor,
        outboundPort: listeners.outboundPort,
      },
      sockets: listeners.sets.map(({ outbound, inbound }) => ({
        outbound: outbound.map(({ descriptor }) => descriptor),
        inbound: inbound.map(({ descriptor }) => descriptor),
      })),
    }, credentials);
    this.#shown = credentials;
    this.#renewAt(halfLife(credentials.certificate));
  }

  /** The pod's connections to peers now wait in the listeners' backlog. */
  #letThrough({ cookie, outboundPort }: PodListeners): void {
    const addresses = this.addresses.map(parseAddress);
    this.services.redirector.pods.set(
      encodeCookie(cookie),
      encodePod({
        ipv4: addresses.find(isIpv4),
        ipv6: addresses.find((address) => !isIpv4(address)),
        outboundPort,
      }),
    );
  }

  /** The first certificate, waited for no longer than connections may be held. */
  async #credentials(): Promise<Credentials> {
    const issuing = this.#issuing ??= this.#obtainCredentials();
    issuing.catch((error) => {
      if (this.#issuing !== issuing) return;
      this.#issuing = undefined;
      // Who is only away has not refused: asked for as soon as it is back.
      const isAway = error instanceof IssuingError && error.reason === "unavailable";
      const after = isAway ? RETRY_MILLISECONDS.first : this.#askAgain.after;
      this.#askAgain = {
        at: performance.now() + jittered(after),
        after: Math.min(2 * after, MOST_PATIENT_MILLISECONDS),
      };
    });
    const timeout = new AbortController();
    try {
      return await Promise.race([issuing, tooLong(timeout.signal)]);
    } finally {
      timeout.abort();
    }
  }

  async #obtainCredentials(): Promise<Credentials> {
    const { issuer } = this.services;
    const { privateKey, csr } = await newKeyAndRequest();
    const { uid, namespace, name, serviceAccount } = this.wanted;
    const pod = { uid, namespace, name, serviceAccount, addresses: this.addresses };
    const certificate = await issuer.issue(pod, csr);
    const roots = await issuer.trustBundle();
    this.certificate = certificate;
    return { chain: certificate.chain, privateKey, roots, certificate };
  }

  #show(credentials: Credentials): void {
    this.#shown = credentials;
    this.services.workers.renew(this.wanted.uid, credentials);
  }

  #renewAt(milliseconds: number, retry = RETRY_MILLISECONDS.first): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(async () => {
      try {
        const credentials = await this.#obtainCredentials();
        this.#show(credentials);
        this.#renewAt(halfLife(credentials.certificate));
        log.info("renewed the certificate of {pod}", { pod: this.name });
      } catch (error) {
        log.error("renewing the certificate of {pod} failed: {reason}", {
          pod: this.name,
          reason: String(error),
        });
        const left = (this.certificate?.notAfter.getTime() ?? 0) - Date.now();
        const most = Math.max(
          RETRY_MILLISECONDS.first,
          Math.min(left / 10, RETRY_MILLISECONDS.most),
        );
        this.#renewAt(jittered(retry), Math.min(2 * retry, most));
      }
    }, milliseconds);
  }

  #complain(reason: string): void {
    if (this.isNew || reason === this.#logged) return;
    this.#logged = reason;
    log.warn("{pod} waits: {reason}", { pod: this.name, reason });
  }

  /** Undoes what {@link #enter} has done, but for the programs: the pod is held again. */
  async #withdraw(drainMilliseconds: number): Promise<void> {
    clearTimeout(this.#renewal);
    const listeners = this.#listeners;
    this.#listeners = undefined;
    if (listeners !== undefined) {
      this.services.redirector.pods.delete(encodeCookie(listeners.cookie));
    }
    if (this.#served) await this.services.workers.withdraw(this.wanted.uid, drainMilliseconds);
    else if (listeners !== undefined) closeListeners(listeners);
    this.#served = false;
    if (listeners !== undefined) this.#forgetFlows(listeners.cookie);
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

/** What the workers need, and the certificate's dates. */
interface Credentials {
  readonly chain: Uint8Array[];
  readonly privateKey: Uint8Array;
  readonly roots: Uint8Array[];
  readonly certificate: CertificateStatus;
}

function sameMembers(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((member) => b.includes(member));
}

function tooLong(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const late = () => reject(new Error("its certificate has not been issued yet"));
    const timer = setTimeout(late, HOLD_MILLISECONDS);
    signal.addEventListener("abort", () => clearTimeout(timer));
  });
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
