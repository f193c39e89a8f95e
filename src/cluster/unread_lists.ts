import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError, isOutage } from "../kubernetes/errors.ts";
import type { Unheard, WatchedList } from "../kubernetes/watch.ts";
import { logger } from "../log.ts";

const log = logger("cluster");

/**
 * A list of which nothing is heard, though the API server answers other questions: what it says now
 * is not known.
 */
export interface UnreadList {
  readonly name: string;
  /** Since when, why, and what follows. */
  readonly message: string;
  /** There may be peers of whom nothing is known, so that connections are refused. */
  readonly hidesPeers: boolean;
}

/** A list that is followed. */
export interface FollowedList {
  readonly name: string;
  readonly list: Pick<WatchedList, "unheard">;
  /** What is not seen while it is not read. */
  readonly hides: string;
  readonly hidesPeers: boolean;
}

/**
 * UnreadLists finds lists that one right, or one broken part of the server, keeps from being read:
 * the server's silence tells nothing of them. What they hide is refused, but not while most lists
 * fail as in an outage: enrolled pods go on then, and nobody else hears of changes either.
 */
export class UnreadLists {
  readonly #api: ApiRequests;
  readonly #changed: () => void;
  #timer: ReturnType<typeof setInterval> | undefined;
  #followed: readonly FollowedList[] = [];
  #unread: readonly UnreadList[] = [];
  /** How often in a row the server has answered something else while a list was unheard. */
  #answers = 0;
  /** How often in a row most lists were heard. */
  #soundLooks = 0;
  #isLooking = false;

  /** @param changed is called when {@link list} says something else. */
  constructor(
    api: ApiRequests,
    changed: () => void,
    readonly times: { readonly look: number; readonly unread: number } = TIMES,
  ) {
    this.#api = api;
    this.#changed = changed;
  }

  /** Looks from now on: every list has been read once. */
  begin(): void {
    this.#timer = setInterval(() => this.#lookOnce(), this.times.look);
    Deno.unrefTimer(this.#timer);
  }

  follow(list: FollowedList): void {
    this.#followed = [...this.#followed, list];
  }

  /** The same object until it changes. */
  list(): readonly UnreadList[] {
    return this.#unread;
  }

  /** Every list of which nothing is heard right now, and why. */
  unheard(): string[] {
    return this.#followed.flatMap(({ name, list }) => {
      const unheard = list.unheard();
      return unheard === undefined ? [] : `${name} (${unheard.why})`;
    });
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #lookOnce(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    void this.#look().finally(() => this.#isLooking = false);
  }

  async #look(): Promise<void> {
    const isUnheard = this.#followed.some(({ list }) => list.unheard() !== undefined);
    this.#answers = isUnheard && await this.#isAnswering() ? this.#answers + 1 : 0;
    const before = new Map(this.#unread.map((each) => [each.name, each]));
    const heard = this.#followed.filter(({ list }) => list.unheard() === undefined).length;
    this.#soundLooks = 2 * heard > this.#followed.length ? this.#soundLooks + 1 : 0;
    const unread = this.#followed.flatMap((each) => {
      const unheard = each.list.unheard();
      if (unheard === undefined) return [];
      const known = before.get(each.name);
      const isItsOwn = !unheard.isOutage || this.#soundLooks >= ENOUGH;
      const hidesPeers = each.hidesPeers && (known?.hidesPeers === true || isItsOwn);
      if (known?.hidesPeers === hidesPeers) return known;
      const age = performance.now() - unheard.since;
      const isYoung = age < this.times.unread || this.#answers < ENOUGH;
      return known === undefined && isYoung ? [] : unreadList(each, unheard, age, hidesPeers);
    });
    const isSame = unread.length === before.size &&
      unread.every((each) => before.get(each.name) === each);
    if (isSame) return;
    for (const { name, message } of unread) {
      if (!before.has(name)) log.error("{list}: {message}", { list: name, message });
    }
    for (const { name } of this.#unread) {
      if (unread.every((each) => each.name !== name)) {
        log.info("{list}: it is read again", { list: name });
      }
    }
    this.#unread = unread;
    this.#changed();
  }

  /** A refusal is an answer, too. */
  async #isAnswering(): Promise<boolean> {
    try {
      await this.#api.request("GET", "/version", { timeoutMs: this.times.look });
      return true;
    } catch (error) {
      return error instanceof ApiError && !isOutage(error);
    }
  }
}

function unreadList(
  { name, hides }: FollowedList,
  { why }: Unheard,
  age: number,
  hidesPeers: boolean,
): UnreadList {
  const since = new Date(Date.now() - age).toISOString();
  const refused = hidesPeers
    ? ". Connections inside the cluster are refused meanwhile, but those to known peers"
    : "";
  return {
    name,
    message: `the API server answers, but this has not been read since ${since}: ` +
      `${why}. ${hides}${refused}. Look at what the agent may read, and at the API server's log`,
    hidesPeers,
  };
}

const TIMES = { look: 5_000, unread: 30_000 };

/** When a server is back, its lists are within a few seconds. */
const ENOUGH = 3;
