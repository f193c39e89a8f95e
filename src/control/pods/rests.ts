/**
 * Rests share the main thread's time among the pods that wait: a try may read ten thousand
 * processes of a pod, and what keeps it from being enrolled may be its own containers' doing. A pod
 * whose try takes long is tried again after twenty times as long, counted for all such pods
 * together, so that they take a twentieth of the thread's time, however many they are.
 */
export class Rests {
  /** By pod: until when it rests. */
  readonly #until = new Map<string, number>();

  /**
   * @param now the monotonic clock, in milliseconds.
   * @param used how long this thread has had a processor, in milliseconds.
   */
  constructor(readonly now: () => number, readonly used: () => number) {}

  isResting(pod: string): boolean {
    return this.now() < (this.#until.get(pod) ?? 0);
  }

  /** Does something for a pod, up to where it waits for something else. */
  measure<T>(pod: string, work: () => T): T {
    const began = this.used();
    try {
      return work();
    } finally {
      this.#rest(pod, this.used() - began);
    }
  }

  forget(pod: string): void {
    this.#until.delete(pod);
  }

  #rest(pod: string, milliseconds: number): void {
    this.#until.delete(pod);
    if (milliseconds < USUAL_MILLISECONDS) return;
    this.#until.set(pod, 0);
    this.#until.set(pod, this.now() + TIMES * milliseconds * this.#until.size);
  }
}

/** What a try takes of a pod like others, on a slow machine. */
const USUAL_MILLISECONDS = 20;
const TIMES = 20;
