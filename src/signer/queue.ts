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
  /** What waits, by owner: he whose turn is next comes first. */
  readonly #ready = new Map<string, Set<string>>();
  /** The owner of each key that waits. */
  readonly #owners = new Map<string, string>();
  readonly #working = new Map<string, Promise<void>>();
  readonly #later = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #delays = new Map<string, number>();
  #closed = false;

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  /**
   * To be worked on now, also when it waits for its next try. Each `owner` of keys that wait gets
   * his turn: whoever adds thousands delays himself.
   */
  add(key: string, owner: string): void {
    if (this.#closed) return;
    clearTimeout(this.#later.get(key));
    this.#later.delete(key);
    this.#take(key);
    this.#owners.set(key, owner);
    this.#ready.set(owner, (this.#ready.get(owner) ?? new Set()).add(key));
    this.#start();
  }

  /** Nothing more is to be done for it. */
  forget(key: string): void {
    clearTimeout(this.#later.get(key));
    this.#later.delete(key);
    this.#take(key);
    this.#delays.delete(key);
  }

  /** Begins no more work and resolves when none is going on. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#ready.clear();
    this.#owners.clear();
    for (const timer of this.#later.values()) clearTimeout(timer);
    this.#later.clear();
    await Promise.all(this.#working.values());
  }

  #start(): void {
    while (this.#working.size < this.#options.concurrency) {
      const next = this.#next();
      if (next === undefined) return;
      this.#working.set(next.key, this.#run(next.key, next.owner));
    }
  }

  /** Takes the first key that is not being worked on, of the owner whose turn it is. */
  #next(): { readonly key: string; readonly owner: string } | undefined {
    for (const [owner, keys] of this.#ready) {
      for (const key of keys) {
        if (this.#working.has(key)) continue;
        this.#take(key);
        if (this.#ready.delete(owner)) this.#ready.set(owner, keys);
        return { key, owner };
      }
    }
    return undefined;
  }

  async #run(key: string, owner: string): Promise<void> {
    const outcome = await this.#options.work(key);
    this.#working.delete(key);
    if (this.#closed) return;
    if (outcome === "done") this.#delays.delete(key);
    else if (!this.#owners.has(key)) this.#tryLater(key, owner);
    this.#start();
  }

  #take(key: string): void {
    const owner = this.#owners.get(key);
    if (owner === undefined) return;
    this.#owners.delete(key);
    const keys = this.#ready.get(owner);
    keys?.delete(key);
    if (keys?.size === 0) this.#ready.delete(owner);
  }

  #tryLater(key: string, owner: string): void {
    const { first, most } = this.#options.backoff;
    const delay = this.#delays.get(key) ?? first;
    this.#delays.set(key, Math.min(most, delay * 1.6));
    const timer = setTimeout(() => this.add(key, owner), jittered(delay));
    this.#later.set(key, timer);
  }
}
