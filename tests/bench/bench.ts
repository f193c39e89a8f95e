/**
 * Measures kube-gateway against an haproxy pair and against nothing, in the lab: deno task bench. Each round
 * runs every contender forwards and backwards (A-B-C-C-B-A), so that drift hits all alike; what counts are
 * the ratios within a round, their median and spread.
 */
import { parseArgs } from "node:util";
import { Lab } from "../lab/lab.ts";
import { type Contender, openContenders } from "./contenders.ts";
import { type Measure, MEASURES } from "./measures.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
  },
});
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];

await using lab = await Lab.open();
const contenders = await openContenders(lab);
console.log(`| measure | ${contenders.map(({ name }) => name).join(" | ")} | gateway / haproxy |`);
console.log(`| --- |${" --- |".repeat(contenders.length + 1)}`);
for (const measure of MEASURES.filter(({ name }) => name.includes(values.only))) {
  const rows = await measured(measure);
  const cells = contenders.map((_, index) =>
    `${short(median(rows.map((row) => row[index] ?? NaN)))}`
  );
  const [gateway, haproxy] = ["gateway", "haproxy"].map((name) =>
    contenders.findIndex((contender) => contender.name === name)
  );
  const ratios = rows.map((row) => (row[gateway ?? 0] ?? NaN) / (row[haproxy ?? 0] ?? NaN));
  const spread = `${short(Math.min(...ratios))} to ${short(Math.max(...ratios))}`;
  console.log(
    `| ${measure.name}, ${measure.unit} | ${cells.join(" | ")} | ${
      short(median(ratios))
    } (${spread}) |`,
  );
}

/** One row per round: each contender's mean of its two runs. */
async function measured(measure: Measure): Promise<number[][]> {
  const rows: number[][] = [];
  for (let round = 0; round < rounds; round++) {
    const sums = contenders.map(() => 0);
    const order = [...contenders.keys(), ...[...contenders.keys()].reverse()];
    for (const index of order) {
      const contender = contenders[index];
      if (contender !== undefined) {
        sums[index] = (sums[index] ?? 0) + await tried(measure, contender);
      }
    }
    rows.push(sums.map((sum) => sum / 2));
  }
  return rows;
}

/** A listener may still be starting, or an earlier run's last connection ending. */
async function tried(measure: Measure, contender: Contender): Promise<number> {
  for (let attempt = 1;; attempt++) {
    try {
      return await measure.run(contender, seconds);
    } catch (error) {
      if (attempt === 5) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
