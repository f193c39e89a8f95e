import { deepStrictEqual, match, strictEqual } from "node:assert/strict";
import { type DenyList, readDenyList, serialOf } from "./deny_list.ts";

const configMap = (data: Record<string, string> | null, name = "kube-gateway-deny") => ({
  metadata: { name, namespace: "kube-gateway" },
  data,
});

const read = (data: Record<string, string> | null): DenyList => {
  const list = readDenyList(configMap(data));
  if (list === undefined) throw new Error("it is the deny list");
  return list;
};

Deno.test("a deny list names serials, identities and pods", () => {
  const list = read({
    serials: "0A:bc\nff00, 01",
    identities: "spiffe://td/ns/shop/sa/web\n",
    pods: "0b1c5a1e-0f7e-4b1d-9a68-2f6a0e0a0001",
  });
  deepStrictEqual([...list.serials], ["abc", "ff00", "1"]);
  deepStrictEqual([...list.identities], ["spiffe://td/ns/shop/sa/web"]);
  strictEqual(list.pods.size, 1);
  deepStrictEqual(list.problems, []);
});

Deno.test("what is wrong denies nobody, is told, and costs the rest nothing", () => {
  const list = read({ serials: "xyz 1f", identities: "shop/web", uids: "u", pods: "a/b" });
  deepStrictEqual([...list.serials], ["1f"]);
  strictEqual(list.identities.size + list.pods.size, 0);
  match(list.problems.join("; "), /serials: "xyz" is none; identities: "shop\/web" is none/);
  match(list.problems.join("; "), /"uids" is none of serials, identities and pods/);
  match(read({ pods: "x ".repeat(10_001) }).problems[0] ?? "", /the first 10000 count/);
});

Deno.test("a text that would match nobody is told, not taken", () => {
  for (
    const text of [
      "spiffe://td/ns/shop/sa/web/",
      "spiffe://td/ns/shop/sa/Web",
      "spiffe://td/ns/shop/sa/%77eb",
      "spiffe://TD/ns/shop/sa/web",
      "spiffe://td/ns/shop",
      "spiffe:///ns/shop/sa/web",
      "spiffe://td/ns/shop/sa/*",
    ]
  ) {
    const { identities, problems } = read({ identities: text });
    strictEqual(identities.size, 0, text);
    deepStrictEqual(problems, [`identities: "${text}" is none`]);
  }
});

Deno.test("what is not read is told", () => {
  const list = readDenyList({ ...configMap(null), binaryData: { serials: "MWY=" } });
  deepStrictEqual(list?.problems, ['"serials" is binaryData, which is not read: write it as data']);
});

Deno.test("a pod's UID counts in capitals, too", () => {
  const { pods } = read({ pods: "0B1C5A1E-0F7E-4B1D-9A68-2F6A0E0A0001 Static-Pod" });
  deepStrictEqual([...pods], ["0b1c5a1e-0f7e-4b1d-9a68-2f6a0e0a0001", "Static-Pod"]);
});

Deno.test("another ConfigMap is none of ours, and an empty one denies nobody", () => {
  strictEqual(readDenyList(configMap({ serials: "1" }, "other")), undefined);
  strictEqual(
    readDenyList({ metadata: { name: "kube-gateway-deny", namespace: "shop" } }),
    undefined,
  );
  strictEqual(read(null).serials.size, 0);
});

Deno.test("a serial number is the same however it is written", () => {
  strictEqual(serialOf("00:0F:A0"), "fa0");
  strictEqual(serialOf("0"), "0");
  strictEqual(serialOf(""), undefined);
  strictEqual(serialOf("f".repeat(41)), undefined);
});
