import { errorText } from "../error_text.ts";
import { logger } from "../log.ts";
import type { BundleStore } from "./bundle_store.ts";

const log = logger("signer");

/**
 * Tells all agents that a signer is here, and what keeps it from signing: once a minute, and when
 * that changes.
 */
export class Word {
  readonly #store: Pick<BundleStore, "say">;
  readonly #everyMilliseconds: number;
  #said: { readonly problem: string | undefined; readonly at: number } | undefined;

  constructor(store: Pick<BundleStore, "say">, everyMilliseconds = EVERY_MILLISECONDS) {
    this.#store = store;
    this.#everyMilliseconds = everyMilliseconds;
  }

  /** Says it if it is time. Never throws: what could not be said is said next time. */
  async say(problem: string | undefined, timeoutMs: number): Promise<void> {
    const now = Date.now();
    const isSaid = this.#said !== undefined && this.#said.problem === problem &&
      Math.abs(now - this.#said.at) < this.#everyMilliseconds;
    if (isSaid) return;
    const until = new Date(now + 2 * this.#everyMilliseconds).toISOString();
    try {
      await this.#store.say({ at: new Date(now).toISOString(), until, problem }, timeoutMs);
      this.#said = { problem, at: now };
    } catch (error) {
      log.warn("the agents could not be told how the signer is: {error}", {
        error: errorText(error),
      });
    }
  }
}

const EVERY_MILLISECONDS = 60_000;
