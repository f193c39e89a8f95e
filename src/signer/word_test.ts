import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { type SignerWord, WORD_ANNOTATION } from "../identity/signer_word.ts";
import { BundleStore } from "./bundle_store.ts";
import { MemoryCluster } from "./cluster_for_tests.ts";
import { Word } from "./word.ts";

const BUNDLE = "/api/v1/namespaces/kube-gateway/configmaps/kube-gateway-trust-bundle";

Deno.test("a word is said when it is time, or when it is another", async () => {
  const said: (string | undefined)[] = [];
  const store = {
    say: ({ problem }: SignerWord) => {
      said.push(problem);
      return said.length === 2 ? Promise.reject(new Error("away")) : Promise.resolve();
    },
  };
  const word = new Word(store);
  for (const problem of [undefined, undefined, "x", "x", "x", undefined]) {
    await word.say(problem, 1_000);
  }
  deepStrictEqual(said, [undefined, "x", "x", undefined], "what failed is said again");
  const hasty = new Word(store, 0);
  for (const problem of ["y", "y"]) await hasty.say(problem, 1_000);
  deepStrictEqual(said.slice(4), ["y", "y"]);
});

Deno.test("a word is good until two are due, and is said anew when the clock was put back", async () => {
  const said: SignerWord[] = [];
  const word = new Word({ say: (each) => Promise.resolve(void said.push(each)) });
  await word.say(undefined, 1_000);
  const { now } = Date;
  try {
    for (const offset of [59_000, 60_000, -3_600_000]) {
      Date.now = () => now() + offset;
      await word.say(undefined, 1_000);
    }
  } finally {
    Date.now = now;
  }
  deepStrictEqual(said.map(({ at, until }) => Date.parse(until) - Date.parse(at)), [
    120_000,
    120_000,
    120_000,
  ]);
});

Deno.test("it stands beside the roots, and changes nothing else; without a bundle nothing is written", async () => {
  const cluster = new MemoryCluster();
  const store = new BundleStore(cluster, "kube-gateway");
  const word = { at: "2026-01-01T00:00:00Z", until: "2026-01-01T00:01:00Z", problem: "x" };
  await store.say(word, 1_000);
  strictEqual(cluster.objects.size, 0);
  const data = { "ca-bundle.pem": "no PEM at all", other: "kept" };
  cluster.seed(BUNDLE, { metadata: { annotations: { mine: "kept" } }, data });
  await store.say(word, 1_000);
  const written = cluster.objects.get(BUNDLE);
  deepStrictEqual(written?.data, data);
  const { annotations } = written?.metadata as unknown as { annotations: Record<string, string> };
  deepStrictEqual(annotations, { mine: "kept", [WORD_ANNOTATION]: JSON.stringify(word) });
});
