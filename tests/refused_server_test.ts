/**
 * The promise: a server that is not who the registry says, or does not keep to the protocol, gets
 * nothing of what the client sends and can say nothing to it; the outbound relay's log has the
 * reason.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import {
  ambush,
  type Conversation,
  dataFrame,
  frame,
  type HostileOptions,
  TYPES,
} from "./lab/hostile.ts";
import { until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import type { Pod } from "./lab/pod.ts";
import { Authority } from "./lab/pki.ts";
import type { LabProcess } from "./lab/process.ts";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
const CANARY = "canary-c03f-canary";
const ID = "spiffe://cluster.local/ns/default/sa";
const HOUR = 3_600_000;

interface Ambush extends HostileOptions {
  /** `reason` of the agent's log line. */
  reason: string;
  message?: RegExp;
  /** It is the right one, so it is told the destination's port: OPEN, and nothing after it. */
  trusted?: boolean;
}

Deno.test("a hostile server gets nothing out of the outbound relay", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "impostor", node: "node-b" },
  ]);
  const [web, impostor] = [lab.pod("web"), lab.pod("impostor")];
  const agent = lab.agent("node-a");
  // The registry says that the enrolled pod "shop" has this address.
  await publishAs(lab, "shop", impostor);
  await until(
    async () => (await agent.status()).peers.some(({ address }) => address === impostor.ipv4),
    10_000,
    () => `the address is no peer: ${agent.logTail()}`,
  );

  const ca = await Authority.ofCluster(lab.directory, lab.temporary);
  const foreign = await Authority.impostor(lab.temporary);
  const uris = [`${ID}/shop`];
  const addresses = [impostor.ipv4!];
  const right = await ca.issue({ uris, addresses });
  const lie = [dataFrame("lie")];
  const turns = ["--turns"];

  const ambushes: Record<string, Ambush> = {
    "a certificate of another CA of the same name": {
      credential: await foreign.issue({ uris, addresses }),
      reason: "tunnel_lost",
      message: /certificate refused/,
    },
    "an expired certificate": {
      credential: await ca.issue({ uris, addresses, from: -2 * HOUR, until: -1000 }),
      reason: "tunnel_lost",
      message: /certificate has expired/,
    },
    "another pod's identity": {
      credential: await ca.issue({ uris: [`${ID}/impostor`], addresses }),
      reason: "identity_mismatch",
    },
    "another pod's address": {
      credential: await ca.issue({ uris, addresses: [web.ipv4!] }),
      reason: "address_mismatch",
    },
    "a CA certificate that the CA has signed": {
      credential: await ca.issue({ uris, addresses, isCa: true }),
      reason: "ca_as_leaf",
    },
    "the CA's own certificate": {
      credential: await ca.itself(),
      reason: "tunnel_lost",
      message: /certificate refused/,
    },
    "two identities in one certificate": {
      credential: await ca.issue({ uris: [...uris, `${ID}/impostor`], addresses }),
      reason: "two_uri_sans",
    },
    "no application protocol": {
      credential: right,
      more: ["--alpn", ""],
      reason: "tunnel_lost",
      message: /no common application protocol/,
    },
    "TLS 1.2": { credential: right, more: ["--tls12"], reason: "tunnel_lost" },
    "garbage instead of TLS": {
      send: ["00".repeat(5000)],
      more: ["--plain"],
      reason: "tunnel_lost",
    },
    "ACCEPT and DATA in clear": {
      send: [frame(TYPES.ACCEPT) + lie],
      more: ["--plain"],
      reason: "tunnel_lost",
    },
    "DATA before ACCEPT": {
      trusted: true,
      credential: right,
      send: lie,
      more: turns,
      reason: "tunnel_lost",
    },
    "END before ACCEPT": {
      trusted: true,
      credential: right,
      send: [frame(TYPES.END)],
      more: turns,
      reason: "tunnel_lost",
    },
    "frames before OPEN was sent": {
      trusted: true,
      credential: right,
      send: lie,
      reason: "tunnel_lost",
    },
    "OPEN from a server": {
      trusted: true,
      credential: right,
      send: [frame(TYPES.OPEN, new Uint8Array(38))],
      more: turns,
      reason: "tunnel_lost",
    },
    "ACCEPT twice in one write": {
      trusted: true,
      credential: right,
      send: [frame(TYPES.ACCEPT) + frame(TYPES.ACCEPT) + lie],
      more: turns,
      reason: "tunnel_lost",
    },
    "an unknown type": {
      trusted: true,
      credential: right,
      send: [frame(77) + lie],
      more: turns,
      reason: "tunnel_lost",
    },
  };

  await t.step("the program itself can play the server that it should be", async () => {
    await using server = await ambush(impostor, impostor.ipv4!, TUNNEL_PORT, {
      credential: right,
      send: [frame(TYPES.ACCEPT) + dataFrame("truth"), frame(TYPES.END)],
      more: [...turns, "--timeout", "0.5"],
    });
    const client = await web.connect("expect-reset", impostor.ipv4!, PORT, "--text", CANARY);
    assert.deepEqual([client.result.end, client.result.received], ["eof", "truth".length]);
    const { received } = await talk(server);
    assert.ok(received.includes(dataFrame(CANARY)), received);
  });

  for (const [name, { reason, message, trusted = false, ...options }] of Object.entries(ambushes)) {
    await t.step(name, async () => {
      const from = agent.log.length;
      await using server = await ambush(impostor, impostor.ipv4!, TUNNEL_PORT, options);
      const { result } = await web.connect("expect-reset", impostor.ipv4!, PORT, "--text", CANARY);
      const line = await agent.waitForLog((line) => "reason" in line, 10_000, from);
      assert.equal(line.reason, reason, JSON.stringify(line));
      assert.match(String(line.message), message ?? /./);
      assert.deepEqual([line.pod, line.peer], [web.key, "default/shop"]);
      assert.deepEqual([result.end, result.received], ["reset", 0], "what the client sees");
      const { received } = await talk(server);
      if (options.more?.includes("--plain")) {
        // A ClientHello is all that a plain socket may see: a handshake record (RFC 8446 5.1).
        assert.match(received, /^1603/);
        assert.ok(!received.includes(dataFrame(CANARY).slice(8)));
      } else if (trusted) {
        assert.ok(received === "" || (received.startsWith("0100") && received.length === 2 * 42));
      } else {
        assert.equal(received, "");
      }
    });
  }
});

/**
 * Makes the agents believe that an enrolled pod of that account has the pod's address, on its node.
 */
async function publishAs(lab: Lab, serviceAccount: string, pod: Pod): Promise<void> {
  const node = pod.node.name;
  const { ipv4 } = pod;
  const uid = crypto.randomUUID();
  const slice = {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `registry-${node}-ipv4-900`,
      namespace: "kube-gateway",
      labels: { "kube-gateway.io/registry-node": node },
      annotations: {
        "kube-gateway.io/identities": JSON.stringify({ [uid]: `${ID}/${serviceAccount}` }),
      },
    },
    addressType: "IPv4",
    endpoints: [{
      addresses: [ipv4],
      conditions: { ready: true },
      nodeName: node,
      targetRef: { kind: "Pod", namespace: "default", name: serviceAccount, uid },
    }],
    ports: [{ name: "tunnel", port: TUNNEL_PORT, protocol: "TCP" }],
  };
  await lab.write("registry/by-the-test.json", JSON.stringify(slice));
}

async function talk(server: LabProcess): Promise<Conversation> {
  return await server.waitForEvent(({ event }) => event === "conversation") as Conversation;
}
