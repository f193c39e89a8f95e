/** For tests: what an enrolment needs of a node, without one. */
import type { Fault } from "../../kernel/fault.ts";
import type { ProofResult } from "../../relay/messages.ts";
import type { WantedEnrolment } from "../rules/desired.ts";
import type { OlderConnection } from "../rules/older_connections.ts";
import { settingsOf } from "../rules/settings.ts";
import { Enrolment, type EnrolmentServices } from "./enrolment.ts";
import type { PodServing, Restrictions } from "./pod_kernel.ts";

export const UID = "0c5f3b1e-6d5e-4c64-9d3a-111111111111";
export const CGROUP = `/kubepods/pod${UID}`;
export const WANTED: WantedEnrolment = {
  uid: UID,
  namespace: "shop",
  name: "web",
  serviceAccount: "web",
  identity: "spiffe://td/ns/shop/sa/web",
  addresses: ["10.0.0.1"],
  settings: settingsOf({}),
  isGuarded: false,
};
/**
 * A node whose kernel, signer, registry and clock do as the test says. `done` is what the enrolment
 * did, in order.
 */
export class Node {
  readonly done: string[] = [];
  time = 0;
  cgroup: string | undefined = CGROUP;
  cgroupId = 1n;
  inUse: boolean | Error = true;
  held = ["10.0.0.1"];
  listenerFaults: string[] = [];
  thoroughLooks: boolean[] = [];
  proof: ProofResult | Promise<ProofResult> = { ok: true, notAfter: 0, milliseconds: 1 };
  older: (OlderConnection & { readonly name: string })[] = [];
  faults: Fault[] = [];
  inboundFaults: Fault[] = [];
  letThrough = true;
  registered: string[] = [];
  secured = false;
  /** What fails the next time, and every time until it is taken away. */
  readonly failing = new Map<string, Error>();
  certificate: () => Promise<void> = () => Promise.resolve();
  /** Until what was open is closed. */
  closing: Promise<void> = Promise.resolve();
  /** What was restricted last. */
  restrictions: Restrictions | undefined;
  /** For each certificate that was asked for, whether nobody needs it any more. */
  readonly ends: AbortSignal[] = [];
  /**
   * How many roots each of the credentials has that the workers were shown after the first ones.
   */
  readonly shown: number[] = [];
  /** How often counting was begun anew. */
  counted = 0;
  isCounted = false;
  readonly services: EnrolmentServices;
  readonly enrolment: Enrolment;

  constructor(wanted = WANTED) {
    this.services = {
      kernel: {
        cgroupId: () => this.cgroupId,
        attach: (_uid, _cgroup, strict) => this.do(strict ? "attach strict" : "attach"),
        release: () => this.do("release"),
        detach: () => this.do("detach"),
        inspect: () => this.faults.splice(0),
        open: (wanted) => {
          this.do("open");
          return this.#serving(wanted);
        },
      },
      issuer: {
        issue: async (_pod, _request, signal) => {
          if (signal !== undefined) this.ends.push(signal);
          this.do("certificate");
          await this.certificate();
          const [notBefore, notAfter] = [new Date(Date.now() - 1e6), new Date(Date.now() + 1e6)];
          return { chain: [], serial: "1", notBefore, notAfter };
        },
        trustBundle: () => Promise.resolve([]),
      },
      registered: () => this.registered,
      isToldSecured: () => this.secured,
      changed: () => void this.done.push("changed"),
      now: () => this.time,
    };
    this.enrolment = new Enrolment(wanted, this.services);
  }

  /** Takes a step, and says what was done. What the step has failed with is thrown. */
  async step(): Promise<string[]> {
    this.done.length = 0;
    await this.enrolment.step(() => this.cgroup);
    return this.take();
  }

  get state(): string {
    return this.enrolment.state;
  }

  take(): string[] {
    return this.done.splice(0).filter((each) => each !== "changed" && each !== "prove");
  }

  do(what: string): void {
    this.done.push(what);
    this.fail(what);
  }

  fail(what: string): void {
    const error = this.failing.get(what);
    if (error !== undefined) throw error;
  }

  #serving(wanted: WantedEnrolment): PodServing {
    const addresses = wanted.addresses.length > 0 ? wanted.addresses : this.held;
    return {
      wanted,
      found: { addresses, held: this.held },
      letThrough: () => {
        this.do("let through");
        this.letThrough = true;
      },
      isLetThrough: () => this.letThrough,
      serve: () => new Promise((resolve) => resolve(this.do("serve"))),
      follow: (certificate) => certificate.keepFresh(({ roots }) => this.shown.push(roots.length)),
      adjust: () => this.do("adjust"),
      restrict: (restrictions) => {
        this.restrictions = restrictions;
        if (restrictions.inbound === "strict") this.do("strict inbound");
      },
      isInUse: () => {
        if (this.inUse instanceof Error) throw this.inUse;
        return this.inUse;
      },
      reachableAt: () => this.held,
      inspectRestrictions: () => this.inboundFaults.splice(0),
      count: () => {
        this.fail("count");
        this.isCounted = true;
      },
      countAnew: () => {
        this.fail("count");
        this.isCounted = true;
        this.counted++;
      },
      isCounted: () => this.isCounted,
      inspectListeners: (thorough) => {
        this.thoroughLooks.push(thorough);
        return this.listenerFaults.splice(0);
      },
      prove: () => {
        this.done.push("prove");
        return Promise.resolve(this.proof);
      },
      olderConnections: () => ({
        list: this.older,
        isComplete: true,
        end: (indexes) => {
          this.do(`end ${indexes.join()}`);
          return true;
        },
      }),
      close: (drain) => {
        this.do(drain > 0 ? "drain" : "close");
        return this.closing;
      },
    };
  }
}
