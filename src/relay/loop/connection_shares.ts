/** Who began it: an application of the pod, or a peer's relay. */
export type Direction = "outbound" | "inbound";

/** A connection that nobody uses now. */
export interface Unused {
  /** Ends it at once, for another: it is open and unused no more. */
  giveUp(): void;
}

/**
 * How many connections each pod may have of all that a worker takes. Half of them are kept, in
 * equal shares: one for each namespace that has pods here and one for the next that comes, each
 * divided among its pods. The other half is for whoever comes first, but a pod has at most half of
 * all, three quarters of that in one direction, and so has a namespace that is not the only one. So
 * neither many pods of one owner nor one peer takes what another needs. What nobody uses gives way:
 * a tunnel that waits for another stream costs its next user a handshake.
 */
export class ConnectionShares {
  readonly #namespaces = new Map<string, Namespace>();
  /** Open ones of all pods. */
  open = 0;
  /** Those of them that are beyond what is kept for their pods. */
  beyond = 0;

  constructor(readonly most: number) {}

  /** For a pod that is enrolled; its to {@link PodShare.leave}. */
  enter(name: string): PodShare {
    const namespace = this.#namespaces.get(name) ?? { pods: new Set(), kept: 0, beyond: 0 };
    this.#namespaces.set(name, namespace);
    const share = new PodShare(this, namespace, () => {
      namespace.pods.delete(share);
      if (namespace.pods.size === 0) this.#namespaces.delete(name);
      this.#divide();
    });
    namespace.pods.add(share);
    this.#divide();
    return share;
  }

  /** One of anybody's that nobody uses. */
  unused(): Unused | undefined {
    for (const namespace of this.#namespaces.values()) {
      const unused = unusedOf(namespace);
      if (unused !== undefined) return unused;
    }
    return undefined;
  }

  get isDivided(): boolean {
    return this.#namespaces.size > 1;
  }

  #divide(): void {
    this.beyond = 0;
    const each = this.most / 2 / (this.#namespaces.size + 1);
    for (const namespace of this.#namespaces.values()) {
      const { pods } = namespace;
      const kept = Math.floor(each / pods.size);
      namespace.kept = kept * pods.size;
      namespace.beyond = 0;
      for (const pod of pods) {
        pod.kept = kept;
        namespace.beyond += Math.max(0, pod.open - kept);
      }
      this.beyond += namespace.beyond;
    }
  }
}

function unusedOf({ pods }: Namespace): Unused | undefined {
  for (const { unused } of pods) for (const each of unused) return each;
  return undefined;
}

interface Namespace {
  readonly pods: Set<PodShare>;
  /** For all of its pods together. */
  kept: number;
  /** Open ones that are beyond what is kept for each. */
  beyond: number;
}

/** What one pod has of a worker's connections. */
export class PodShare {
  /** How many it has whatever others do. */
  kept = 0;
  /** Inbound ones that nobody uses now, the longest unused first. */
  readonly unused = new Set<Unused>();
  readonly #open: Record<Direction, number> = { outbound: 0, inbound: 0 };

  constructor(
    readonly all: ConnectionShares,
    readonly namespace: Namespace,
    /** It has none any more, and gets none. */
    readonly leave: () => void,
  ) {}

  get open(): number {
    return this.#open.outbound + this.#open.inbound;
  }

  /**
   * Ends what is unused until one more would take neither what the agent's memory is not enough for
   * nor what others need; false when that cannot be.
   */
  makeRoom(direction: Direction): boolean {
    for (;;) {
      const limit = this.#limit(direction);
      if (limit === undefined) return true;
      const unused = this.#unused(limit);
      if (unused === undefined) return false;
      unused.giveUp();
    }
  }

  /** Whose limit keeps it from one more. */
  #limit(direction: Direction): "all" | "namespace" | Direction | "pod" | undefined {
    const { most, open, beyond, isDivided } = this.all;
    if (open >= most) return "all";
    if (this.open < this.kept) return undefined;
    if (this.#open[direction] >= most * 3 / 8) return direction;
    if (this.open >= most / 2) return "pod";
    const { kept, beyond: taken } = this.namespace;
    if (isDivided && kept + taken >= most / 2) return "namespace";
    return beyond >= most / 2 ? "all" : undefined;
  }

  #unused(limit: "all" | "namespace" | Direction | "pod"): Unused | undefined {
    if (limit === "outbound") return undefined;
    for (const own of this.unused) return own;
    if (limit === "namespace") return unusedOf(this.namespace);
    return limit === "all" ? this.all.unused() : undefined;
  }

  opened(direction: Direction): void {
    if (this.open >= this.kept) this.#beyond(1);
    this.#open[direction]++;
    this.all.open++;
  }

  closed(direction: Direction): void {
    this.#open[direction]--;
    this.all.open--;
    if (this.open >= this.kept) this.#beyond(-1);
  }

  #beyond(change: number): void {
    this.namespace.beyond += change;
    this.all.beyond += change;
  }
}
