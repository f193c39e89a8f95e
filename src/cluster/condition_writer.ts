import { SECURED_CONDITION } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { errorText } from "../error_text.ts";
import { inTurns } from "../in_turns.ts";
import { logger } from "../log.ts";
import type { SecuredCondition } from "./objects.ts";
import type { Verdict } from "./verdict.ts";

const log = logger("cluster");

/** How long a writer waits for what, in milliseconds. */
export interface WriterDelays {
  /**
   * Until what was said is said again, when the pod's object does not show it; then twice as long,
   * and so on.
   */
  readonly again: number;
  /** As long at most. */
  readonly longest: number;
  /** When nothing had to be said again for so long, what was before counts no more. */
  readonly calm: number;
  /** Between two messages of the same status and reason. */
  readonly rephrase: number;
}

/** What has been done about one pod, by its UID. */
interface Told {
  /** The last condition that was written or tried, and when. */
  said: { readonly text: string; readonly at: number } | undefined;
  /** How often the same had to be said again. */
  times: number;
  /** `status reason` of the last Event. */
  reported: string | undefined;
  /** What is still to be told by an Event. */
  event: Verdict | undefined;
  isBusy: boolean;
  /** The last failure, which is logged once. */
  failure: string | undefined;
}

/** A request that is due, about a pod of the namespace. */
interface Job {
  readonly namespace: string;
  readonly run: () => Promise<void>;
}

/**
 * Tells users about their pods where they look: a condition in the pod's status, for `kubectl
 * wait`, and an Event when it changes. What the pod's object shows is what has been said, nothing
 * else: as long as it shows something else, it is said again, more and more rarely. Conditions go
 * before Events, since others decide by them.
 */
export class ConditionWriter {
  readonly #api: Pick<KubernetesApi, "request">;
  readonly #nodeName: string;
  readonly #delays: WriterDelays;
  readonly #told = new Map<string, Told>();
  #wanted: readonly Verdict[] = [];
  #busy = 0;
  /** The same, by namespace. */
  readonly #places = new Map<string, number>();
  /** Resolved when all that is due was tried. */
  #idle: PromiseWithResolvers<void> | undefined;
  #next: ReturnType<typeof setTimeout> | undefined;
  readonly #stop = new AbortController();

  constructor(
    api: Pick<KubernetesApi, "request">,
    nodeName: string,
    delays: WriterDelays = DELAYS,
  ) {
    this.#api = api;
    this.#nodeName = nodeName;
    this.#delays = delays;
  }

  /**
   * Says `verdicts`, all that are to be said now, each with its pod as the API server last showed
   * it; resolves when it was tried.
   */
  tell(verdicts: readonly Verdict[]): Promise<void> {
    this.#wanted = verdicts;
    const uids = new Set(verdicts.map(({ pod }) => pod.uid));
    const now = performance.now();
    for (const [uid, { said, event, isBusy }] of this.#told) {
      // What the object shows may be undone: that it was said lately is remembered.
      const isOver = now - (said?.at ?? -Infinity) > this.#delays.calm;
      if (!uids.has(uid) && isOver && event === undefined && !isBusy) this.#told.delete(uid);
    }
    this.#idle ??= Promise.withResolvers();
    const idle = this.#idle.promise;
    this.#go();
    return idle;
  }

  async close(): Promise<void> {
    clearTimeout(this.#next);
    this.#stop.abort();
    if (this.#busy > 0) this.#idle ??= Promise.withResolvers();
    await this.#idle?.promise;
  }

  /** Begins what is due, as much as may be under way at once. */
  #go(): void {
    clearTimeout(this.#next);
    const jobs = this.#stop.signal.aborted ? [] : this.#due();
    for (const { namespace, run } of jobs.slice(0, AT_ONCE - this.#busy)) {
      this.#take(namespace, 1);
      void run().finally(() => {
        this.#take(namespace, -1);
        this.#go();
      });
    }
    if (this.#busy > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
    this.#sleep();
  }

  #take(namespace: string, places: number): void {
    this.#busy += places;
    const own = (this.#places.get(namespace) ?? 0) + places;
    if (own === 0) this.#places.delete(namespace);
    else this.#places.set(namespace, own);
  }

  /** Until the next thing has to be said again. */
  #sleep(): void {
    if (this.#stop.signal.aborted) return;
    const open = this.#wanted.filter((verdict) => !isShown(verdict));
    const due = open.map((verdict) => this.#dueAt(verdict, this.#of(verdict.pod.uid)));
    if (due.length === 0) return;
    const wait = Math.max(0, Math.min(...due) - performance.now());
    this.#next = setTimeout(() => this.#go(), wait);
  }

  /**
   * Conditions before Events, but for those of pods that change all the time: these would keep
   * every Event waiting. Among equals, the namespace comes first that has fewest requests under
   * way.
   */
  #due(): Job[] {
    const { first, again } = this.#conditionsDue();
    return [...first, ...this.#eventsDue(), ...again];
  }

  #conditionsDue(): Record<"first" | "again", Job[]> {
    const now = performance.now();
    const due = this.#wanted.filter((verdict) => {
      const told = this.#of(verdict.pod.uid);
      if (told.isBusy || isShown(verdict)) return false;
      return now >= this.#dueAt(verdict, told);
    });
    // What is not secured any more first: somebody may rely on it. A pod that changes all the time
    // keeps no other waiting.
    const wasSaid = ({ pod }: Verdict) =>
      now - (this.#of(pod.uid).said?.at ?? -Infinity) < this.#delays.again;
    const jobsOf = (verdicts: readonly Verdict[]) =>
      this.#inTurns(verdicts, (verdict) => verdict)
        .sort((a, b) => Number(isFalse(b)) - Number(isFalse(a)))
        .map((verdict) => ({
          namespace: verdict.pod.namespace,
          run: () => this.#say(verdict, this.#of(verdict.pod.uid)),
        }));
    const again = due.filter(wasSaid);
    return { first: jobsOf(due.filter((verdict) => !wasSaid(verdict))), again: jobsOf(again) };
  }

  #eventsDue(): Job[] {
    const due = [...this.#told.values()].flatMap((told) => {
      const { event, isBusy } = told;
      return event === undefined || isBusy ? [] : [{ event, told }];
    });
    return this.#inTurns(due, ({ event }) => event).map(({ event, told }) => ({
      namespace: event.pod.namespace,
      run: () => this.#report(event, told),
    }));
  }

  #inTurns<T>(items: readonly T[], verdictOf: (item: T) => Verdict): T[] {
    const had = (namespace: string) => this.#places.get(namespace) ?? 0;
    return inTurns(items, (item) => verdictOf(item).pod.namespace, had);
  }

  /**
   * At once what is new; the same in other words later, since a message may say something else
   * every second.
   */
  #dueAt(verdict: Verdict, { said, times }: Told): number {
    const { again, longest, rephrase } = this.#delays;
    if (said === undefined) return -Infinity;
    if (said.text === textOf(verdict)) return said.at + Math.min(again * 2 ** times, longest);
    return isShownInOtherWords(verdict) ? said.at + rephrase : -Infinity;
  }

  #of(uid: string): Told {
    const known = this.#told.get(uid);
    if (known !== undefined) return known;
    const told = {
      said: undefined,
      times: 0,
      reported: undefined,
      event: undefined,
      isBusy: false,
      failure: undefined,
    };
    this.#told.set(uid, told);
    return told;
  }

  async #say(verdict: Verdict, told: Told): Promise<void> {
    const { pod } = verdict;
    const text = textOf(verdict);
    const now = performance.now();
    const isAgain = told.said?.text === text && now - told.said.at < this.#delays.calm;
    told.times = isAgain ? told.times + 1 : 0;
    told.said = { text, at: now };
    told.reported ??= keyOf(pod.secured);
    const isTaken = await this.#try(verdict, told, () => this.#setCondition(verdict));
    told.said = { text, at: performance.now() };
    if (isTaken && told.reported !== keyOf(verdict)) told.event = verdict;
  }

  /** Once: an Event that was refused would be refused again. */
  async #report(verdict: Verdict, told: Told): Promise<void> {
    told.event = undefined;
    told.reported = keyOf(verdict);
    await this.#try(verdict, told, () => this.#postEvent(verdict));
  }

  async #try({ pod, reason }: Verdict, told: Told, request: () => Promise<void>): Promise<boolean> {
    told.isBusy = true;
    try {
      await request();
      told.failure = undefined;
      return true;
    } catch (error) {
      const message = errorText(error);
      if (!this.#stop.signal.aborted && message !== told.failure) {
        log.warn("cannot tell in Kubernetes that {pod} is {reason}: {error}", {
          pod: `${pod.namespace}/${pod.name}`,
          reason,
          error: message,
        });
      }
      told.failure = message;
      return false;
    } finally {
      told.isBusy = false;
    }
  }

  async #setCondition({ pod, status, reason, message }: Verdict): Promise<void> {
    const isNew = pod.secured?.status !== status || pod.secured.since === "";
    const since = isNew ? new Date().toISOString() : pod.secured.since;
    await this.#api.request(
      "PATCH",
      `/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/status`,
      {
        signal: this.#stop.signal,
        contentType: "application/strategic-merge-patch+json", // conditions are merged by type
        body: {
          metadata: { uid: pod.uid }, // another pod of that name: 409
          status: {
            conditions: [{
              type: SECURED_CONDITION,
              status,
              reason,
              message: message.slice(0, MAX_MESSAGE),
              lastTransitionTime: since.replace(/\.\d+Z$/, "Z"), // meta/v1 Time has whole seconds
            }],
          },
        },
      },
    );
  }

  /** events.k8s.io/v1 */
  async #postEvent({ pod, status, reason, message }: Verdict): Promise<void> {
    const { namespace, name, uid } = pod;
    await this.#api.request("POST", `/apis/events.k8s.io/v1/namespaces/${namespace}/events`, {
      signal: this.#stop.signal,
      body: {
        apiVersion: "events.k8s.io/v1",
        kind: "Event",
        metadata: { name: eventName(name), namespace },
        eventTime: new Date().toISOString().replace("Z", "000Z"),
        type: status === "True" || reason === "NotEnrolled" ? "Normal" : "Warning",
        reason,
        action: "Secure",
        note: cut(message, MAX_NOTE_BYTES),
        regarding: { apiVersion: "v1", kind: "Pod", namespace, name, uid },
        reportingController: "kube-gateway.io/agent",
        reportingInstance: this.#nodeName,
      },
    });
  }
}

/**
 * As client-go names Events: the object's name and the time in nanoseconds (here their last digits
 * are random).
 */
export function eventName(name: string): string {
  const [random = 0] = crypto.getRandomValues(new Uint32Array(1));
  const nanoseconds = BigInt(Date.now()) * 1_000_000n + BigInt(random % 1_000_000);
  // At most 253 characters, and no "-" or "." may stand before the ".".
  return `${name.slice(0, 230).replace(/[-.]+$/, "")}.${nanoseconds.toString(16)}`;
}

/** The text, or as much of its beginning as UTF-8 needs at most so many bytes for. */
export function cut(text: string, bytes: number): string {
  const buffer = new Uint8Array(bytes);
  return text.slice(0, new TextEncoder().encodeInto(text, buffer).read);
}

function isFalse({ status }: Verdict): boolean {
  return status === "False";
}

function isShown({ pod: { secured }, status, reason, message }: Verdict): boolean {
  return secured?.status === status && secured.reason === reason &&
    secured.message === message.slice(0, MAX_MESSAGE);
}

function isShownInOtherWords({ pod: { secured }, status, reason }: Verdict): boolean {
  return secured?.status === status && secured.reason === reason;
}

function textOf({ status, reason, message }: Verdict): string {
  return `${status} ${reason} ${message}`;
}

function keyOf(said: Pick<SecuredCondition, "status" | "reason"> | undefined): string {
  return said === undefined ? "" : `${said.status} ${said.reason}`;
}

/**
 * Of an API server's; its connections are fewer, so that whoever waits for one does so in our own
 * process.
 */
const AT_ONCE = 16;

const MAX_MESSAGE = 1024;
/** core/validation/events.go, NoteLengthLimit: bytes. */
const MAX_NOTE_BYTES = 1024;

const DELAYS: WriterDelays = { again: 2_000, longest: 60_000, calm: 120_000, rephrase: 15_000 };
