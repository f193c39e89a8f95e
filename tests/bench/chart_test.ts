import assert from "node:assert/strict";
import { better, chartRows, svgChart, ticks } from "./chart.ts";
import type { Figure } from "./model.ts";
import type { Row } from "./table.ts";

const FIGURE: Figure = { key: "cpu", name: "CPU <per GB>", unit: "s", better: "less" };
const HALF = { median: 0.5, least: 0.4, most: 0.8 };

const row = (figure: Figure): Row => ({
  figure,
  standings: new Map([
    ["direct", { value: 1, ratio: HALF }],
    ["gateway", { value: 1, ratio: HALF }],
    ["nginx", { value: 1, ratio: HALF }],
    ["stunnel", { note: "failed" }],
  ]),
});

Deno.test("better is above one, whether more or less of it is better", () => {
  assert.deepEqual(better(HALF, { better: "less" }), { median: 2, least: 1.25, most: 2.5 });
  assert.deepEqual(better(HALF, { better: "more" }), HALF);
});

Deno.test("only proxies are drawn, and only what has a ratio to haproxy", () => {
  const rows = chartRows([
    row(FIGURE),
    row({ ...FIGURE, baseline: "direct" }),
    { figure: FIGURE, standings: new Map([["gateway", { value: 1 }]]) },
  ]);
  assert.deepEqual(rows.map(({ times }) => [...times.keys()]), [["gateway", "nginx"]]);
});

Deno.test("the axis has the powers of two within the bounds", () => {
  assert.deepEqual(ticks(0.3, 5), [0.5, 1, 2, 4]);
  assert.deepEqual(ticks(0.5, 2), [0.5, 1, 2]);
});

Deno.test("the chart has its own background, and names cannot break it", () => {
  const svg = svgChart(chartRows([row(FIGURE)]), 'a & "b"');
  assert.match(svg, /^<svg [^>]+>\n<rect [^>]+fill="#ffffff"/);
  assert.match(svg, /CPU &lt;per GB>/);
  assert.match(svg, /a &amp; &quot;b&quot;/);
  assert.match(svg, /<title>nginx: 2\.00<\/title>/);
  assert.doesNotMatch(svg, /NaN|undefined|Infinity|stunnel/);
  assert.match(svg, /<\/svg>\n$/);
});

Deno.test("a chart of nothing is a chart", () => {
  assert.doesNotMatch(svgChart([], ""), /NaN|Infinity/);
});
