/** With the kernel's own maps (root). */
import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { configure, reset } from "@logtape/logtape";
import { formatAddress } from "../../addresses.ts";
import { parseCidr } from "../../cidr.ts";
import { NOBODY_DENIED } from "../../cluster/deny_list.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import type { Service } from "../../cluster/services.ts";
import { encodeRange, encodeRefusal } from "../../kernel/maps.ts";
import { withMaps } from "../../kernel/maps_for_tests.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { PeerIndex } from "../rules/peer_index.ts";
import { Routing } from "./routing.ts";
import type { StrictEgressOptions } from "./strict_egress.ts";
import { ROOT } from "../../root_for_tests.ts";

const INSIDE = ["10.0.0.0/8", "fd00::/8"];
const OPTIONS: StrictEgressOptions = {
  inside: INSIDE.map(parseCidr).filter((range) => range !== undefined),
  exceptions: [],
};
const ALWAYS = { "fe80::/10": "but for the rules" };

Deno.test(
  "until everything has been read once, what is inside the cluster is refused, then no longer",
  ROOT,
  () =>
    withMaps((kernel) => {
      const first = routing(kernel);
      const nothing = { "10.0.0.0/8": "but for the rules", "fd00::/8": "but for the rules" };
      deepStrictEqual(refused(kernel), { ...nothing, ...ALWAYS });
      first.apply(cluster({ complete: false }));
      deepStrictEqual(refused(kernel), { ...nothing, ...ALWAYS });
      const [problem] = first.problems();
      match(problem?.message ?? "", /not been read whole/);
      deepStrictEqual(problem?.ranges, INSIDE);
      routing(kernel); // an agent that has died before it had read everything leaves the next one no wiser
      deepStrictEqual(refused(kernel), { ...nothing, ...ALWAYS });
      first.apply(cluster());
      deepStrictEqual([refused(kernel), first.problems()], [ALWAYS, []]);
      const next = routing(kernel);
      next.apply(cluster({ complete: false }));
      deepStrictEqual(refused(kernel), ALWAYS, "what the maps say may be old, but is whole");
    }),
);

Deno.test(
  "that nothing is known yet is said once, and once that it is over, with nothing else to look for",
  ROOT,
  () =>
    withMaps(async (kernel) => {
      const said: string[] = [];
      await configure({
        sinks: { said: ({ level, message }) => void said.push(`${level}: ${message.join("")}`) },
        loggers: [
          { category: "kube-gateway", sinks: ["said"] },
          { category: ["logtape", "meta"], lowestLevel: "error" },
        ],
        reset: true,
      });
      try {
        const first = routing(kernel);
        for (const complete of [false, false, true, true]) first.apply(cluster({ complete }));
        routing(kernel).apply(cluster());
        strictEqual(said.length, 2, said.join("\n"));
        match(said[0] ?? "", /^info: .*not been read whole .* are refused until then, but/);
        match(said[1] ?? "", /^info: .*have been read whole: no connection is refused for that$/);
        strictEqual(/problems/.test(said.join()), false);
      } finally {
        await reset();
      }
    }),
);

Deno.test(
  "what an earlier agent has refused stays refused until the next one knows everything",
  ROOT,
  () =>
    withMaps((kernel) => {
      const excess = registry("n2", 4_100);
      routing(kernel).apply(cluster({ registry: [excess] }));
      const before = refused(kernel);
      strictEqual(Object.keys(before).length > 1, true);
      const next = routing(kernel);
      next.apply(cluster({ complete: false }));
      deepStrictEqual(refused(kernel), before);
      next.apply(cluster());
      deepStrictEqual(refused(kernel), ALWAYS);
    }),
);

Deno.test(
  "a node's registry of 262,144 entries costs that node, and no other",
  ROOT,
  () =>
    withMaps((kernel) => {
      const all = routing(kernel);
      const slices = Array.from({ length: 2_622 }, (_, slice) => registry("evil", 100, slice));
      const good = registry("good", 10, 0, "192.168.0");
      all.apply(cluster({ registry: slices }));
      all.apply(cluster({ registry: [...slices, good] }));
      strictEqual(kernel.peers.keys().length, 4_096 + 10);
      const ranges = Object.entries(refused(kernel)).filter(([range]) => range.startsWith("10."));
      ok(ranges.length > 0 && ranges.length <= 256, `${ranges.length} ranges`);
      strictEqual(ranges.every(([, how]) => how === "but for the rules"), true);
      deepStrictEqual(all.problems().map(({ where }) => where), ["registry of evil"]);
      all.apply(cluster({ registry: [good] }));
      deepStrictEqual([kernel.peers.keys().length, refused(kernel)], [10, ALWAYS]);
    }),
);

Deno.test(
  "what does not find room one by one is refused in the cluster's ranges",
  ROOT,
  () =>
    withMaps((kernel) => {
      const all = routing(kernel);
      // 600 nodes, each with 256 entries too many.
      const parts = Array.from({ length: 600 }, (_, node) => ({
        ...registry(`n${node}`, 0),
        refused: [{ slice: "s", reason: "no identity", addresses: addressesOf(node) }],
      }));
      all.apply(cluster({ registry: parts }));
      const everything = { "10.0.0.0/8": "but for the rules", "fd00::/8": "but for the rules" };
      deepStrictEqual(refused(kernel), { ...everything, ...ALWAYS });
      match(all.problems()[0]?.message ?? "", /inside the cluster is refused/);
      strictEqual(all.problems().length, 201, "the first ones");
      all.apply(cluster({ registry: parts.slice(0, 10) }));
      strictEqual(Object.keys(refused(kernel)).length, 1 + 10 * 256);
    }),
);

Deno.test(
  "strict egress takes link-local addresses for the cluster's, and its rules survive too many ports",
  ROOT,
  () =>
    withMaps((kernel) => {
      const all = routing(kernel);
      all.apply(cluster());
      const ranges = () => kernel.egressRules.keys().map(rangeAt).sort();
      deepStrictEqual(ranges(), ["10.0.0.0/8", "fd00::/8", "fe80::/10"]);
      const ports = Array.from({ length: 17 }, (_, port) => ({ name: "", port: port + 1 }));
      const apiServer = { ...SERVICE, ports };
      all.apply(cluster({ services: new Map([["default/kubernetes", apiServer]]) }));
      deepStrictEqual(ranges(), ["10.0.0.0/8", "fd00::/8", "fe80::/10"]);
      match(all.problems()[0]?.message ?? "", /more than 16 ports/);
      all.apply(cluster({ services: new Map([["default/kubernetes", SERVICE]]) }));
      deepStrictEqual(ranges(), ["10.0.0.0/8", "10.96.0.1/32", "fd00::/8", "fe80::/10"]);
      deepStrictEqual(all.problems(), []);
    }),
);

Deno.test(
  "an audit repairs each map, and says what of which kind",
  ROOT,
  () =>
    withMaps((kernel) => {
      const all = routing(kernel);
      all.apply(cluster({ registry: [registry("a", 5)] }));
      const fine = {
        ...{ peer: 0, identity: 0, slice: 0, frontend: 0, backend: 0 },
        ...{ egress_rule: 0, refused_range: 0 },
      };
      deepStrictEqual(all.audit(true), fine);
      const [linkLocal, range] = [key("fe80::/10"), key("10.0.0.0/8")];
      kernel.refusedRanges.delete(linkLocal);
      kernel.refusedRanges.set(range, encodeRefusal({ byRules: false }));
      kernel.egressRules.delete(range);
      kernel.egressRules.set(linkLocal, new Uint8Array(36).fill(1));
      const [peer] = kernel.peers.keys();
      if (peer !== undefined) kernel.peers.delete(peer);
      deepStrictEqual(all.audit(true), { ...fine, peer: 1, egress_rule: 2, refused_range: 2 });
      deepStrictEqual(all.audit(true), fine);
      deepStrictEqual(refused(kernel), ALWAYS);
      strictEqual(kernel.peers.keys().length, 5);
    }),
);

const SERVICE: Service = {
  namespace: "default",
  name: "kubernetes",
  created: 0,
  clusterIps: ["10.96.0.1"],
  ports: [{ name: "https", port: 443 }],
  affinitySeconds: 0,
  localOnly: false,
};

function routing(redirector: Redirector): Routing {
  const index = new PeerIndex("n1");
  return new Routing("n1", OPTIONS, {
    redirector,
    workers: { peersChanged: () => {}, peersLeaving: () => {} },
    index,
  });
}

function cluster(change: Partial<ClusterObjects> = {}): ClusterObjects {
  return {
    pods: [],
    namespaces: new Map(),
    hasNamespaces: true,
    runtimeHandlers: new Map(),
    registry: [],
    services: new Map(),
    endpoints: new Map(),
    nodes: new Map(),
    denied: NOBODY_DENIED,
    unread: [],
    complete: true,
    ...change,
  };
}

/** A slice of a node's registry. */
function registry(node: string, count: number, index = 0, network?: string) {
  const slice = `kube-gateway/${node}-${String(index).padStart(5, "0")}`;
  return {
    slice,
    node,
    peers: Array.from({ length: count }, (_, pod) => {
      const number = index * 100 + pod;
      return {
        address: network === undefined
          ? `10.${1 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`
          : `${network}.${pod}`,
        identity: "spiffe://td/ns/a/sa/b",
        uid: `${node}-${number}`,
        pod: "a/b",
        node,
        slice,
        ready: true,
      };
    }),
    refused: [],
  };
}

/** Far from each other: no range holds two. */
function addressesOf(node: number): string[] {
  return Array.from({ length: 256 }, (_, pod) => `10.${pod}.${node >> 8}.${node & 255}`);
}

function key(range: string): Uint8Array<ArrayBuffer> {
  const cidr = parseCidr(range);
  ok(cidr);
  return encodeRange(Uint8Array.fromHex(cidr.first.toString(16).padStart(32, "0")), cidr.prefix);
}

function rangeAt(key: Uint8Array<ArrayBuffer>): string {
  const address = formatAddress(key.slice(4));
  const prefix = new DataView(key.buffer).getUint32(0, true);
  return `${address}/${address.includes(":") ? prefix : prefix - 96}`;
}

/** What the kernel refuses. */
function refused({ refusedRanges }: Redirector): Record<string, string> {
  return Object.fromEntries(
    refusedRanges.keys().map((key) => [
      rangeAt(key),
      refusedRanges.get(key)?.[0] === 1 ? "but for the rules" : "all of it",
    ]),
  );
}
