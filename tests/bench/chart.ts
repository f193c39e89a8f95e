import { type ContenderName, TITLES } from "./contenders/contender.ts";
import type { Figure } from "./model.ts";
import type { Spread } from "./statistics.ts";
import type { Row } from "./table.ts";

/** How often better than haproxy each contender is, and within which bounds. */
export interface ChartRow {
  readonly name: string;
  readonly times: ReadonlyMap<ContenderName, Spread>;
}

const COLOURS: Partial<Record<ContenderName, string>> = {
  gateway: "#1a7f5a",
  "haproxy-resumed": "#c2571a",
  nginx: "#2f5fc4",
  stunnel: "#8a3fa8",
};

/** What can be drawn: figures with a ratio of the gateway to haproxy. */
export function chartRows(rows: readonly Row[]): ChartRow[] {
  return rows.flatMap(({ figure, standings }) => {
    if (figure.baseline !== undefined) return [];
    const times = new Map<ContenderName, Spread>();
    for (const [name, { ratio }] of standings) {
      if (ratio !== undefined && name in COLOURS) times.set(name, better(ratio, figure));
    }
    return times.has("gateway") ? [{ name: figure.name, times }] : [];
  });
}

/** A ratio as "so many times better": above one whether more or less is better. */
export function better({ median, least, most }: Spread, figure: Pick<Figure, "better">): Spread {
  return figure.better === "more"
    ? { median, least, most }
    : { median: 1 / median, least: 1 / most, most: 1 / least };
}

const [LEFT, RIGHT, TOP, STEP, WIDTH] = [350, 90, 92, 30, 980];

/**
 * A bar for the gateway with its spread, a mark for each other proxy; on paper of its own, dark or
 * light.
 */
export function svgChart(rows: readonly ChartRow[], caption: string): string {
  const all = rows.flatMap(({ times }) => [...times.values()]);
  const least = Math.min(0.5, ...all.map((spread) => spread.least));
  const most = Math.max(2, ...all.map((spread) => spread.most));
  const x = (times: number) =>
    LEFT + (WIDTH - LEFT - RIGHT) * Math.log(times / least) / Math.log(most / least);
  const bottom = TOP + rows.length * STEP;
  const height = bottom + 44;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" ` +
    `height="${height}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">`,
    `<rect width="${WIDTH}" height="${height}" rx="8" fill="#ffffff" stroke="#d0d7de"/>`,
    text(
      20,
      30,
      "Times better than an haproxy pair that hand-shakes every connection",
      'font-size="16"',
    ),
    text(20, 52, `Medians; lines from least to most. ${caption}`, 'fill="#59636e"'),
    ...legend(rows),
    ...ticks(least, most).map((tick) => axis(x(tick), tick, bottom)),
    ...rows.map((row, index) => bar(row, TOP + index * STEP, x)),
    text(x(1), bottom + 34, "better →", 'fill="#59636e"'),
    "</svg>\n",
  ].join("\n");
}

/** The powers of two within the bounds, of which one is always there. */
export function ticks(least: number, most: number): number[] {
  const [first, last] = [Math.ceil(Math.log2(least)), Math.floor(Math.log2(most))];
  return Array.from({ length: last - first + 1 }, (_, index) => 2 ** (first + index));
}

function axis(x: number, tick: number, bottom: number): string {
  const stroke = tick === 1 ? "#1f2328" : "#d0d7de";
  const label = tick < 1 ? `1/${1 / tick}` : `${tick}`;
  return `<path d="M${at(x)} ${TOP - 4}V${bottom}" stroke="${stroke}"/>` +
    text(x, bottom + 16, label, 'text-anchor="middle" fill="#59636e"');
}

function bar({ name, times }: ChartRow, top: number, x: (times: number) => number): string {
  const middle = top + STEP / 2;
  const parts = [text(LEFT - 12, middle + 4, name, 'text-anchor="end"')];
  for (const [contender, { median, least, most }] of times) {
    const colour = COLOURS[contender] ?? "";
    if (contender === "gateway") {
      const [from, to] = [Math.min(x(1), x(median)), Math.max(x(1), x(median))];
      parts.unshift(
        `<rect x="${at(from)}" y="${top + 7}" width="${at(to - from)}" height="${STEP - 14}" ` +
          `fill="${colour}"/>`,
        `<path d="M${at(x(least))} ${middle}H${at(x(most))}" stroke="#1f2328"/>`,
      );
      parts.push(
        text(WIDTH - 20, middle + 4, median.toFixed(2), 'text-anchor="end" font-weight="600"'),
      );
    } else {
      parts.push(mark(x(median), middle, colour, `${TITLES[contender]}: ${median.toFixed(2)}`));
    }
  }
  return parts.join("\n");
}

function legend(rows: readonly ChartRow[]): string[] {
  const present = (Object.keys(COLOURS) as ContenderName[]).filter((name) =>
    rows.some(({ times }) => times.has(name))
  );
  return present.map((name, index) => {
    const [x, colour] = [LEFT + index * 145, COLOURS[name] ?? ""];
    const sign = name === "gateway"
      ? `<rect x="${x - 5}" y="67" width="10" height="10" fill="${colour}"/>`
      : mark(x, 72, colour, TITLES[name]);
    return sign + text(x + 12, 76, TITLES[name]);
  });
}

function mark(x: number, y: number, colour: string, title: string): string {
  return `<circle cx="${at(x)}" cy="${at(y)}" r="5" fill="${colour}" stroke="#ffffff">` +
    `<title>${escaped(title)}</title></circle>`;
}

function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${at(x)}" y="${at(y)}" ${attributes}>${escaped(content)}</text>`;
}

const at = (coordinate: number) => coordinate.toFixed(1);

function escaped(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
