import { type ContenderName, TITLES } from "./contenders/contender.ts";
import type { Figure } from "./model.ts";
import type { Spread, Standing } from "./statistics.ts";

/** One figure, with where everybody stands. */
export interface Row {
  readonly figure: Figure;
  readonly standings: ReadonlyMap<ContenderName, Standing>;
}

/** A Markdown table, aligned as `deno fmt` does it. */
export function markdownTable(rows: readonly Row[], names: readonly ContenderName[]): string {
  const titles = ["measure", ...names.map((name) => TITLES[name]), "kube-gateway to haproxy"];
  const lines = rows.map(({ figure, standings }) => [
    `${figure.name}, ${figure.unit}`,
    ...names.map((name) => cell(name, standings.get(name))),
    lastCell(figure, standings.get("gateway")),
  ]);
  const widths = titles.map((title, column) =>
    Math.max(title.length, ...lines.map((line) => (line[column] ?? "").length))
  );
  const line = (cells: string[]) =>
    `| ${cells.map((text, column) => text.padEnd(widths[column] ?? 0)).join(" | ")} |`;
  return [titles, widths.map((width) => "-".repeat(width)), ...lines].map(line).join("\n");
}

/** Three digits, as people write them. */
export function short(value: number): string {
  const rounded = Number(value.toPrecision(3));
  return Math.abs(rounded) >= 100
    ? rounded.toLocaleString("en-US")
    : rounded.toPrecision(3).replace(/\.?0+$/, "");
}

/** "1.55 (1.36 to 1.59)" */
export function spreadText({ median, least, most }: Spread): string {
  return `${ratioText(median)} (${ratioText(least)} to ${ratioText(most)})`;
}

const ratioText = (ratio: number) => ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(2);

/** The value, and in parentheses its ratio to haproxy where the last column does not say it. */
function cell(name: ContenderName, standing: Standing | undefined): string {
  const { value, ratio, note } = standing ?? {};
  if (value === undefined) return printable(note ?? "–");
  const isPlain = name === "direct" || name === "gateway" || name === "haproxy";
  const text = isPlain || ratio === undefined
    ? short(value)
    : `${short(value)} (${ratioText(ratio.median)})`;
  return note === undefined ? text : `${text}; later ${printable(note)}`;
}

function lastCell({ baseline }: Figure, standing: Standing | undefined): string {
  if (standing?.ratio === undefined) return "–";
  const to = baseline === undefined ? "" : ` to ${TITLES[baseline]}`;
  return `${spreadText(standing.ratio)}${to}`;
}

/** One line that leaves the table whole. */
function printable(text: string): string {
  const line = text.split("\n").find((each) => each.trim() !== "") ?? "";
  return line.trim().replaceAll("|", "/").slice(0, 80);
}
