import { deepStrictEqual, match, rejects, strictEqual, throws } from "node:assert/strict";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import type { RegistryEntry } from "../cluster/registry.ts";
import type { Cluster } from "../cluster/cluster.ts";
import { openClusterDirectory } from "./directory.ts";
import type { ClusterObjects } from "../cluster/cluster.ts";

const pod = (name: string, extra = "") =>
  `kind: Pod\nmetadata:\n  name: ${name}\n  namespace: shop\n  uid: uid-${name}\n${extra}`;

const ENTRY: RegistryEntry = {
  uid: "uid-web",
  namespace: "shop",
  name: "web",
  identity: "spiffe://td/ns/shop/sa/web",
  node: "n1",
  addresses: ["10.0.0.1"],
  ready: true,
};

Deno.test("the first state is everything in the directory and its registry folder, and nothing else", async () => {
  await withDirectory(async (d) => {
    await Deno.mkdir(`${d}/ca`);
    await Deno.mkdir(`${d}/registry`);
    await Deno.mkdir(`${d}/folder.yaml`);
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await Deno.writeTextFile(`${d}/b.yml`, `${pod("b1")}---\n${pod("b2")}`);
    await Deno.writeTextFile(
      `${d}/c.json`,
      JSON.stringify({ kind: "Pod", metadata: { name: "c", uid: "uid-c" } }),
    );
    await Deno.writeTextFile(`${d}/registry/r.yaml`, pod("r"));
    for (const ignored of [".hidden.yaml", "a.yaml~", "a.yaml.tmp", "ca/x.yaml", "notes.txt"]) {
      await Deno.writeTextFile(`${d}/${ignored}`, pod("ignored"));
    }
    const seen = await follow(d);
    deepStrictEqual(seen.names(), ["a", "b1", "b2", "c", "r"]);
    strictEqual(seen.last().complete, true);
    strictEqual(seen.states.length, 1);
    deepStrictEqual(seen.cluster.problems(), []);
    await seen.cluster.close();
  });
});

Deno.test("changes arrive within a moment, and an empty directory is a state", async () => {
  await withDirectory(async (d) => {
    const seen = await follow(d);
    deepStrictEqual([seen.states.length, seen.names(), seen.last().complete], [1, [], true]);
    const start = performance.now();
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await seen.until(() => seen.names().join() === "a");
    strictEqual(performance.now() - start < 1000, true, "by report, not by the fallback");
    await Deno.writeTextFile(`${d}/a.yaml`, pod("b"));
    await seen.until(() => seen.names().join() === "b");
    await Deno.rename(`${d}/a.yaml`, `${d}/c.yaml`);
    await Deno.mkdir(`${d}/registry`);
    await Deno.writeTextFile(`${d}/registry/n2.yaml`, pod("r"));
    await seen.until(() => seen.names().join() === "b,r");
    await Deno.remove(`${d}/c.yaml`);
    await seen.until(() => seen.names().join() === "r");
    await seen.cluster.close();
  });
});

Deno.test("writes of the same size in the same instant are not missed", async () => {
  await withDirectory(async (d) => {
    const seen = await follow(d);
    for (let i = 0; i < 30; i++) {
      await Deno.writeTextFile(`${d}/a.yaml`, pod(`a${i % 2}`));
      await Deno.writeTextFile(`${d}/a.yaml`, pod(`b${i % 2}`));
      await new Promise((resolve) => setTimeout(resolve, i));
      await Deno.writeTextFile(`${d}/a.yaml`, pod(`c${i % 2}`));
      await seen.until(() => seen.names().join() === `c${i % 2}`);
    }
    await seen.cluster.close();
  });
});

Deno.test("without reports of changes the fallback finds them", async () => {
  await withDirectory(async (d) => {
    const watchFs = Deno.watchFs;
    let seen;
    try {
      Deno.watchFs = () => {
        throw new Error("no inotify watches left");
      };
      seen = await follow(d);
    } finally {
      Deno.watchFs = watchFs;
    }
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await seen.until(() => seen.names().join() === "a");
    await seen.cluster.close();
  });
});

Deno.test("a burst of files is few changes, and reading causes none", async () => {
  await withDirectory(async (d) => {
    const seen = await follow(d);
    for (let i = 0; i < 60; i++) {
      await Deno.writeTextFile(`${d}/${i}.yaml`, pod(`p${i}`));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await seen.until(() => seen.names().length === 60);
    strictEqual(seen.states.length <= 15, true, `${seen.states.length} states`);

    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = seen.states.length;
    const readDir = Deno.readDir;
    let listings = 0;
    try {
      Deno.readDir = (path) => {
        listings++;
        return readDir(path);
      };
      await new Promise((resolve) => setTimeout(resolve, 500));
    } finally {
      Deno.readDir = readDir;
    }
    strictEqual(listings <= 2, true, `${listings} listings of two folders while nothing changed`);
    strictEqual(seen.states.length, before);
    await seen.cluster.close();
  });
});

Deno.test("a broken file keeps its last good objects and is named once, with its line", async () => {
  await withDirectory(async (d) => {
    const logs = await captureLogs();
    await Deno.writeTextFile(`${d}/good.yaml`, pod("good"));
    await Deno.writeTextFile(`${d}/objects.yaml`, pod("web"));
    const seen = await follow(d);
    await Deno.writeTextFile(`${d}/objects.yaml`, `${pod("web")}---\n${pod("Bad{x}")}`);
    await seen.until(() => seen.cluster.problems().length === 1);
    await Deno.writeTextFile(`${d}/good.yaml`, pod("better"));
    await seen.until(() => seen.names().includes("better"));
    deepStrictEqual(seen.names(), ["better", "web"]);
    strictEqual(seen.last().complete, true, "it has been read once");
    const [problem] = seen.cluster.problems();
    deepStrictEqual([problem?.file, problem?.line], ["objects.yaml", 9]);
    strictEqual(logs.length, 1, logs.join("\n"));
    match(logs[0] ?? "", /^objects\.yaml:9: .*"Bad\{x\}"/);

    // Another mistake is another warning; so is the same one in a changed file.
    await Deno.writeTextFile(`${d}/objects.yaml`, "kind: Pod\nmetadata: [\n");
    await seen.until(() => logs.length === 2);
    await Deno.writeTextFile(`${d}/objects.yaml`, "kind: Pod\nmetadata: [ \n");
    await seen.until(() => logs.length === 3);
    deepStrictEqual(seen.names(), ["better", "web"]);

    await Deno.writeTextFile(`${d}/objects.yaml`, pod("repaired"));
    await seen.until(() => seen.names().includes("repaired"));
    deepStrictEqual([seen.names(), seen.cluster.problems()], [["better", "repaired"], []]);
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("a file that was never good makes the state incomplete, so that nothing is pruned", async () => {
  await withDirectory(async (d) => {
    await captureLogs();
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await Deno.writeTextFile(`${d}/b.yaml`, "[");
    const seen = await follow(d);
    deepStrictEqual([seen.names(), seen.last().complete], [["a"], false]);
    await Deno.writeTextFile(`${d}/b.yaml`, pod("b"));
    await seen.until(() => seen.last().complete);
    deepStrictEqual(seen.names(), ["a", "b"]);
    await Deno.writeTextFile(`${d}/c.yaml`, "[");
    await seen.until(() => !seen.last().complete);
    await Deno.remove(`${d}/c.yaml`);
    await seen.until(() => seen.last().complete);
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("a directory that cannot be listed any more deletes nothing", async () => {
  await withDirectory(async (d) => {
    await captureLogs();
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    const seen = await follow(d);
    await Deno.rename(d, `${d}-away`);
    await seen.until(() => seen.cluster.problems().length === 1);
    deepStrictEqual(seen.names(), ["a"]);
    strictEqual(seen.states.length, 1);
    await Deno.rename(`${d}-away`, d);
    await Deno.writeTextFile(`${d}/b.yaml`, pod("b"));
    await seen.until(() => seen.names().join() === "a,b");
    deepStrictEqual(seen.cluster.problems(), []);
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("files that are too large or no text are refused, until they are not", async () => {
  await withDirectory(async (d) => {
    const logs = await captureLogs();
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    const seen = await follow(d);
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a") + "#".repeat(8 * 1024 * 1024));
    await seen.until(() => logs.length === 1);
    match(logs[0] ?? "", /a\.yaml: larger than/);
    deepStrictEqual(seen.names(), ["a"]);
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a")); // what it was before
    await seen.until(() => seen.cluster.problems().length === 0);
    await Deno.writeFile(`${d}/a.yaml`, Uint8Array.of(0x6b, 0xff));
    await seen.until(() => logs.length === 2);
    match(logs[1] ?? "", /a\.yaml: it is not UTF-8/);
    deepStrictEqual(seen.names(), ["a"]);
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("of the same object in two files the later file's is used, and said", async () => {
  await withDirectory(async (d) => {
    const logs = await captureLogs();
    await Deno.writeTextFile(`${d}/a.yaml`, `# comment\n${pod("web", "spec: {nodeName: old}")}`);
    await Deno.writeTextFile(`${d}/b.yaml`, pod("web", "spec: {nodeName: new}"));
    await Deno.writeTextFile(`${d}/c.yaml`, pod("x"));
    await Deno.writeTextFile(`${d}/d.yaml`, pod("y").replace("uid-y", "uid-x"));
    const seen = await follow(d);
    deepStrictEqual(seen.last().pods.map((p) => [p.name, p.nodeName]), [["web", "new"], ["y", ""]]);
    deepStrictEqual(seen.cluster.problems().map((p) => [p.file, p.line]), [
      ["a.yaml", 2],
      ["c.yaml", 1],
    ]);
    match(logs[0] ?? "", /^a\.yaml:2: Pod shop\/web stands at b\.yaml:1 again/);
    await Deno.remove(`${d}/b.yaml`);
    await seen.until(() => seen.last().pods.some((p) => p.nodeName === "old"));
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("a handler that throws does not end the following", async () => {
  await withDirectory(async (d) => {
    const logs = await captureLogs();
    const cluster = openClusterDirectory({ directory: d, nodeName: "n1", trustDomain: "td" });
    let calls = 0;
    await cluster.start(() => {
      if (++calls === 2) throw new Error("planted");
    });
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await until(() => calls === 2);
    await Deno.writeTextFile(`${d}/a.yaml`, pod("b"));
    await until(() => calls === 3);
    match(logs.join(), /planted/);
    await cluster.close();
    await reset();
  });
});

Deno.test("a directory that is not there is an error at the start", async () => {
  await captureLogs();
  const cluster = openClusterDirectory({
    directory: "/nonexistent/cluster",
    nodeName: "n1",
    trustDomain: "td",
  });
  await rejects(cluster.start(() => {}), /Cannot start with \/nonexistent\/cluster: .*listed/);
  await reset();
});

Deno.test("after close nothing more is reported", async () => {
  await withDirectory(async (d) => {
    const seen = await follow(d);
    await Deno.writeTextFile(`${d}/a.yaml`, pod("a"));
    await seen.cluster.close();
    const before = seen.states.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    strictEqual(seen.states.length, before);
  });
});

Deno.test("what one agent publishes another reads, whole and from its own file", async () => {
  await withDirectory(async (d) => {
    const [one, two] = [await follow(d, "n1"), await follow(d, "n2")];
    await one.cluster.publish([ENTRY]);
    await two.cluster.publish([{ ...ENTRY, node: "n2", uid: "uid-2", addresses: ["fd00::2"] }]);
    for (const seen of [one, two]) {
      await seen.until(() => seen.last().registry.length === 4); // two families each
      const { registry } = seen.last();
      deepStrictEqual(
        registry.flatMap(({ peers }) => peers).map(({ node, uid }) => [node, uid]).sort(),
        [["n1", "uid-web"], ["n2", "uid-2"]],
      );
      deepStrictEqual(registry.flatMap(({ refused }) => refused), []);
    }
    deepStrictEqual(await namesIn(`${d}/registry`), ["n1.yaml", "n2.yaml"]);
    await one.cluster.publish([]);
    await two.until(() =>
      two.last().registry.filter(({ peers }) => peers.length === 0).length === 3
    );
    deepStrictEqual(two.last().registry.flatMap(({ refused }) => refused), []);
    await one.cluster.withdraw();
    deepStrictEqual(await namesIn(`${d}/registry`), ["n2.yaml"]);
    await two.until(() => two.last().registry.length === 2);
    await one.cluster.publish([]);
    deepStrictEqual(await namesIn(`${d}/registry`), ["n2.yaml"]);
    await one.cluster.withdraw();
    await one.cluster.close();
    await two.cluster.close();
  });
});

Deno.test("publishing writes on change only, heals the file, and the last of several stays", async () => {
  await withDirectory(async (d) => {
    const cluster = openClusterDirectory({ directory: d, nodeName: "n1", trustDomain: "td" });
    const file = `${d}/registry/n1.yaml`;
    await cluster.publish([ENTRY]);
    const before = await Deno.stat(file);
    await cluster.publish([ENTRY]);
    strictEqual((await Deno.stat(file)).ino, before.ino, "not written again");
    const text = await Deno.readTextFile(file);
    await Deno.writeTextFile(file, "spoilt");
    await cluster.publish([ENTRY]);
    strictEqual(await Deno.readTextFile(file), text);

    const entry = (i: number) => ({ ...ENTRY, uid: `uid-${i}` });
    await Promise.all(Array.from({ length: 20 }, (_, i) => cluster.publish([entry(i)])));
    match(await Deno.readTextFile(file), /uid-19/);

    const bad = cluster.publish([{ ...ENTRY, node: "n2" }]);
    const good = cluster.publish([ENTRY]);
    await rejects(bad, TypeError);
    await good;
    strictEqual(await Deno.readTextFile(file), text, "a failed call does not block the next");
    await cluster.close();
  });
});

Deno.test("a reader never sees a part of what is published", async () => {
  await withDirectory(async (d) => {
    const logs = await captureLogs();
    const seen = await follow(d, "n2");
    const writer = openClusterDirectory({ directory: d, nodeName: "n1", trustDomain: "td" });
    const many = Array.from({ length: 100 }, (_, i) => ({
      ...ENTRY,
      uid: `uid-${i}`,
      name: `web-${i}`,
      addresses: [`10.0.1.${i}`],
    }));
    for (let i = 0; i < 20; i++) {
      await writer.publish(i % 2 ? many : many.slice(0, 50));
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    await seen.until(() => seen.last().registry[0]?.peers.length === 100);
    for (const { registry } of seen.states) {
      if (registry[0]) strictEqual([50, 100].includes(registry[0].peers.length), true);
    }
    deepStrictEqual(logs, []);
    await writer.close();
    await seen.cluster.close();
    await reset();
  });
});

Deno.test("a node name that is no file name is refused", () => {
  for (const nodeName of ["", "..", "../x", "a/b", ".hidden", "A", "a".repeat(64)]) {
    throws(
      () => openClusterDirectory({ directory: "/tmp", nodeName, trustDomain: "td" }),
      TypeError,
    );
  }
});

interface Following {
  cluster: Cluster;
  states: ClusterObjects[];
  last(): ClusterObjects;
  /** The pods of the last state. */
  names(): string[];
  until(condition: () => boolean): Promise<void>;
}

async function follow(directory: string, nodeName = "n1"): Promise<Following> {
  const cluster = openClusterDirectory({ directory, nodeName, trustDomain: "td" });
  const states: ClusterObjects[] = [];
  const last = () => {
    const state = states.at(-1);
    if (state === undefined) throw new Error("there has been no state yet");
    return state;
  };
  await cluster.start((objects) => states.push(objects));
  strictEqual(states.length, 1, "the first state comes before start resolves");
  return { cluster, states, last, names: () => last().pods.map(({ name }) => name).sort(), until };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`not within 5 s: ${condition}`);
}

/** The texts of all log records from now on, until `reset`. */
async function captureLogs(): Promise<string[]> {
  const texts: string[] = [];
  const sink = (record: LogRecord) => void texts.push(record.message.join(""));
  await configure({
    reset: true,
    sinks: { sink },
    loggers: [
      { category: "kube-gateway", sinks: ["sink"], lowestLevel: "warning" },
      { category: ["logtape", "meta"], sinks: [] },
    ],
  });
  return texts;
}

async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir();
  try {
    await Deno.mkdir(`${parent}/cluster`);
    await use(`${parent}/cluster`);
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

async function namesIn(directory: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(directory), ({ name }) => name)).sort();
}
