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
import { basename } from "node:path";
import { parseAddress } from "../../addresses.ts";
import type { Issuer } from "../../identity/issuer.ts";
import { cookieOf, encodeId, encodePod } from "../../kernel/maps.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { logger } from "../../log.ts";
import { cgroupId } from "../../native/file_system.ts";
import { isIpv4 } from "../../native/socket_address.ts";
import type { RelayCredentials, RelaySettings } from "../../relay/messages.ts";
import type { RelayWorkers } from "../../relay/workers.ts";
import { podUidOf, processesOf } from "./cgroup.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import { closeListeners, openListeners, type PodListeners } from "./listeners.ts";
import { type PodSettings, sameSettings } from "../rules/settings.ts";
import { findNamespace, type PodNamespace, stillInUse } from "./namespace.ts";
import { type CertificateStatus, PodCertificate, type PodCredentials } from "./pod_certificate.ts";

const log = logger("enrolment");

/** Peers learn of a withdrawal within this time; until then the pod still answers their tunnels. */
const WITHDRAWAL_MILLISECONDS = 500;

/** A pod that waits for longer than this is worth a line in the log. */
const PATIENCE_MILLISECONDS = 5_000;

/** How long streams may go on after the annotation was removed. */
const DRAIN_MILLISECONDS = 30_000;

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

export class Enrolment {
  #state: EnrolmentState = "waiting";
  #reason: string | undefined = "its cgroup has not been found yet";
  /** The pod's namespace was found at the last attempt, so what it waits for is ours to bring. */
  isPresent = false;
  /** Canonical text; empty until they are known from the pod's object or from its namespace. */
  addresses: readonly string[];
  readonly #created = performance.now();
  #logged: string | undefined;
  #cgroup: string | undefined;
  #namespace: PodNamespace | undefined;
  #listeners: PodListeners | undefined;
  /** For the addresses that the pod has now. */
  #certificate: PodCertificate | undefined;
  /** The workers have something of the pod. */
  #served = false;
  #settings: PodSettings;
  /** The cgroup that has the programs, and whether they refuse plain connections inside the cluster. */
  #attached: { readonly id: bigint; readonly strict: boolean } | undefined;

  constructor(readonly wanted: WantedEnrolment, readonly services: EnrolmentServices) {
    this.addresses = wanted.addresses;
    this.#settings = wanted.settings;
  }

  get settings(): PodSettings {
    return this.#settings;
  }

  get state(): EnrolmentState {
    return this.#state;
  }

  /** Why it is not active. */
  get reason(): string | undefined {
    return this.#reason;
  }

  get certificate(): CertificateStatus | undefined {
    return this.#certificate?.status;
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

  /** Its cgroup was made, and nothing runs in it yet: what it asks for holds from its first instruction on. */
  born(cgroup: string): void {
    if (this.state !== "waiting" || !this.#isNamed(cgroup)) return;
    try {
      this.#attach(cgroup);
    } catch {
      // Gone again, or to be tried and complained of when it enrols. It is held meanwhile.
    }
  }

  /** Tries to enrol; when something is missing yet, goes back to waiting with the reason. */
  async enrol(cgroup: string | undefined): Promise<void> {
    if (this.state !== "waiting" || this.#certificate?.isRefused) return;
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

  /** Takes over what the pod's annotations say now. Live streams that are not allowed any more end at once. */
  adjust(settings: PodSettings): void {
    const before = this.#settings;
    const isGoing = this.#state === "leaving" || this.#state === "gone";
    if (isGoing || sameSettings(before, settings)) return;
    this.#settings = settings;
    try {
      if (this.#cgroup !== undefined) this.#attach(this.#cgroup);
      if (this.#namespace !== undefined && before.strictInbound !== settings.strictInbound) {
        this.#setStrictInbound(this.#namespace);
      }
    } catch (error) {
      // Neither strict nor permissive by halves; the next look tries again. The policy is not the kernel's.
      const { strictEgress, strictInbound } = before;
      this.#settings = { ...settings, strictEgress, strictInbound };
      log.error("{pod} cannot be made what its annotations say: {error}", {
        pod: this.name,
        error: String(error),
      });
    }
    if (this.#served) this.services.workers.adjust(this.wanted.uid, this.#relaySettings());
    this.services.changed();
  }

  /** From the next handshake on these are the roots that peers are verified by. */
  trust(roots: Uint8Array[]): void {
    this.#certificate?.trust(roots);
  }

  /**
   * Withdraws the pod and removes everything of it. `gracefully`: peers are given time to hear of it and
   * streams to end; otherwise all is cut at once (the pod or the agent goes).
   */
  async leave(gracefully: boolean): Promise<void> {
    const wasActive = this.state === "active";
    this.#become("leaving", undefined);
    this.#certificate?.end();
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
    this.#certificate?.end();
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
    if (this.#isNamed(cgroup)) this.#attach(cgroup);

    const found = findNamespace(processesOf(cgroup), wanted.addresses, services.procRoot);
    if ("missing" in found) throw new Error(found.missing);
    this.#namespace = found;
    this.isPresent = true;
    this.#attach(cgroup);
    this.#setStrictInbound(found);
    const certificate = this.#certificateFor(found.addresses);

    const listeners = openListeners(found.namespace, found.addresses, services.workers.count);
    this.#listeners = listeners;
    this.#letThrough(listeners);
    const credentials = await certificate.first();
    this.#served = true;
    await services.workers.enrol({
      pod: {
        uid: wanted.uid,
        name: this.name,
        addresses: found.addresses,
        cookie: listeners.cookie,
        namespace: found.namespace.descriptor,
        outboundPort: listeners.outboundPort,
        identity: wanted.identity,
        settings: this.#relaySettings(),
      },
      sockets: listeners.sets.map(({ outbound, inbound }) => ({
        outbound: outbound.map(({ descriptor }) => descriptor),
        inbound: inbound.map(({ descriptor }) => descriptor),
      })),
    }, relayCredentials(credentials));
    certificate.keepFresh((fresh) => services.workers.renew(wanted.uid, relayCredentials(fresh)));
  }

  /** Has the cgroup the pod's UID? A static pod's has not, and is its own only when the namespace has proved it. */
  #isNamed(cgroup: string): boolean {
    return podUidOf(basename(cgroup)) === this.wanted.uid;
  }

  #attach(cgroup: string): void {
    const { strictEgress } = this.#settings;
    const id = cgroupId(cgroup); // a cgroup that was made anew has the path of the old one
    const attached = this.#attached;
    if (attached?.id === id && attached.strict === strictEgress) return;
    this.services.redirector.attach(this.wanted.uid, cgroup, strictEgress);
    this.#cgroup = cgroup;
    this.#attached = { id, strict: strictEgress };
  }

  #relaySettings(): RelaySettings {
    const { policy, strictEgress } = this.#settings;
    return { policy, strictEgress };
  }

  #setStrictInbound({ namespace }: PodNamespace): void {
    const { strictInbound } = this.#settings;
    this.services.redirector.setStrictInbound(
      this.wanted.uid,
      namespace.descriptor,
      strictInbound,
    );
  }

  #certificateFor(addresses: readonly string[]): PodCertificate {
    const isFor = this.#certificate !== undefined && sameMembers(addresses, this.addresses);
    this.addresses = addresses;
    if (isFor && this.#certificate !== undefined) return this.#certificate;
    this.#certificate?.end();
    const { uid, namespace, name, serviceAccount } = this.wanted;
    const pod = { uid, namespace, name, serviceAccount, addresses };
    return this.#certificate = new PodCertificate(this.services.issuer, pod);
  }

  /** The pod's connections to peers now wait in the listeners' backlog. */
  #letThrough({ cookie, outboundPort }: PodListeners): void {
    const addresses = this.addresses.map(parseAddress);
    this.services.redirector.pods.set(
      encodeId(cookie),
      encodePod({
        ipv4: addresses.find(isIpv4),
        ipv6: addresses.find((address) => !isIpv4(address)),
        outboundPort,
      }),
    );
  }

  #complain(reason: string): void {
    if (this.isNew || reason === this.#logged) return;
    this.#logged = reason;
    log.warn("{pod} waits: {reason}", { pod: this.name, reason });
  }

  /** Undoes what {@link #enter} has done, but for the programs: the pod is held again. */
  async #withdraw(drainMilliseconds: number): Promise<void> {
    this.#certificate?.rest();
    const listeners = this.#listeners;
    this.#listeners = undefined;
    if (listeners !== undefined) {
      this.services.redirector.pods.delete(encodeId(listeners.cookie));
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

function relayCredentials(
  { chain, privateKey, roots, certificate }: PodCredentials,
): RelayCredentials {
  return { chain, privateKey, roots, notAfter: certificate.notAfter.getTime() };
}

function sameMembers(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((member) => b.includes(member));
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
