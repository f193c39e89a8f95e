/**
 * The promise: who may connect to a pod, and where it may connect to, is what its annotations say,
 * for every kind of client, in both families, and as soon as they say it.
 */
import assert from "node:assert/strict";
import { delay, until } from "./lab/delay.ts";
import type { Lab } from "./lab/lab.ts";
import { OUTSIDE } from "./lab/network.ts";
import type { Place } from "./lab/place.ts";
import type { Pod } from "./lab/pod.ts";
import { openScene } from "./lab/scene.ts";
import { writeService } from "./lab/service.ts";

const PORT = 9000;
const INBOUND = "kube-gateway.io/inbound";
const EGRESS = "kube-gateway.io/egress";
const ALLOW = "kube-gateway.io/allow";

/** What a client sees: an answer, a reset of an established connection, or a refusal at once. */
type Outcome = "served" | "reset" | "refused";

const POLICIES: Record<string, { allow: string | undefined; friend: Outcome; stranger: Outcome }> =
  {
    absent: { allow: undefined, friend: "served", stranger: "served" },
    matching: { allow: `default/friend:${PORT}`, friend: "served", stranger: "reset" },
    "not matching": { allow: "other/friend", friend: "reset", stranger: "reset" },
    "another port": { allow: `default/friend:${PORT + 1}`, friend: "reset", stranger: "reset" },
    empty: { allow: "", friend: "reset", stranger: "reset" },
    malformed: { allow: "default/friend:http", friend: "reset", stranger: "reset" },
    "dry-run": { allow: "dry-run: other/friend", friend: "served", stranger: "served" },
  };

Deno.test("who may connect to a pod: every client, family, strictness and policy", async (t) => {
  await using lab = await openScene([
    { name: "api", node: "node-b", annotation: "true" },
    { name: "friend", node: "node-a", annotation: "true" },
    { name: "stranger", node: "node-a", annotation: "true" },
    { name: "plain", node: "node-a" },
    { name: "neighbour", node: "node-b" },
  ]);
  const api = lab.pod("api");
  await api.serve("hello", PORT);
  const clients: Record<string, Place> = {
    friend: lab.pod("friend"),
    stranger: lab.pod("stranger"),
    "not enrolled": lab.pod("plain"),
    "not enrolled, on the same node": lab.pod("neighbour"),
    "the pod's node": lab.node("node-b"),
    "another node": lab.node("node-a"),
    "the pod itself": api,
    "outside": lab.outside,
  };
  const seen = (host: string) =>
    Promise.all(
      Object.entries(clients).map(async ([name, place]) =>
        [name, await outcome(place, host, PORT)] as const
      ),
    );
  const expected = (strict: boolean, policy: string) => {
    const { friend, stranger } = POLICIES[policy]!;
    const plain: Outcome = strict ? "refused" : "served";
    return {
      friend,
      stranger,
      "not enrolled": plain,
      "not enrolled, on the same node": plain,
      "the pod's node": "served",
      "another node": plain,
      "the pod itself": "served",
      "outside": plain,
    };
  };

  for (const strict of [false, true]) {
    const inbound = strict ? "strict" : "permissive";
    await api.annotateWith(INBOUND, inbound);
    for (const [name, { allow }] of Object.entries(POLICIES)) {
      await t.step(`${inbound}, policy ${name}`, async () => {
        await api.annotateWith(ALLOW, allow);
        await untilSaid(lab, api, { inbound, allow: allow !== undefined });
        for (const host of api.addresses) {
          assert.deepEqual(Object.fromEntries(await seen(host)), expected(strict, name), host);
        }
      });
    }
  }

  await t.step("the log names both identities and the rule; dry-run only tells", () => {
    const lines = lab.agent("node-b").log.map(({ message }) => String(message));
    const rule = "kube-gateway.io/allow (other/friend) does not allow " +
      `spiffe://cluster.local/ns/default/sa/friend on port ${PORT} of ` +
      "spiffe://cluster.local/ns/default/sa/api";
    assert.ok(lines.includes(`refused a stream: ${rule}`), lines.join("\n"));
    const dryRun = rule.replace("(other", "(dry-run:other");
    assert.ok(lines.includes(`would have refused a stream: ${dryRun}`));
  });

  await t.step(
    "inbound as a dry run: all are served, and those that strict would refuse counted",
    async () => {
      await api.annotateWith(ALLOW, undefined);
      await api.annotateWith(INBOUND, "dry-run");
      await untilSaid(lab, api, { inbound: "dry-run", allow: false });
      const refused = Object.values(expected(true, "absent")).filter((each) => each === "refused");
      for (const [index, host] of api.addresses.entries()) {
        assert.deepEqual(Object.fromEntries(await seen(host)), expected(false, "absent"), host);
        const { wouldRefuseInKernel } = await lab.agent("node-b").enrolment(api);
        assert.deepEqual(wouldRefuseInKernel, { inbound_dry_run: (index + 1) * refused.length });
      }
      await until(
        () =>
          lab.agent("node-b").log.some(({ message }) =>
            /connections of .*default\/api.* would have been refused: .*inbound is a dry run/.test(
              `${message}`,
            )
          ),
        10_000,
        () => "the log does not tell",
      );
    },
  );

  await t.step("a malformed annotation is a problem of the status", async () => {
    await api.annotateWith(ALLOW, "default/friend:http");
    await api.annotateWith(INBOUND, "sometimes");
    await until(
      async () => {
        const { problems } = await lab.agent("node-b").status();
        const messages = problems.map(({ message }) => message).join("\n");
        return messages.includes('"http" is no port') && messages.includes('not "sometimes"');
      },
      5_000,
      () => "the status does not tell",
    );
    await api.annotateWith(INBOUND, "strict");
  });

  await t.step(
    "a change cuts the streams that it does not allow, within a second, and no others",
    async () => {
      await api.annotateWith(ALLOW, "default/friend default/stranger");
      await untilSaid(lab, api, { inbound: "strict", allow: true });
      await using friend = lab.pod("friend").startClient("send", api.ipv4!, PORT, "--every", "20");
      await using stranger = lab.pod("stranger").startClient(
        "send",
        api.ipv4!,
        PORT,
        "--every",
        "20",
      );
      for (const client of [friend, stranger]) {
        await client.waitForEvent(({ event, number }) => event === "sent" && Number(number) > 5);
      }
      const began = performance.now();
      await api.annotateWith(ALLOW, "default/friend");
      const failed = await stranger.waitForEvent(({ event }) => event === "failed");
      assert.ok(performance.now() - began < 1_000, `${performance.now() - began} ms`);
      assert.equal(failed.errno, "ECONNRESET");
      await delay(200);
      assert.deepEqual(friend.events.filter(({ event }) => event === "failed"), []);
    },
  );

  await t.step("strictness survives the agent's death", async () => {
    await lab.agent("node-b").kill();
    for (const host of api.addresses) {
      assert.equal(await outcome(lab.pod("plain"), host, PORT), "refused");
      assert.equal(await outcome(lab.node("node-b"), host, PORT), "served");
      assert.equal(await outcome(api, host, PORT), "served");
    }
    await lab.startAgent("node-b");
    await lab.waitEnrolled(api);
    assert.equal(await outcome(lab.pod("plain"), api.ipv4!, PORT), "refused");
    await api.annotate(undefined);
    await lab.waitPlain(api);
    assert.equal(await outcome(lab.pod("plain"), api.ipv4!, PORT), "served");
  });
});

Deno.test("where a pod may connect to: every destination and family, permissive and strict", async (t) => {
  await using lab = await openScene([
    { name: "web", node: "node-a", annotation: "true" },
    { name: "api", node: "node-b", annotation: "true" },
    { name: "plain", node: "node-b" },
  ]);
  const web = lab.pod("web");
  const places: Record<string, { place: Place; addresses: string[]; port?: number }> = {
    "an enrolled pod": { place: lab.pod("api"), addresses: lab.pod("api").addresses },
    "a pod that is not enrolled": {
      place: lab.pod("plain"),
      addresses: lab.pod("plain").addresses,
    },
    "its DNS port": { place: lab.pod("plain"), addresses: lab.pod("plain").addresses, port: 53 },
    "its node": { place: web.node, addresses: [web.node.ipv4, web.node.ipv6] },
    "itself": { place: web, addresses: web.addresses },
    "its loopback": { place: web, addresses: ["127.0.0.1", "::1"] },
    "outside": { place: lab.outside, addresses: Object.values(OUTSIDE) },
  };
  for (const place of [lab.pod("api"), lab.pod("plain"), web.node, web, lab.outside]) {
    await place.serve("hello", PORT);
  }
  await lab.pod("plain").serve("hello", 53);
  const expect = async (strict: boolean) => {
    for (const [name, { addresses, port = PORT }] of Object.entries(places)) {
      const isPlainInside = name === "a pod that is not enrolled" || name === "its node";
      const wanted = strict && isPlainInside ? "refused" : "served";
      for (const host of addresses) {
        assert.equal(await outcome(web, host, port), wanted, `${name}: ${host}`);
        if (!host.includes(":") && host.startsWith("10.")) {
          assert.equal(
            await outcome(web, host, port, "--mapped"),
            wanted,
            `${name}: mapped ${host}`,
          );
        }
      }
    }
  };

  await t.step("permissive: everywhere", () => expect(false));
  await web.annotateWith(EGRESS, "strict");
  await until(
    async () => (await lab.agent("node-a").enrolment(web)).egress === "strict",
    5_000,
    () => "not strict",
  );
  await t.step("strict: peers, DNS, itself and the outside", () => expect(true));
  await t.step("strict: the API server, by its Service", async () => {
    // Something must answer there: the Service's address is the outside host's for now.
    const api = { name: "kubernetes", clusterIps: [lab.node("node-b").ipv4] };
    await lab.node("node-b").serve("hello", 6443);
    assert.equal(await outcome(web, api.clusterIps[0]!, 6443), "refused");
    await writeService(lab, { ...api, ports: { 6443: 6443 }, endpoints: [] });
    await until(
      async () => await outcome(web, api.clusterIps[0]!, 6443) === "served",
      5_000,
      () => "the API server is refused",
    );
  });
  await t.step("strict holds while there is no agent", async () => {
    await lab.agent("node-a").kill();
    assert.equal(await outcome(web, lab.pod("plain").ipv4!, PORT), "refused");
    assert.equal(await outcome(web, lab.pod("plain").ipv4!, 53), "served");
    await lab.startAgent("node-a");
    await lab.waitEnrolled(web);
    assert.equal(await outcome(web, lab.pod("plain").ipv4!, PORT), "refused");
    await web.annotateWith(EGRESS, undefined);
    await until(
      async () => await outcome(web, lab.pod("plain").ipv4!, PORT) === "served",
      5_000,
      () => "still strict",
    );
  });
});

async function outcome(
  client: Place,
  host: string,
  port: number,
  ...more: string[]
): Promise<Outcome | string> {
  const { code, result } = await client.connect("who", host, port, "--timeout", "5", ...more);
  if (code === 0) return "served";
  if (result.errno === "ECONNREFUSED") return "refused";
  return result.errno === "ECONNRESET" || result.errno === "EPIPE" ? "reset" : String(result.errno);
}

/** Waits until the agent says of the pod what its annotations ask for. */
async function untilSaid(
  lab: Lab,
  pod: Pod,
  wanted: { inbound: string; allow: boolean },
): Promise<void> {
  const text = pod.annotations[ALLOW];
  await until(
    async () => {
      const { inbound, allow } = await lab.agent(pod.node.name).enrolment(pod);
      if (inbound !== wanted.inbound || (allow !== undefined) !== wanted.allow) return false;
      const rules = String(allow ?? "").replace(/^dry-run:/, "");
      const isSame = text === undefined || text === "" || text.includes("http")
        ? allow === (text === undefined ? undefined : "nobody")
        : text.endsWith(rules);
      return isSame;
    },
    5_000,
    () => `${pod.key} is not ${JSON.stringify(wanted)} ${text}`,
  );
}
