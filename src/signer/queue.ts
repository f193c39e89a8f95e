import { jittered } from "../waiting.ts";

/** What the work on one key has come to: done, or to be tried again. */
export type Outcome = "done" | "again";

export interface QueueOptions {
  /** How many keys are worked on at once. */
  readonly concurrency: number;
  /** Milliseconds before a key is tried again: first, and at most. */
  readonly backoff: { readonly first: number; readonly most: number };
  /** Works on one key; must not throw. */
  readonly work: (key: string) => Promise<Outcome>;
}

/**
 * A WorkQueue works on keys, each by one worker at a time, a bounded number at once. Adding a key
 * that waits has no effect; a key that is being worked on is worked on once more.
 */
export class WorkQueue {
  readonly #options: QueueOptions;
  readonly #ready = new Set<string>();
  readonly #working = new Map<string, Promise<void>>();
  readonly #later = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #delays = new Map<string, number>();
  #closed = false;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /** To be worked on now, also when it waits for its next try. */
  add(key: string): void {
    if (this.#closed) return;
    clearTimeout(this.#later.get(key));
    this.#later.delete(key);
    this.#ready.add(key);
    this.#start();
  }

  /** Nothing more is to be done for it. */
  forget(key: string): void {
    clearTimeout(this.#later.get(key));
    this.#later.delete(key);
    this.#ready.delete(key);
    this.#delays.delete(key);
  }

  /** Begins no more work and resolves when none is going on. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#ready.clear();
    for (const timer of this.#later.values()) clearTimeout(timer);
    this.#later.clear();
    await Promise.all(this.#working.values());
  }

  #start(): void {
    for (const key of this.#ready) {
      if (this.#working.size >= this.#options.concurrency) return;
      if (this.#working.has(key)) continue;
      this.#ready.delete(key);
      this.#working.set(key, this.#run(key));
    }
  }

  async #run(key: string): Promise<void> {
    const outcome = await this.#options.work(key);
    this.#working.delete(key);
    if (this.#closed) return;
    if (outcome === "done") this.#delays.delete(key);
    else if (!this.#ready.has(key)) this.#tryLater(key);
    this.#start();
  }

  #tryLater(key: string): void {
    const { first, most } = this.#options.backoff;
    const delay = this.#delays.get(key) ?? first;
    this.#delays.set(key, Math.min(most, delay * 1.6));
    const timer = setTimeout(() => this.add(key), jittered(delay));
    this.#later.set(key, timer);
  }
}
