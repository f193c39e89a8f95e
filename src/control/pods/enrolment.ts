/**
 * One local pod's way into the gateway and out of it.
 *
 *     waiting ◄─► enrolling ─► active ─► leaving ─► gone
 *        ▲                     │    ▲       │
 *        └── another sandbox ──┘    └───────┘ wanted again
 *
 * {@link Enrolment.step} takes the next step from wherever it is, and is called again and again:
 * what fails is tried again, and nothing that a step waits for (a certificate, the registry, what
 * users are told) is waited for without a deadline.
 *
 * Entering: the namespace is found and proved, the listeners are opened, the entry in the `pods`
 * map lets connections through to them, where they wait for the certificate (5 s at most); then the
 * programs are attached, so that a running pod's connections wait instead of failing. If any of
 * that fails, the programs are attached all the same: the pod is held, its connections to peers are
 * refused. Leaving: users are told, the programs redirect no more, and the listeners stay, with the
 * programs that show their clients, until no registry sends peers to them.
 */
import { sameMembers } from "../../same.ts";
import { errorText } from "../../error_text.ts";
import type { GuardCount } from "../../kernel/guard_counts.ts";
import type { Issuer } from "../../identity/issuer.ts";
import { logger } from "../../log.ts";
import type { RelaySettings } from "../../relay/messages.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import { type PodSettings, sameSettings } from "../rules/settings.ts";
import { escaped, type Finding, type Inspected, inspections, unseen } from "./inspection.ts";
import { podUidOf } from "./kubepods.ts";
import { OlderConnections } from "./older_connections.ts";
import { type CertificateStatus, PodCertificate } from "./pod_certificate.ts";
import { NotThereYet, type PodKernel, type PodServing, type Restrictions } from "./pod_kernel.ts";
import { Proofs } from "./proofs.ts";
import { UnnamedAddresses } from "./unnamed_addresses.ts";

const log = logger("enrolment");

/** A pod that waits for longer than this is worth a line in the log. */
const PATIENCE_MILLISECONDS = 5_000;

/** How long streams may go on after the annotation was removed. */
const DRAIN_MILLISECONDS = 30_000;

/**
 * A pod that leaves stays encrypted until its status says that it is not secured, but no longer
 * than this.
 */
const TELLING_MILLISECONDS = 3_000;

/**
 * Peers are answered this long after the registry has lost the pod: their agents may hear of it
 * later, and keep what the registry has lost with a whole slice for a while (`vanished_parts.ts`).
 */
const LINGER_MILLISECONDS = 6_000;

/**
 * A registry that cannot be written does not keep a pod's listeners open for ever: peers are
 * refused then.
 */
const LEAVING_MILLISECONDS = 60_000;

export type EnrolmentState = "waiting" | "enrolling" | "active" | "leaving" | "gone";

const UNRESTRICTED = { inbound: "permissive", egress: "permissive", isGuarded: false } as const;

/** A pod whose handshakes fail is served anew, but no more often than this. */
const REOPENING_MILLISECONDS = 10_000;

/** What all enrolments of a node share. */
export interface EnrolmentServices {
  readonly kernel: PodKernel;
  readonly issuer: Issuer;
  /**
   * Where the registry sends peers to a pod at this moment, as the watch shows it. Canonical text.
   */
  readonly registered: (uid: string) => readonly string[];
  /** Whether users are told that a pod is secured, as the watch shows it. */
  readonly isToldSecured: (uid: string) => boolean;
  /** An enrolment's state or reason has changed: the registry and users may have to be told. */
  readonly changed: () => void;
  /** The monotonic clock, in milliseconds. */
  readonly now: () => number;
}

export class Enrolment {
  #state: EnrolmentState = "waiting";
  #reason: string | undefined = "its cgroup has not been found yet";
  /** Undefined once the pod is wanted no more. */
  #wish: WantedEnrolment | undefined;
  #last: WantedEnrolment;
  /** The pod's namespace was found at the last attempt, so what it waits for is ours to bring. */
  isPresent = false;
  readonly #created: number;
  #logged: string | undefined;
  /** The state and the reason that {@link EnrolmentServices.changed} was called for. */
  #told: string | undefined;
  #cgroup: string | undefined;
  /**
   * The cgroup that has the programs, and whether they refuse plain connections inside the cluster.
   */
  #attached: { readonly id: bigint; readonly strict: boolean } | undefined;
  #serving: PodServing | undefined;
  readonly #unnamed = new UnnamedAddresses();
  /** For the identity and the addresses that the pod has now. */
  #certificate: { readonly key: string; readonly of: PodCertificate } | undefined;
  #settings: PodSettings;
  /** Of leaving, by the monotonic clock. */
  #leaving = { since: 0, registered: 0 };
  /**
   * Since when it has been enrolled without a break, and served as it is now, by the monotonic
   * clock.
   */
  #since = 0;
  #served = 0;
  readonly #proofs: Proofs;
  readonly #older: OlderConnections;
  #plaintext: readonly GuardCount[] = [];
  /** What the last look has found wrong with it, see {@link inspect}. */
  #flaws: readonly string[] = [];

  constructor(wanted: WantedEnrolment, readonly services: EnrolmentServices) {
    this.#wish = this.#last = wanted;
    this.#settings = wanted.settings;
    this.#created = services.now();
    this.#proofs = new Proofs(services.now);
    this.#older = new OlderConnections(services.now);
  }

  /** What is wanted, or was last. */
  get wanted(): WantedEnrolment {
    return this.#last;
  }

  get isWanted(): boolean {
    return this.#wish !== undefined;
  }

  get settings(): PodSettings {
    return this.#settings;
  }

  get state(): EnrolmentState {
    return this.#state;
  }

  /** Why it is not active, or what is wrong with it although it is. */
  get reason(): string | undefined {
    return this.#state === "active" ? this.flaws[0] : this.#reason;
  }

  /** What is wrong with an active one, as last seen: it is not secured. */
  get flaws(): readonly string[] {
    const expired = this.certificateFlaw;
    const unnamed = this.unnamed.length === 0 ? [] : [
      `it has ${
        this.unnamed.join(", ")
      }, which its object does not name: nobody encrypts to it there`,
    ];
    return [...expired === undefined ? [] : [expired], ...unnamed, ...this.#flaws];
  }

  /** Why no peer would take its certificate now. */
  get certificateFlaw(): string | undefined {
    return this.#certificate?.of.flaw;
  }

  /** Why its certificate will end without another; peers take it until then. */
  get renewalProblem(): string | undefined {
    return this.#certificate?.of.renewalProblem;
  }

  /**
   * When a handshake with its own port has succeeded last, in milliseconds since 1970; undefined:
   * not yet.
   */
  get proved(): number | undefined {
    return this.#proofs.succeeded;
  }

  /** Connections with peers in clear that are older than the enrolment, as last seen. */
  get older(): { readonly count: number; readonly isComplete: boolean } {
    return this.#older.seen;
  }

  /** What it has sent to peers outside the tunnel since it was enrolled, as last seen. */
  get plaintext(): readonly GuardCount[] {
    return this.#plaintext;
  }

  /** The kernel's name of the cgroup that has its programs. */
  get cgroupId(): bigint | undefined {
    return this.#attached?.id;
  }

  get certificate(): CertificateStatus | undefined {
    return this.#certificate?.of.status;
  }

  /** Canonical text: those of the pod's object, or of its namespace while that names none. */
  get addresses(): readonly string[] {
    const { addresses } = this.#last;
    return addresses.length > 0 ? addresses : this.#serving?.found.addresses ?? [];
  }

  /** Addresses that peers are to be refused at, see {@link UnnamedAddresses}. */
  get unnamed(): readonly string[] {
    return this.#unnamed.list;
  }

  /** Whether it is young enough for its missing parts to appear at any moment. */
  get isNew(): boolean {
    return this.services.now() - this.#created < PATIENCE_MILLISECONDS;
  }

  /** Whether nothing is to be done before something changes. */
  get isSettled(): boolean {
    return this.#state === "active" && this.isWanted && this.flaws.length === 0;
  }

  get name(): string {
    return `${this.#last.namespace}/${this.#last.name}`;
  }

  /** Takes over what is wanted now; undefined: the pod is to leave. */
  want(wanted: WantedEnrolment | undefined): void {
    this.#wish = wanted;
    if (wanted === undefined) return;
    this.#last = wanted;
    this.#lookAtUnnamed(this.#serving);
    this.#adjust(wanted.settings);
  }

  /**
   * Its cgroup was made, and nothing runs in it yet: what it asks for holds from its first
   * instruction on.
   */
  born(cgroup: string): void {
    if (this.#state !== "waiting" || !this.isWanted || !this.#isNamed(cgroup)) return;
    try {
      this.#attach(cgroup);
    } catch {
      // Gone again, or to be tried and complained of when it enrols. It is held meanwhile.
    }
  }

  /** Takes the next step. Rejects with what has failed; the next call tries it again. */
  async step(cgroup: () => string | undefined): Promise<void> {
    switch (this.#state) {
      case "waiting":
        return this.isWanted ? await this.#enrol(cgroup()) : this.#leave();
      case "active":
        return this.isWanted ? this.#lookAfter() : this.#leave();
      case "leaving":
        return this.isWanted ? this.#stay(cgroup()) : this.#goOn();
    }
  }

  /** From the next handshake on these are the roots that peers are verified by. */
  trust(roots: Uint8Array[]): void {
    this.#certificate?.of.trust(roots);
  }

  /** Removes everything of it at once: the agent goes for good. */
  async leaveNow(): Promise<void> {
    this.#wish = undefined;
    this.#become("leaving", undefined);
    this.#certificate?.of.end();
    this.services.kernel.detach(this.#last.uid);
    await this.#serving?.close(0);
    this.#become("gone", undefined);
    log.info("un-enrolled {pod}", { pod: this.name });
  }

  #become(state: EnrolmentState, reason: string | undefined): void {
    this.#state = state;
    this.#reason = reason;
    const news = `${state} ${reason}`;
    if (state === "enrolling" || news === this.#told) return;
    this.#told = news;
    this.services.changed();
  }

  // ---- entering
  // -------------------------------------------------------------------------------------

  /** Tries to enrol; when something is missing yet, goes back to waiting with the reason. */
  async #enrol(cgroup: string | undefined): Promise<void> {
    if (this.#certificate?.of.isRefused) return;
    this.#become("enrolling", this.#reason);
    try {
      await this.#enter(cgroup);
    } catch (error) {
      await this.#stopServing();
      const reason = errorText(error);
      this.#become("waiting", reason);
      return this.#complain(reason);
    }
    this.#flaws = [];
    this.#served = this.services.now();
    if (this.#since === 0) this.#since = this.#served;
    this.#become("active", undefined);
    void this.#proveAtOnce(this.#serving);
    log.info("enrolled {pod}", { pod: this.name, identity: this.#last.identity });
  }

  async #enter(cgroup: string | undefined): Promise<void> {
    this.isPresent = false;
    if (cgroup === undefined) throw new Error("its cgroup has not been found yet");
    try {
      this.#serving = this.services.kernel.open(this.#last, cgroup);
      this.isPresent = true;
    } catch (error) {
      this.isPresent = !(error instanceof NotThereYet);
      throw error;
    } finally {
      // A static pod's cgroup is its own only when the namespace has proved it.
      if (this.isPresent || this.#isNamed(cgroup)) this.#attach(cgroup);
    }
    const serving = this.#serving;
    this.#lookAtUnnamed(serving);
    serving.restrict(this.#restrictions());
    const certificate = this.#certificateFor(serving.found.addresses);
    await serving.serve(await certificate.first(), this.#relaySettings());
    serving.follow(certificate);
    if (this.#since === 0) serving.countAnew();
    else serving.count(); // what was counted in an earlier sandbox is the same pod's
  }

  /** Has the cgroup the pod's UID? */
  #isNamed(cgroup: string): boolean {
    return podUidOf(cgroup) === this.#last.uid;
  }

  #attach(cgroup: string): void {
    const strict = this.#settings.egress === "strict";
    const id = this.services.kernel.cgroupId(cgroup); // a cgroup that was made anew has the path of the old one
    if (this.#attached?.id === id && this.#attached.strict === strict) return;
    this.services.kernel.attach(this.#last.uid, cgroup, strict);
    this.#cgroup = cgroup;
    this.#attached = { id, strict };
  }

  #certificateFor(addresses: readonly string[]): PodCertificate {
    const { uid, namespace, name, serviceAccount, identity } = this.#last;
    const key = [identity, ...[...addresses].sort()].join();
    if (this.#certificate?.key === key) return this.#certificate.of;
    this.#certificate?.of.end();
    const pod = { uid, namespace, name, serviceAccount, addresses };
    this.#certificate = { key, of: new PodCertificate(this.services.issuer, pod) };
    return this.#certificate.of;
  }

  #complain(reason: string): void {
    if (this.isNew || reason === this.#logged) return;
    this.#logged = reason;
    log.warn("{pod} waits: {reason}", { pod: this.name, reason });
  }

  // ---- active
  // ---------------------------------------------------------------------------------------

  /**
   * Enrols anew when the pod is not where it was; else looks whether the certificate is still good.
   */
  #lookAfter(): void {
    const outdated = this.#outdated();
    if (outdated !== undefined) {
      log.info("enrolling {pod} anew: {reason}", { pod: this.name, reason: outdated });
      return this.#giveUp(outdated);
    }
    this.#certificate?.of.look();
  }

  /**
   * What has changed since it was enrolled; undefined when nothing has, or when that cannot be
   * told.
   */
  #outdated(): string | undefined {
    const serving = this.#serving;
    if (serving === undefined) return "it has no listeners";
    const { identity, addresses } = this.#last;
    const { found } = serving;
    if (identity !== serving.wanted.identity) return "its service account has changed";
    // An object that names no addresses yet says nothing against ours.
    if (addresses.length > 0 && !sameMembers(addresses, found.addresses)) {
      return "its addresses have changed";
    }
    try {
      if (serving.isInUse()) return undefined;
      return "its processes are in another network namespace, or have gone";
    } catch (error) {
      // A node that is out of descriptors cannot tell, which is no reason to take a pod's
      // encryption away.
      log.warn("cannot look after {pod}: {error}", { pod: this.name, error: errorText(error) });
      return undefined;
    }
  }

  /**
   * Compares what the kernel has with what should be there, puts right what is not, and says what
   * it was. Until the next inspection finds nothing, the pod is not secured. Never rejects.
   *
   * @param plaintext what the kernel has counted of what the pod has sent to peers outside the
   * tunnel.
   * @param isFull whether also what is else looked at with each handshake only.
   */
  async inspect(plaintext: readonly GuardCount[] = [], isFull = false): Promise<Finding[]> {
    const serving = this.#serving;
    if (this.#state !== "active" || serving === undefined) return [];
    const findings: Finding[] = [];
    try {
      if (!serving.isInUse()) return []; // the pod is going, or gets another sandbox: the next step's affair
      const isThorough = isFull || this.#proofs.isDue || this.flaws.length > 0;
      for (const mend of inspections(this.#inspected(serving), findings, isThorough)) mend();
      if (isThorough) this.#lookAtUnnamed(serving);
      this.#older.look(serving, this.#settings, this.name, this.#since);
      this.#plaintext = plaintext;
      if (this.#last.isGuarded) findings.push(...escaped(plaintext));
    } catch (error) {
      findings.push(unseen(error));
    }
    if (this.#serving !== serving) return findings;
    const failure = await this.#prove(serving);
    if (failure !== undefined) findings.push({ kind: "handshake", what: failure });
    if (this.#serving === serving) this.#setFlaws(findings.map(({ what }) => what));
    return findings;
  }

  #inspected(serving: PodServing): Inspected {
    return {
      uid: this.#last.uid,
      cgroup: this.#cgroup,
      strictEgress: this.#settings.egress === "strict",
      restrictions: this.#restrictions(),
      servedMilliseconds: this.services.now() - this.#served,
      kernel: this.services.kernel,
      serving,
      attach: (cgroup) => {
        this.#attached = undefined;
        this.#attach(cgroup);
      },
      giveUp: (reason) => this.#giveUp(reason),
    };
  }

  #lookAtUnnamed(serving: PodServing | undefined): void {
    const registered = this.services.registered(this.#last.uid);
    if (this.#unnamed.look(this.addresses, registered, serving)) this.services.changed();
  }

  /** Serves anew: the programs stay, so the pod is held until it is active again. */
  #giveUp(reason: string): void {
    void this.#stopServing();
    this.#become("waiting", reason);
  }

  /** Users wait for this; the rest is looked at by the next audit. */
  async #proveAtOnce(serving: PodServing | undefined): Promise<void> {
    const failure = serving === undefined ? undefined : await this.#prove(serving);
    if (failure !== undefined && this.#serving === serving) this.#setFlaws([failure]);
  }

  /**
   * Why a handshake with the pod's own port has failed, or failed last time and is not due again.
   */
  async #prove(serving: PodServing): Promise<string | undefined> {
    if (!this.#proofs.isDue) return undefined;
    const before = this.#proofs.state;
    const failure = await this.#proofs.make(serving, () => this.#serving === serving);
    if (this.#serving !== serving) return failure;
    const isSettled = this.services.now() - this.#served >= REOPENING_MILLISECONDS;
    if (failure === undefined) {
      if (before === "none") this.services.changed(); // it is secured now
    } else if (before === "failed" && isSettled) {
      this.#giveUp(failure);
    }
    return failure;
  }

  #setFlaws(flaws: readonly string[]): void {
    if (flaws.join() === this.#flaws.join()) return;
    this.#flaws = flaws;
    this.services.changed();
  }

  /**
   * Takes over what the pod's annotations say now. Live streams that are not allowed any more end
   * at once.
   */
  #adjust(settings: PodSettings): void {
    const before = this.#settings;
    if (sameSettings(before, settings)) return;
    this.#older.lookSoon(); // what may go on is another question now
    this.#settings = settings;
    try {
      if (this.#attached !== undefined && this.#cgroup !== undefined) this.#attach(this.#cgroup);
      this.#serving?.restrict(this.#restrictions());
    } catch (error) {
      // Neither strict nor permissive by halves; the next look tries again. The policy is not the
      // kernel's.
      const { egress, inbound } = before;
      this.#settings = { ...settings, egress, inbound };
      log.error("{pod} cannot be made what its annotations say: {error}", {
        pod: this.name,
        error: errorText(error),
      });
    }
    this.#serving?.adjust(this.#relaySettings());
    this.services.changed();
  }

  #relaySettings(): RelaySettings {
    const { policy, egress } = this.#settings;
    return { policy, strictEgress: egress === "strict" };
  }

  #restrictions(): Restrictions {
    const { inbound, egress } = this.#settings;
    return { inbound, egress, isGuarded: this.#last.isGuarded };
  }

  async #stopServing(drainMilliseconds = 0): Promise<void> {
    const serving = this.#serving;
    this.#serving = undefined;
    this.#certificate?.of.rest();
    this.#proofs.forget();
    await serving?.close(drainMilliseconds);
  }

  // ---- leaving
  // --------------------------------------------------------------------------------------

  #leave(): void {
    const now = this.services.now();
    this.#leaving = { since: now, registered: now };
    this.#become("leaving", undefined);
    this.#goOn();
  }

  /** Told first, then detached; the listeners go when no peer can be sent to them any more. */
  #goOn(): void {
    const now = this.services.now();
    const { since } = this.#leaving;
    const { uid } = this.#last;
    const secured = this.services.isToldSecured(uid);
    if (this.services.registered(uid).length > 0) this.#leaving.registered = now;
    const isServed = this.#serving !== undefined && this.#outdated() === undefined;
    const hasGone = this.#serving !== undefined && !isServed;
    if (this.#attached !== undefined) {
      if (!hasGone && secured && now - since < TELLING_MILLISECONDS) return;
      if (isServed) this.#serving?.restrict(UNRESTRICTED);
      this.services.kernel.release(uid); // throws: tried again by the next step
      this.#attached = undefined;
    }
    const isOver = now - this.#leaving.registered >= LINGER_MILLISECONDS ||
      now - since >= LEAVING_MILLISECONDS;
    if (isServed && !isOver) return;
    this.services.kernel.detach(uid);
    this.#certificate?.of.end();
    this.#stopServing(isServed ? DRAIN_MILLISECONDS : 0).catch((error) =>
      log.error("closing what was open for {pod} failed: {error}", {
        pod: this.name,
        error: errorText(error),
      })
    );
    this.#become("gone", undefined);
    log.info("un-enrolled {pod}", { pod: this.name });
  }

  /** The pod is wanted again before it was gone. */
  #stay(cgroup: string | undefined): void {
    if (this.#serving === undefined || cgroup === undefined) {
      return this.#become("waiting", "wanted again");
    }
    this.#since = this.services.now(); // what was plain meanwhile is older than this
    this.#serving.countAnew();
    this.#older.lookSoon(); // and is to be looked for
    this.#attach(cgroup); // throws: tried again by the next step
    this.#serving.restrict(this.#restrictions());
    this.#become("active", undefined);
    log.info("{pod} stays enrolled", { pod: this.name });
  }
}
