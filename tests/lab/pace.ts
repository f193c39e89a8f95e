/** How long small requests take while something else goes on: apps/ping.py, window by window. */
import assert from "node:assert/strict";
import { until } from "./delay.ts";
import type { Place } from "./place.ts";
import type { LabProcess } from "./process.ts";

/** Milliseconds. */
export interface Pace {
  p50: number;
  p99: number;
}

/** What a busy machine may add, whoever has served the request. */
const NOISE: Pace = { p50: 1, p99: 5 };

/** A client that asks again and again, each time by a connection of its own. */
export class Pinger {
  readonly #client: LabProcess;

  /** An echo server must listen there. */
  constructor(place: Place, host: string, port: number) {
    const program = ["python3", "-B", "-S", `${import.meta.dirname}/apps/ping.py`];
    this.#client = place.spawn([...program, "--host", host, "--port", `${port}`]);
  }

  /**
   * How the next `count` whole seconds go; no request may fail. Their median: one bad second is
   * noise, a bad half of them is not.
   */
  async pace(count = 5): Promise<Pace> {
    const windows = () => this.#client.events.filter(({ event }) => event === "window");
    const from = windows().length + 1; // not the one that has begun before
    await until(
      () => windows().length >= from + count,
      count * 5_000,
      () => `the client is stuck: ${this.#client.stderr.tail()}`,
    );
    const measured = windows().slice(from, from + count);
    for (const { errors } of measured) assert.deepEqual(errors, {});
    return {
      p50: median(measured.map(({ p50 }) => p50)),
      p99: median(measured.map(({ p99 }) => p99)),
    };
  }

  stop(): void {
    this.#client.kill();
  }
}

/** The promise: others' load at most doubles how long a small request takes. */
export function assertAtMostDoubles(before: Pace, during: Pace): void {
  console.log(`p50 and p99 in ms: ${show(before)} before, ${show(during)} during`);
  for (const key of ["p50", "p99"] as const) {
    const most = 2 * before[key] + NOISE[key];
    assert.ok(during[key] <= most, `${key}: ${before[key]} ms before, ${during[key]} ms during`);
  }
}

function median(values: unknown[]): number {
  const sorted = values.map(Number).sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)]!;
}

function show({ p50, p99 }: Pace): string {
  return `${p50.toFixed(2)} and ${p99.toFixed(2)}`;
}
