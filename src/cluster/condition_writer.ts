import { SECURED_CONDITION } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { ApiError, errorText, isOutage } from "../kubernetes/errors.ts";
import { logger } from "../log.ts";
import type { Verdict } from "./verdict.ts";

const log = logger("cluster");

/**
 * Tells users about their pods where they look: a condition in the pod's status, for `kubectl wait`, and an
 * Event when it changes. What was said is remembered until the pod's object shows it, so nothing is said
 * twice; what could not be said is said at the next look.
 */
export class ConditionWriter {
  readonly #api: KubernetesApi;
  readonly #nodeName: string;
  /** What was said last, by UID, with the object's own condition of that time. */
  readonly #said = new Map<string, Said>();
  readonly #stop = new AbortController();
  #wanted: readonly Verdict[] = [];
  /** What could not be said because the API server is away, by UID. */
  readonly #unsaid = new Set<string>();
  #running: Promise<void> | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(api: KubernetesApi, nodeName: string) {
    this.#api = api;
    this.#nodeName = nodeName;
  }

  /** Says `verdicts`, all that are to be said now; resolves when it was tried. */
  tell(verdicts: readonly Verdict[]): Promise<void> {
    this.#wanted = verdicts;
    const uids = new Set(verdicts.map(({ pod }) => pod.uid));
    for (const uid of this.#said.keys()) if (!uids.has(uid)) this.#said.delete(uid);
    return this.#running ??= this.#run().finally(() => this.#running = undefined);
  }

  async close(): Promise<void> {
    clearTimeout(this.#again);
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let round: Verdict[]; (round = this.#open()).length > 0;) {
      for (let i = 0; i < round.length; i += AT_ONCE) {
        await Promise.all(round.slice(i, i + AT_ONCE).map((verdict) => this.#say(verdict)));
      }
    }
    if (this.#unsaid.size === 0 || this.#stop.signal.aborted) return;
    this.#unsaid.clear();
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.tell(this.#wanted), AGAIN_MILLISECONDS);
  }

  #open(): Verdict[] {
    if (this.#stop.signal.aborted) return [];
    return this.#wanted.filter((verdict) => {
      const { uid } = verdict.pod;
      return !this.#unsaid.has(uid) && this.#said.get(uid)?.text !== textOf(verdict);
    });
  }

  async #say(verdict: Verdict): Promise<void> {
    const { pod, status, reason } = verdict;
    const before = this.#said.get(pod.uid)?.verdict ?? pod.secured;
    this.#said.set(pod.uid, { verdict, text: textOf(verdict) });
    try {
      await this.#setCondition(verdict);
      if (before?.status !== status || before.reason !== reason) await this.#report(verdict);
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      const isGone = error instanceof ApiError && (error.status === 404 || error.status === 409);
      if (isGone) return; // with its UID went whoever would read it
      // What was refused is not tried again before there is something else to say.
      if (isOutage(error)) {
        this.#said.delete(pod.uid);
        this.#unsaid.add(pod.uid);
      }
      log.warn("cannot tell in Kubernetes that {pod} is {reason}: {error}", {
        pod: `${pod.namespace}/${pod.name}`,
        reason,
        error: errorText(error),
      });
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
              message: message.slice(0, 1024),
              lastTransitionTime: since.replace(/\.\d+Z$/, "Z"), // meta/v1 Time has whole seconds
            }],
          },
        },
      },
    );
  }

  /** events.k8s.io/v1 */
  async #report({ pod, status, reason, message }: Verdict): Promise<void> {
    const { namespace, name, uid } = pod;
    await this.#api.request("POST", `/apis/events.k8s.io/v1/namespaces/${namespace}/events`, {
      signal: this.#stop.signal,
      body: {
        apiVersion: "events.k8s.io/v1",
        kind: "Event",
        metadata: { generateName: `${name.slice(0, 200)}.`, namespace },
        eventTime: new Date().toISOString().replace("Z", "000Z"),
        type: status === "True" || reason === "NotEnrolled" ? "Normal" : "Warning",
        reason,
        action: "Secure",
        note: message.slice(0, 1000),
        regarding: { apiVersion: "v1", kind: "Pod", namespace, name, uid },
        reportingController: "kube-gateway.io/agent",
        reportingInstance: this.#nodeName,
      },
    });
  }
}

interface Said {
  readonly verdict: Pick<Verdict, "status" | "reason">;
  readonly text: string;
}

function textOf({ status, reason, message }: Verdict): string {
  return `${status} ${reason} ${message}`;
}

const AT_ONCE = 4;
const AGAIN_MILLISECONDS = 5_000;
