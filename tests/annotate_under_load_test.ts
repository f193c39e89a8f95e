/**
 * The promise: annotating running pods, and taking the annotations away, fails no connection,
 * whoever comes first; and from when on two annotated pods' conditions say that they are secured,
 * nothing between them is in clear.
 */
import assert from "node:assert/strict";
import { ANNOTATION, SECURED_CONDITION } from "../src/constants.ts";
import { until } from "./lab/delay.ts";
import { Lab } from "./lab/lab.ts";
import { LeakDetector } from "./lab/leak_detector.ts";
import type { Pod } from "./lab/pod.ts";

const PORT = 9000;
const CANARY = "canary-load-canary";
const PAIRS = 15;
/** New connections a second of each pair: 200 in all. */
const RATE = 200 / PAIRS;

Deno.test("30 running pods are annotated and un-annotated under 200 connections a second", async (t) => {
  await using lab = await Lab.open({ cluster: "api" });
  const pods = await lab.addPods(
    Array.from({ length: PAIRS }, (_, index) => [
      { name: `client-${index}`, node: "node-a" },
      { name: `server-${index}`, node: "node-b" },
    ]).flat(),
  );
  const clients = pods.filter(({ name }) => name.startsWith("client"));
  const servers = pods.filter(({ name }) => name.startsWith("server"));
  await lab.startSigner();
  await Promise.all(
    lab.nodes.map(({ name }) => lab.startAgent(name, { args: ["--access-log", "0"] })),
  );
  await Promise.all(servers.map((server) => server.serve("hello", PORT)));
  const pairs = clients.flatMap((client, index) => {
    const server = servers[index];
    return server === undefined ? [] : [{ client, server }];
  });
  const talks = pairs.map(({ client, server }, index) =>
    client.startClient(
      "send",
      (index % 2 === 0 ? server.ipv4 : server.ipv6) ?? "",
      PORT,
      ...["--text", CANARY, "--every", `${1000 / RATE}`, "--new-connection"],
    )
  );
  await Promise.all(
    talks.map((talk) => talk.waitForEvent(({ event }) => event === "sent", 30_000)),
  );

  const orders: [string, Pod[][]][] = [
    ["servers first", [servers, clients]],
    ["clients first", [clients, servers]],
    ["all at once", [pods]],
  ];
  for (const [order, groups] of orders) {
    await t.step(order, async () => {
      // Nodes' links and bridges only: thirty more captures would be most of the load.
      await using detector = await LeakDetector.start(lab, pods, { veths: false });
      const annotated = new Map<Pod, number>();
      const secured = new Map<Pod, number>();
      // One group has what it asked for before the next one asks.
      for (const group of groups) {
        await annotate(lab, group, "true");
        for (const pod of group) annotated.set(pod, Date.now());
        await waitAll(lab, group, "True", secured);
      }
      await everyTalkGoesOn(talks);
      const end = Date.now();
      for (const group of groups) {
        await annotate(lab, group, undefined);
        await waitAll(lab, group, "False");
      }
      await everyTalkGoesOn(talks);
      const leaks = await detector.stop(CANARY);
      for (const { client, server } of pairs) {
        const both = Math.max(annotated.get(client) ?? NaN, annotated.get(server) ?? NaN);
        const said = [client, server].map((pod) => secured.get(pod) ?? NaN);
        const since = Math.min(...said.filter((time) => time >= both));
        const own = leaks.filter(({ from, to }) =>
          [client, server].every((pod) => isOf(from, pod) || isOf(to, pod))
        );
        assert(own.some(({ time }) => time < both), `${client.key} was in clear, and is seen`);
        assert.deepEqual(own.filter(({ opened }) => opened > since && opened < end), []);
      }
      const failed = talks.flatMap(({ events }) => events).filter(({ event }) =>
        event === "failed"
      );
      assert.deepEqual(failed, []);
    });
  }
  for (const talk of talks) await talk.stop("SIGKILL");
});

function isOf(endpoint: string, { addresses }: Pod): boolean {
  return addresses.includes(endpoint.slice(0, endpoint.lastIndexOf(":")));
}

/** As fast as it goes: only the annotation is written. */
async function annotate(lab: Lab, pods: Pod[], value: string | undefined): Promise<void> {
  await Promise.all(
    pods.map(({ namespace, name }) =>
      lab.api.server.annotate({ resource: "pods", namespace, name }, ANNOTATION, value)
    ),
  );
}

/** Waits until all conditions say so, and notes when each was first seen to. */
async function waitAll(
  lab: Lab,
  pods: Pod[],
  status: string,
  seen: Map<Pod, number> = new Map(),
): Promise<void> {
  await until(
    async () => {
      const objects = await lab.api.server.list<PodObject>("pods", "default");
      const now = Date.now();
      const said = new Map(objects.map(({ metadata, status }) => [
        metadata.name,
        status?.conditions?.find(({ type }) => type === SECURED_CONDITION)?.status,
      ]));
      for (const pod of pods) {
        if (said.get(pod.name) === status && !seen.has(pod)) seen.set(pod, now);
      }
      return pods.every((pod) => seen.has(pod));
    },
    60_000,
    () => `not all are ${status}, only ${[...seen.keys()].map(({ name }) => name)}`,
  );
}

interface PodObject {
  readonly metadata: { readonly name: string };
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** Waits until each has had twenty more answers. */
async function everyTalkGoesOn(talks: { stdout: { all: string[] } }[]): Promise<void> {
  const from = talks.map(({ stdout }) => stdout.all.length);
  await until(
    () => talks.every(({ stdout }, index) => stdout.all.length >= (from[index] ?? 0) + 20),
    60_000,
    () => "a client is stuck",
  );
}
