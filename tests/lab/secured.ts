import { SECURED_CONDITION } from "../../src/constants.ts";
import { delay, until } from "./delay.ts";
import type { Lab } from "./lab.ts";
import type { Pod } from "./pod.ts";

/** What the pod's condition must say, as the API server has it. */
export async function waitSecured(
  lab: Lab,
  pod: Pod,
  status: "True" | "False",
  message = /./,
  milliseconds = 30_000,
): Promise<void> {
  let last: unknown;
  await until(
    async () => {
      const condition = last = await lab.api.secured(pod);
      return condition?.status === status && message.test(condition.message);
    },
    milliseconds,
    () => `${pod.key} is not ${status}, ${message}: ${JSON.stringify(last)}\n${lab.logTails()}`,
  );
}

/** What the conditions of a namespace's pods say, as time goes on. */
export class ConditionLog implements AsyncDisposable {
  readonly #samples: { readonly time: number; readonly secured: ReadonlySet<string> }[] = [];
  readonly #ended = new AbortController();
  readonly #running: Promise<void>;

  constructor(readonly lab: Lab, readonly namespace = "default") {
    this.#running = this.#run();
  }

  /**
   * Whether the pod was secured at this time, in milliseconds since 1970: just before, and just
   * after.
   */
  wasSecured({ name }: Pod, time: number): boolean {
    const after = this.#samples.findIndex((sample) => sample.time >= time);
    return [after - 1, after].every((index) => this.#samples[index]?.secured.has(name) ?? false);
  }

  /** Whether there was a moment since this time at which the pod was not secured. */
  wasUnsecured({ name }: Pod, since: number): boolean {
    return this.#samples.some(({ time, secured }) => time >= since && !secured.has(name));
  }

  /** Whether the pod was ever secured since this time. */
  wasEverSecured({ name }: Pod, since = 0): boolean {
    return this.#samples.some(({ time, secured }) => time >= since && secured.has(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    await this.#running;
  }

  /** An API server that does not answer says nothing else meanwhile. */
  async #run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const objects = await this.lab.api.server.list<PodObject>("pods", this.namespace)
        .catch(() => undefined);
      if (objects !== undefined) {
        const secured = objects.filter(({ status }) =>
          status?.conditions?.some(({ type, status }) =>
            type === SECURED_CONDITION && status === "True"
          )
        );
        this.#samples.push({
          time: Date.now(),
          secured: new Set(secured.map(({ metadata }) => metadata.name)),
        });
      }
      await delay(20);
    }
  }
}

/**
 * What the registry says of the pod: for each of its addresses, whether it can be served; empty
 * when it is not named.
 */
export async function registered(lab: Lab, pod: Pod): Promise<boolean[]> {
  const slices = await lab.api.server.list<Slice>(
    "discovery.k8s.io/endpointslices",
    "kube-gateway",
  );
  return slices.flatMap(({ endpoints }) => endpoints ?? [])
    .filter(({ targetRef }) => targetRef?.uid === pod.uid)
    .map(({ conditions }) => conditions?.ready !== false);
}

/** Waits until the registry names the pod at each of its addresses, ready or not. */
export async function waitRegistered(lab: Lab, pod: Pod, ready: boolean): Promise<void> {
  let last: boolean[] = [];
  await until(
    async () => {
      last = await registered(lab, pod);
      return last.length === pod.addresses.length && last.every((each) => each === ready);
    },
    30_000,
    () => `the registry says of the addresses of ${pod.key}, ready: ${last}`,
  );
}

interface PodObject {
  readonly metadata: { readonly name: string };
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

interface Slice {
  readonly metadata: { readonly name: string };
  readonly endpoints?: readonly {
    readonly conditions?: { readonly ready?: boolean };
    readonly targetRef?: { readonly uid?: string };
  }[];
}
