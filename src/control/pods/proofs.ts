import type { PodServing } from "./pod_kernel.ts";

/** How often a handshake proves that an active pod can be reached. */
const PROOF_MILLISECONDS = 30_000;

/** The handshakes with a pod's own port, as a peer would make them. */
export class Proofs {
  /** The last one, by the monotonic clock and by the wall clock in milliseconds. */
  #last:
    | { readonly at: number; readonly time: number; readonly failure: string | undefined }
    | undefined;

  constructor(readonly now: () => number) {}

  /** When the last one was made, if it has succeeded, in milliseconds since 1970. */
  get succeeded(): number | undefined {
    return this.#last?.failure === undefined ? this.#last?.time : undefined;
  }

  /** Whether one was made since {@link forget}, and whether it has failed. */
  get state(): "none" | "failed" | "succeeded" {
    if (this.#last === undefined) return "none";
    return this.#last.failure === undefined ? "succeeded" : "failed";
  }

  get isDue(): boolean {
    const last = this.#last;
    return last === undefined || last.failure !== undefined ||
      this.now() - last.at >= PROOF_MILLISECONDS;
  }

  /** The pod is served no more, or anew: what was proved is no longer there. */
  forget(): void {
    this.#last = undefined;
  }

  /**
   * Makes a handshake, and says why it has failed. It is not noted if the pod is served otherwise
   * by then.
   *
   * @param isServing whether the pod is still served as it was.
   */
  async make(serving: PodServing, isServing: () => boolean): Promise<string | undefined> {
    const result = await serving.prove();
    const failure = result.ok
      ? undefined
      : `a handshake with its own port failed: ${result.reason}`;
    if (isServing()) this.#last = { at: this.now(), time: Date.now(), failure };
    return failure;
  }
}
