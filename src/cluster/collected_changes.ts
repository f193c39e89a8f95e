import { errorText } from "../error_text.ts";
import { logger } from "../log.ts";
import { clockMilliseconds } from "../native/clock.ts";

const log = logger("cluster");

/** Tells of the first change at once, and of those that follow closely together. */
export class CollectedChanges {
  readonly #tell: () => void;
  #isTelling = false;
  #told = -Infinity;
  /** How long changes are collected before they are told. */
  #rest = SHORTEST_REST_MILLISECONDS;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param tell handles all changes since it was called last. What it throws is logged. */
  constructor(tell: () => void) {
    this.#tell = tell;
  }

  /** Tells for the first time. What has changed before is no news. */
  begin(): void {
    this.#isTelling = true;
    this.#tellNow();
  }

  changed(): void {
    if (!this.#isTelling || this.#timer !== undefined) return;
    const wait = this.#told + this.#rest - performance.now();
    this.#timer = setTimeout(() => this.#tellNow(), Math.max(0, wait));
  }

  end(): void {
    this.#isTelling = false;
    clearTimeout(this.#timer);
  }

  #tellNow(): void {
    this.#timer = undefined;
    const before = clockMilliseconds("thread");
    try {
      this.#tell();
    } catch (error) {
      log.error("a change of the cluster's objects could not be handled: {error}", {
        error: errorText(error),
      });
    }
    this.#told = performance.now();
    this.#rest = restAfter(clockMilliseconds("thread") - before);
  }
}

/**
 * How long after a change was handled the next ones are collected: whoever changes something all
 * the time has a fifth of a processor, as long as nobody waits for long.
 *
 * @param used milliseconds of a processor.
 */
export function restAfter(used: number): number {
  return Math.min(Math.max(4 * used, SHORTEST_REST_MILLISECONDS), LONGEST_REST_MILLISECONDS);
}

const SHORTEST_REST_MILLISECONDS = 20;
/** Others' pods are Secured a second after the registry names them: it is read by then. */
const LONGEST_REST_MILLISECONDS = 300;
