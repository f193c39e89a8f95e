import assert from "node:assert/strict";
import type { Figure } from "./model.ts";
import { markdownTable, short, spreadText } from "./table.ts";

Deno.test("three digits, as people write them", () => {
  const written: [number, string][] = [
    [93_612.4, "93,600"],
    [123.4, "123"],
    [99.96, "100"],
    [15, "15"],
    [8.704, "8.7"],
    [0.6251, "0.625"],
    [0, "0"],
    [-3.21, "-3.21"],
  ];
  for (const [value, text] of written) assert.equal(short(value), text);
});

Deno.test("a ratio with its spread", () => {
  assert.equal(spreadText({ median: 1.549, least: 0.5, most: 12.3 }), "1.55 (0.50 to 12)");
});

const FIGURE: Figure = { key: "rate", name: "bulk", unit: "Gbit/s", better: "more" };
const spread = (median: number) => ({ median, least: median - 0.5, most: median + 0.5 });

Deno.test("a row for each figure, aligned", () => {
  const standings = new Map(
    [
      ["direct", { value: 16, ratio: spread(3.2) }],
      ["gateway", { value: 8.7, ratio: spread(1.74) }],
      ["haproxy", { value: 5, ratio: spread(1) }],
      ["nginx", { value: 4, ratio: spread(0.8) }],
      ["stunnel", { note: "failed: a | b\nand more" }],
    ] as const,
  );
  assert.equal(
    markdownTable([{ figure: FIGURE, standings }], [
      "direct",
      "gateway",
      "haproxy",
      "nginx",
      "stunnel",
    ]),
    `
| measure      | direct | kube-gateway | haproxy | nginx    | stunnel       | kube-gateway to haproxy |
| ------------ | ------ | ------------ | ------- | -------- | ------------- | ----------------------- |
| bulk, Gbit/s | 16     | 8.7          | 5       | 4 (0.80) | failed: a / b | 1.74 (1.24 to 2.24)     |
`.trim(),
  );
});

Deno.test("another baseline is named, and a failure after some rounds is told", () => {
  const standings = new Map(
    [
      ["gateway", { value: 15, ratio: spread(1.05), note: "failed: no answer" }],
    ] as const,
  );
  const table = markdownTable([{ figure: { ...FIGURE, baseline: "direct" }, standings }], [
    "gateway",
    "nginx",
  ]);
  assert.match(
    table,
    /\| 15; later failed: no answer \| – +\| 1\.05 \(0\.55 to 1\.55\) to direct \|/,
  );
});
