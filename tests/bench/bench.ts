/**
 * Measures kube-gateway against pairs of other proxies and against nothing, in the lab: deno task
 * bench. Each round runs every contender forwards and backwards (A-B-C-C-B-A), so that drift hits
 * all alike; what counts are the ratios within a round, their median and spread.
 */
import { Lab } from "../lab/lab.ts";
import { chartRows, svgChart } from "./chart.ts";
import { CONTENDERS } from "./contenders/contender.ts";
import { openContenders } from "./contenders/open.ts";
import { describeMachine } from "./machine.ts";
import { MEASURES } from "./measures/all.ts";
import type { Measure, Outcome } from "./model.ts";
import { parseOptions, USAGE } from "./options.ts";
import { jsonReport } from "./report.ts";
import { reasonOf, runMeasure } from "./run.ts";
import { standings } from "./statistics.ts";
import { markdownTable, type Row } from "./table.ts";

const options = parseOptions(Deno.args);
if (typeof options === "string") {
  console.error(options === "" ? USAGE : `${options}\n\n${USAGE}`);
  Deno.exit(options === "" ? 0 : 2);
}
const { rounds, seconds, only } = options;
const isWanted = ({ name }: { name: string }) => name.includes(only);
const measures = MEASURES.filter(({ figures }) => figures.some(isWanted));
const names = CONTENDERS.filter((name) => options.contenders.includes(name));

const machine = await describeMachine();
console.error(machine.join("\n"));
const began = performance.now();
const results: { measure: Measure; outcome: Outcome }[] = [];
const rows: Row[] = [];

await using lab = await Lab.open();
console.error("opening the contenders");
const { contenders, notes } = await openContenders(lab, names);
for (const measure of measures) {
  const figures = measure.figures.filter(isWanted);
  const progress = (round: number, of: number) =>
    console.error(`${minutes()} ${figures[0]?.name}: round ${round} of ${of}`);
  const found = await runMeasure(measure, contenders, { rounds, seconds, progress })
    .catch(nothingFound);
  const outcome = { ...found, notes: new Map([...notes, ...found.notes]) };
  results.push({ measure, outcome });
  const news = figures.map((figure) => ({
    figure,
    standings: standings(figure, outcome, names),
  }));
  rows.push(...news);
  console.error(markdownTable(news, names));
}

console.log(`${machine.join("; ")}. ${rounds} rounds of twice ${seconds} s; ${minutes()} min.\n`);
console.log(markdownTable(rows, names));
if (options.json !== undefined) {
  await Deno.writeTextFile(options.json, jsonReport({ machine, rounds, seconds, results, rows }));
}
if (options.svg !== undefined) {
  await Deno.writeTextFile(options.svg, svgChart(chartRows(rows), machine.join("; ")));
}

/** Of a measure that could not even begin, or end: the others go on. */
function nothingFound(error: unknown): Outcome {
  const reason = `failed: ${reasonOf(error)}`;
  return { rounds: [], notes: new Map(names.map((name) => [name, reason])) };
}

function minutes(): string {
  const all = Math.round((performance.now() - began) / 1000);
  return `${Math.floor(all / 60)}:${String(all % 60).padStart(2, "0")}`;
}
