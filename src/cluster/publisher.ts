import { GATEWAY_NAMESPACE } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { errorText } from "../error_text.ts";
import { pause } from "../waiting.ts";
import { logger } from "../log.ts";
import type { ClusterProblem } from "./cluster.ts";
import { type RegistryEntry, slicesOf } from "./registry.ts";
import {
  type PresentSlice,
  presentSlice,
  type SliceChange,
  type WantedPart,
} from "./registry_changes.ts";
import { SliceWriter } from "./slice_writer.ts";

const log = logger("registry");

/** How long a publisher waits for what, in milliseconds. */
export interface PublisherDelays {
  /** Until what others have made of the slices is put right, the first time. */
  readonly swift: number;
  /**
   * Until what the watch shows is put right when it may only be behind our own writes; then twice
   * as long, and so on.
   */
  readonly settle: number;
  /** The longest between two repairs of what is undone again and again. */
  readonly longestSettle: number;
  /** After the first failure; then twice as long, and so on. */
  readonly retry: number;
  readonly longestRetry: number;
  /** From when on a write that has not been answered is a problem. */
  readonly patience: number;
  /** Between looks at a Node that is not there, so that the slices get an owner. */
  readonly ownerless: number;
  /** Between looks at everything, the Node and others' objects under our names included. */
  readonly recheck: number;
  /** When nothing was undone for so long, what was before counts no more. */
  readonly calm: number;
}

/**
 * Keeps this node's slices of the registry in the API server. What was asked for last is what will
 * be there: it goes on trying for ever, writes bursts as one, and puts right what others change.
 *
 *             publish, or the watch shows something else
 *   resting ────────────────────────────────────────────► writing ── failed ──► pausing
 *      ▲                                                   │    ▲                  │
 *      └───────────────────── written ─────────────────────┘    └── it is time ────┘
 */
export class RegistryPublisher {
  readonly #writer: SliceWriter;
  readonly #nodeName: string;
  readonly #delays: PublisherDelays;
  #state: "resting" | "writing" | "pausing" | "closed" = "resting";
  #wanted: WantedPart | undefined;
  /** Resolved when `#wanted` is written, or something else is wanted. */
  #written = Promise.withResolvers<void>();
  /** What the watch shows. */
  #observed: ReadonlyMap<string, PresentSlice> | undefined;
  /** How often in a row others have undone what was written, and when last. */
  #undone = { times: 0, at: -Infinity };
  #failure: string | undefined;
  #writingSince = 0;
  #running: Promise<void> = Promise.resolve();
  #look: ReturnType<typeof setTimeout> | undefined;
  #lookAt = 0;
  #recheck: ReturnType<typeof setTimeout> | undefined;
  readonly #stop = new AbortController();

  constructor(
    api: Pick<KubernetesApi, "request">,
    nodeName: string,
    delays: PublisherDelays = DELAYS,
  ) {
    this.#writer = new SliceWriter(api, nodeName, this.#stop.signal);
    this.#nodeName = nodeName;
    this.#delays = delays;
  }

  /**
   * Makes `entries` this node's registry. Resolves when they are, or something else is wanted, or
   * it was closed; nobody needs to wait for that.
   *
   * @throws {TypeError} for another node's entries.
   */
  publish(entries: readonly RegistryEntry[]): Promise<void> {
    return this.#want({ slices: slicesOf(this.#nodeName, entries), isLast: false });
  }

  /**
   * Empties and then deletes this node's registry: its agent goes for good. A slice that vanishes
   * with pods in it says nothing to others (`vanished_parts.ts`). Resolves as {@link publish} does.
   */
  async withdraw(): Promise<void> {
    await this.publish([]);
    await this.#want({ slices: [], isLast: true });
  }

  #want(wanted: WantedPart): Promise<void> {
    this.#wanted = wanted;
    this.#written.resolve();
    this.#written = Promise.withResolvers();
    const isDone = this.#state === "resting" && this.#writer.has(wanted);
    if (isDone || this.#state === "closed") this.#written.resolve();
    else this.#write();
    return this.#written.promise;
  }

  /** What a watch shows of this node's slices, by name. */
  observed(slices: ReadonlyMap<string, unknown>): void {
    const observed = [...slices].map(([name, slice]) => [name, presentSlice(slice)] as const);
    this.#observed = new Map(observed);
    this.#lookSoon();
  }

  /** Why the registry may not say what it should, for as long as that is so. */
  problems(): readonly ClusterProblem[] {
    const messages: string[] = [];
    const waited = performance.now() - this.#writingSince;
    if (this.#failure !== undefined) {
      messages.push(`this node's part cannot be written, and is tried again: ${this.#failure}`);
    } else if (this.#state === "writing" && waited > this.#delays.patience) {
      const seconds = Math.round(waited / 1000);
      messages.push(`this node's part is not written: no answer for ${seconds} s`);
    }
    if (this.#undone.times >= SUSPICIOUS) {
      messages.push(
        `somebody has changed or deleted this node's part ${this.#undone.times} times in a row; ` +
          `it is put right every ${Math.ceil(this.#settle / 1000)} s`,
      );
    }
    for (const name of this.#writer.taken) {
      messages.push(
        `EndpointSlice ${GATEWAY_NAMESPACE}/${name} is not labelled as this node's: this node's ` +
          "part has another name meanwhile; find out who has made it, and delete it",
      );
    }
    return messages.map((message) => ({ file: "registry", message }));
  }

  async close(): Promise<void> {
    this.#state = "closed";
    clearTimeout(this.#look);
    clearTimeout(this.#recheck);
    this.#stop.abort();
    this.#written.resolve();
    await this.#running;
  }

  #write(): void {
    if (this.#state !== "resting") return;
    this.#state = "writing";
    clearTimeout(this.#look);
    this.#look = undefined;
    clearTimeout(this.#recheck);
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted;) {
      const wanted = this.#wanted;
      if (wanted === undefined) break;
      this.#writingSince = performance.now();
      try {
        await this.#writer.bringAbout(wanted);
        failures = 0;
        this.#failure = undefined;
        if (wanted === this.#wanted) break;
      } catch (error) {
        if (signal.aborted) return;
        this.#writer.believe(undefined); // somebody else may have written, or our write may have arrived
        this.#state = "pausing";
        await pause(this.#fail(error, failures++), signal).catch(() => {}); // closed meanwhile
        if (signal.aborted) return;
        this.#state = "writing";
      }
    }
    if (signal.aborted) return;
    this.#state = "resting";
    this.#written.resolve();
    const { ownerless, recheck } = this.#delays;
    this.#recheck = setTimeout(
      () => this.#lookAtAll(),
      this.#writer.isOwnerless ? ownerless : recheck,
    );
    this.#lookSoon(); // what was observed meanwhile
  }

  /** @returns how long to wait. */
  #fail(error: unknown, failures: number): number {
    const { retry, longestRetry } = this.#delays;
    const message = errorText(error);
    if (message !== this.#failure) {
      log.warn("the registry of {node} cannot be written: {error}; it is tried again", {
        node: this.#nodeName,
        error: message,
      });
    }
    this.#failure = message;
    return Math.min(retry * 2 ** failures, longestRetry) * (0.5 + Math.random());
  }

  /** How long what the watch shows is left alone: longer each time that it was undone. */
  get #settle(): number {
    const { settle, longestSettle } = this.#delays;
    return Math.min(settle * 2 ** Math.max(0, this.#undone.times - 1), longestSettle);
  }

  /** What would have to be written if the watch showed what is there now. */
  #differences(): SliceChange[] {
    const [wanted, observed] = [this.#wanted, this.#observed];
    if (wanted === undefined || observed === undefined) return [];
    return this.#writer.differences(wanted, observed);
  }

  #lookSoon(): void {
    if (this.#state !== "resting" || this.#wanted === undefined) return;
    if (performance.now() - this.#undone.at > this.#delays.calm) this.#undone.times = 0;
    const isOthers = this.#differences().some(({ name }) =>
      !this.#writer.isFormer(name, this.#observed?.get(name))
    );
    const wait = isOthers && this.#undone.times === 0 ? this.#delays.swift : this.#settle;
    const at = performance.now() + wait;
    if (this.#look !== undefined && this.#lookAt <= at) return;
    clearTimeout(this.#look);
    this.#lookAt = at;
    this.#look = setTimeout(() => {
      this.#look = undefined;
      this.#compare();
    }, wait);
  }

  #compare(): void {
    if (this.#state !== "resting") return;
    const changes = this.#differences();
    if (changes.length === 0) return;
    this.#undone = { times: this.#undone.times + 1, at: performance.now() };
    log.warn("somebody else has changed the registry of {node} ({slices}): it is put right", {
      node: this.#nodeName,
      slices: changes.map(({ name }) => name).join(", ").slice(0, 500),
    });
    this.#writer.believe(this.#observed);
    this.#write();
  }

  #lookAtAll(): void {
    if (this.#wanted === undefined) return;
    if (performance.now() - this.#undone.at > this.#delays.calm) this.#undone.times = 0;
    this.#writer.forgetTaken();
    this.#writer.believe(this.#observed);
    this.#write();
  }
}

/** Once is a mistake, twice an accident. */
const SUSPICIOUS = 3;

const DELAYS: PublisherDelays = {
  swift: 20,
  settle: 1_000,
  longestSettle: 60_000,
  retry: 250,
  longestRetry: 5_000,
  patience: 3_000,
  ownerless: 10_000,
  recheck: 300_000,
  calm: 180_000,
};
