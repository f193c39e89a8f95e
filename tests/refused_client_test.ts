/**
 * The promise: a client that is not who it must be, or does not keep to the protocol, is refused by
 * the inbound relay with the reason in its log, and nothing that it sent reaches the application.
 */
import assert from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../src/constants.ts";
import {
  attack,
  attackAgain,
  dataFrame,
  frame,
  type HostileOptions,
  openFrame,
  TYPES,
} from "./lab/hostile.ts";
import { Authority } from "./lab/pki.ts";
import type { Pod } from "./lab/pod.ts";
import { register } from "./lab/registry.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";

const PORT = 9000;
const ID = "spiffe://cluster.local/ns/default/sa";
const HOUR = 3_600_000;
const ECONNREFUSED = 111;
const EPERM = 1;

interface Attack extends HostileOptions {
  /** `reason` of the agent's log line. */
  reason: string;
  message?: RegExp;
  /** What the client got back besides the end, hexadecimal; nothing when not given. */
  answer?: string;
  /** Another than the intruder. */
  from?: Pod;
  /** The application may see a connection, on which nothing comes. */
  dialled?: boolean;
}

Deno.test("a hostile client gets nothing through the inbound relay", async (t) => {
  await using lab = await openScene([
    ...WEB_AND_API,
    { name: "intruder", node: "node-a" },
    { name: "stranger", node: "node-a" },
  ]);
  const [web, api, intruder] = [lab.pod("web"), lab.pod("api"), lab.pod("intruder")];
  const sink = await api.serve("sink", PORT);
  const agent = lab.agent("node-b");

  const ca = await Authority.ofCluster(lab.directory, lab.temporary);
  const impostor = await Authority.impostor(lab.temporary);
  const uris = [`${ID}/intruder`];
  const addresses = [intruder.ipv4!];
  // What the signer would give the pod if it were enrolled: everything about it is true, and the
  // registry says so.
  const honest = await ca.issue({ uris, addresses });
  await register(lab, intruder, `${ID}/intruder`);
  // A pod that is no more leaves its certificate behind, or one that was annotated a moment ago is
  // faster than the registry.
  const stranger = lab.pod("stranger");
  const [mine, dialled] = [intruder.ipv4!, api.ipv4!];
  const open = (port = PORT, client = mine) => openFrame({ port, client, dialled });
  const canary = dataFrame("canary-91be-canary");
  const all = [open(), canary];
  const refused = frame(TYPES.REFUSE, Uint8Array.of(0, ECONNREFUSED));
  const failed = "handshake_failed";

  const attacks: Record<string, Attack> = {
    "no client certificate": { send: all, reason: failed, message: /did not return a certificate/ },
    "a certificate of another CA of the same name": {
      credential: await impostor.issue({ uris: [`${ID}/web`], addresses: [web.ipv4!] }),
      send: [open(PORT, web.ipv4!), canary],
      reason: failed,
      message: /certificate refused/,
    },
    "an expired certificate": {
      credential: await ca.issue({ uris, addresses, from: -2 * HOUR, until: -1000 }),
      send: all,
      reason: failed,
      message: /certificate has expired/,
    },
    "a certificate that is not valid yet": {
      credential: await ca.issue({ uris, addresses, from: HOUR, until: 2 * HOUR }),
      send: all,
      reason: failed,
      message: /not yet valid/,
    },
    "a CA certificate that the CA has signed": {
      credential: await ca.issue({ uris, addresses, isCa: true }),
      send: all,
      reason: "ca_as_leaf",
    },
    "the CA's own certificate": {
      credential: await ca.itself(),
      send: all,
      reason: failed,
      message: /certificate refused: unsuitable certificate purpose/,
    },
    "two identities in one certificate": {
      credential: await ca.issue({ uris: [`${ID}/intruder`, `${ID}/web`], addresses }),
      send: all,
      reason: "two_uri_sans",
    },
    "no identity at all": {
      credential: await ca.issue({ uris: [], addresses }),
      send: all,
      reason: "no_uri_san",
    },
    "an identity of another trust domain": {
      credential: await ca.issue({ uris: ["spiffe://elsewhere/ns/default/sa/web"], addresses }),
      send: all,
      reason: "id_trust_domain",
    },
    "another pod's client address in OPEN": {
      credential: honest,
      send: [open(PORT, web.ipv4!), canary],
      reason: "address_mismatch",
    },
    "another pod's identity, with its own address": {
      credential: await ca.issue({ uris: [`${ID}/web`], addresses }),
      send: [open(PORT, web.ipv4!), canary],
      reason: "address_mismatch",
    },
    "another pod's address, with its own identity": {
      credential: await ca.issue({ uris, addresses: [web.ipv4!] }),
      send: [open(PORT, web.ipv4!), canary],
      reason: "identity_mismatch",
    },
    "a client that no registry names": {
      credential: await ca.issue({ uris: [`${ID}/stranger`], addresses: [stranger.ipv4!] }),
      from: stranger,
      send: [open(PORT, stranger.ipv4!)],
      reason: "client_not_registered",
      answer: frame(TYPES.REFUSE, Uint8Array.of(0, EPERM)),
      more: ["--timeout", "7"],
    },
    "a client address of the other family": {
      credential: await ca.issue({ uris, addresses: [intruder.ipv6!] }),
      send: [open(PORT, intruder.ipv6!), canary],
      reason: "idle_failed",
      message: /another family/,
    },
    "no application protocol": {
      credential: honest,
      send: all,
      more: ["--alpn", ""],
      reason: failed,
      message: /no common application protocol/,
    },
    "another application protocol": {
      credential: honest,
      send: all,
      more: ["--alpn", "h2"],
      reason: failed,
    },
    "TLS 1.2": {
      credential: honest,
      send: all,
      more: ["--tls12"],
      reason: failed,
      message: /unsupported protocol/,
    },
    "frames without TLS": { send: all, more: ["--plain"], reason: failed },
    "garbage": { send: ["00".repeat(5000)], more: ["--plain"], reason: failed },
    "OPEN to the tunnel port": {
      credential: honest,
      send: [open(TUNNEL_PORT)],
      reason: "application_refused",
      answer: refused,
      more: ["--timeout", "0.5"], // the tunnel stays open for another OPEN
    },
    "OPEN to the outbound port": {
      credential: honest,
      send: [open(OUTBOUND_PORT)],
      reason: "application_refused",
      answer: refused,
      more: ["--timeout", "0.5"], // the tunnel stays open for another OPEN
    },
    "OPEN to port 0": {
      credential: honest,
      send: [open(0)],
      reason: "application_refused",
      answer: refused,
      more: ["--timeout", "0.5"], // the tunnel stays open for another OPEN
    },
    "DATA without OPEN": { credential: honest, send: [canary], reason: "idle_failed" },
    "DATA before ACCEPT": {
      credential: honest,
      send: [open() + canary],
      reason: "dialling_failed",
      dialled: true,
    },
    "a second OPEN in the same write": {
      credential: honest,
      send: [open() + open()],
      reason: "dialling_failed",
      dialled: true,
    },
    "ACCEPT from a client": {
      credential: honest,
      send: [frame(TYPES.ACCEPT) + canary],
      reason: "idle_failed",
    },
    "an unknown type": { credential: honest, send: [frame(9) + canary], reason: "idle_failed" },
    "unknown flags": {
      credential: honest,
      send: [frame(TYPES.END, undefined, 1) + canary],
      reason: "idle_failed",
    },
    "an OPEN that is too short": {
      credential: honest,
      send: [frame(TYPES.OPEN, new Uint8Array(37)) + canary],
      reason: "idle_failed",
    },
    "a frame beyond the limit": {
      credential: honest,
      send: ["0400ffff" + canary],
      reason: "idle_failed",
    },
  };

  await t.step("the program itself can talk: an honest client is served", async () => {
    const text = "an honest line";
    const { handshake, received } = await attack(intruder, api.ipv4!, TUNNEL_PORT, {
      credential: honest,
      send: [open(), dataFrame(text) + frame(TYPES.END)],
      more: ["--turns", "--timeout", "0.5"],
    });
    assert.equal(handshake, "TLSv1.3");
    assert.ok(received.startsWith(frame(TYPES.ACCEPT)), received);
    await sink.waitForEvent((event) => event.count === text.length);
  });

  for (
    const [name, { reason, message, answer = "", from: pod = intruder, ...options }] of Object
      .entries(attacks)
  ) {
    await t.step(name, async () => {
      const from = agent.log.length;
      const { received } = await attack(pod, api.ipv4!, TUNNEL_PORT, options);
      const line = await agent.waitForLog((line) => "reason" in line, 10_000, from);
      assert.equal(line.reason, reason, JSON.stringify(line));
      assert.match(String(line.message), message ?? /./);
      assert.equal(line.pod, api.key);
      assert.equal(String(line.source).split(":")[0], pod.ipv4);
      assert.equal(received, answer);
    });
  }

  await t.step(
    "a thousand clients without a certificate: each is told that it needs one",
    async () => {
      const said = await attackAgain(intruder, api.ipv4!, TUNNEL_PORT, { times: 1_000 });
      assert.deepEqual(said, {
        event: "conversations",
        received: "",
        ends: { TLSV13_ALERT_CERTIFICATE_REQUIRED: 1_000 },
      });
    },
  );

  await t.step("the application has seen none of it, and is still served", async () => {
    await web.connect("halfclose", api.ipv4!, PORT, "--bytes", "5");
    const last = await sink.waitForEvent(({ count }) => count === 5);
    const dialled = Object.values(attacks).filter(({ dialled }) => dialled).length;
    assert.ok(Number(last.connection) <= 2 + dialled, `connections: ${sink.stdout.tail()}`);
    const counts = sink.events.map(({ count }) => count).filter(Boolean);
    assert.deepEqual(counts, ["an honest line".length, 5]);
  });
});
