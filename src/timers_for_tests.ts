/**
 * For tests: this process's timers of the given lengths (milliseconds), which end when the test
 * says so and not before. All others are real.
 */
export class HeldTimers implements Disposable {
  readonly #lengths: ReadonlySet<number>;
  readonly #held = new Map<unknown, Held>();
  readonly #real = { setTimeout, setInterval, clearTimeout, clearInterval };

  constructor(...lengths: number[]) {
    this.#lengths = new Set(lengths);
    const make =
      (real: Make, repeats: boolean) => (end: () => void, milliseconds = 0, ...rest: unknown[]) =>
        this.#lengths.has(milliseconds)
          ? this.#hold({ end, milliseconds, repeats })
          : real(end, milliseconds, ...rest);
    const clear = (real: (timer: never) => void) => (timer: unknown) => {
      if (!this.#held.delete(timer)) real(timer as never);
    };
    Object.assign(globalThis, {
      setTimeout: make(setTimeout, false),
      setInterval: make(setInterval, true),
      clearTimeout: clear(clearTimeout),
      clearInterval: clear(clearInterval),
    });
  }

  /** How many of this length there are. */
  pending(milliseconds: number): number {
    return this.#of(milliseconds).length;
  }

  /** It is time for those of this length that there are. */
  end(milliseconds: number): void {
    for (const [timer, { end, repeats }] of this.#of(milliseconds)) {
      if (!repeats) this.#held.delete(timer);
      end();
    }
  }

  [Symbol.dispose](): void {
    Object.assign(globalThis, this.#real);
  }

  #hold(held: Held): unknown {
    const timer = {};
    this.#held.set(timer, held);
    return timer;
  }

  #of(milliseconds: number): [unknown, Held][] {
    return [...this.#held].filter(([, held]) => held.milliseconds === milliseconds);
  }
}

type Make = (end: () => void, milliseconds: number, ...rest: unknown[]) => unknown;

interface Held {
  readonly end: () => void;
  readonly milliseconds: number;
  readonly repeats: boolean;
}
