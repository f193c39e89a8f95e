/**
 * A bounded queue for several owners. When it is full, whoever has most in it loses his last:
 * nobody's flood takes the place of those who have less.
 */
export class FairQueue<T> {
  readonly #items = new Map<string, { readonly number: number; readonly item: T }[]>();
  #added = 0;
  #size = 0;

  constructor(readonly most: number) {}

  get size(): number {
    return this.#size;
  }

  /** Whether {@link add} would keep one more of the owner's. */
  hasRoomFor(owner: string): boolean {
    if (this.#size < this.most) return true;
    const own = this.#items.get(owner)?.length ?? 0;
    return own + 1 < (this.#largest()?.items.length ?? 0);
  }

  /** Who has lost one for it, the owner if it was not taken; undefined when nobody has. */
  add(owner: string, item: T): string | undefined {
    if (!this.hasRoomFor(owner)) return owner;
    const loser = this.#size < this.most ? undefined : this.#largest();
    if (loser !== undefined) {
      loser.items.pop();
      this.#size--;
    }
    const items = this.#items.get(owner) ?? [];
    this.#items.set(owner, items);
    items.push({ number: this.#added++, item });
    this.#size++;
    return loser?.owner;
  }

  /** The oldest. */
  get first(): T | undefined {
    return this.#oldest()?.items[0]?.item;
  }

  /** Takes the oldest out. */
  take(): T | undefined {
    const oldest = this.#oldest();
    const first = oldest?.items.shift();
    if (oldest === undefined || first === undefined) return undefined;
    if (oldest.items.length === 0) this.#items.delete(oldest.owner);
    this.#size--;
    return first.item;
  }

  #largest() {
    return this.#best((items, best) => items.length > best.length);
  }

  #oldest() {
    return this.#best((items, best) => (items[0]?.number ?? 0) < (best[0]?.number ?? 0));
  }

  #best(isBetter: (items: Items<T>, best: Items<T>) => boolean) {
    let best: { readonly owner: string; readonly items: Items<T> } | undefined;
    for (const [owner, items] of this.#items) {
      if (best === undefined || isBetter(items, best.items)) best = { owner, items };
    }
    return best;
  }
}

type Items<T> = { readonly number: number; readonly item: T }[];
