import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { RequestOptions } from "../kubernetes/api.ts";
import { slicesOf } from "./registry.ts";
import { presentSlice } from "./registry_changes.ts";
import { SliceWriter } from "./slice_writer.ts";

const NAME = "registry-n1-ipv4-0";

Deno.test("what a slice was before our last 16 writes is remembered as ours, and no more than that", async () => {
  const { writer, written, write } = scene();
  for (let pods = 1; pods <= 18; pods++) await write(pods);
  strictEqual(written.length, 18);
  const observed = [undefined, ...written.map(presentSlice)];
  deepStrictEqual(
    observed.map((slice) => writer.isFormer(NAME, slice)),
    [
      ...[false, false], // nothing, and one pod: too long ago
      ...Array(16).fill(true),
      false, // what is there now
    ],
  );
  strictEqual(writer.isFormer("registry-n1-ipv6-0", undefined), false, "another slice's");
});

Deno.test("who observes what is wanted has caught up: what was before is others' from then on", async () => {
  const { writer, written, write } = scene();
  await write(1);
  const wanted = await write(2);
  const [former, ...now] = written.map(presentSlice);
  strictEqual(writer.isFormer(NAME, former), true);
  const observed = new Map(now.map((slice) => [NAME, slice]));
  deepStrictEqual(writer.differences(wanted, observed), []);
  strictEqual(writer.isFormer(NAME, former), false);
});

/** A writer, and an API server that takes everything. */
function scene() {
  const written: unknown[] = [];
  const request = (method: string, path: string, { body }: RequestOptions = {}) => {
    if (path.startsWith("/api/v1/nodes/")) return Promise.resolve({ metadata: { uid: "uid-1" } });
    if (method !== "GET") written.push(body);
    return Promise.resolve({ metadata: { resourceVersion: "1" }, items: [] });
  };
  const writer = new SliceWriter({ request }, "n1", new AbortController().signal);
  const write = async (pods: number) => {
    const wanted = { slices: slicesOf("n1", entries(pods)), isLast: false };
    await writer.bringAbout(wanted);
    return wanted;
  };
  return { writer, written, write };
}

function entries(count: number) {
  return Array.from({ length: count }, (_, index) => ({
    uid: `uid-${index}`,
    namespace: "default",
    name: `pod-${index}`,
    identity: "spiffe://cluster.local/ns/default/sa/default",
    node: "n1",
    addresses: [`10.1.0.${index + 1}`],
    ready: true,
  }));
}
