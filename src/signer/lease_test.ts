import { ok, strictEqual } from "node:assert/strict";
import type { FakeApiServer } from "./fake_api_server.ts";
import { campaign, type Candidacy } from "./lease.ts";
import { apiOf, LEASE_PATH, openScene, until } from "./signer_scene.ts";

const TIMES = { duration: 1_000, renewDeadline: 500, retry: 50 };

Deno.test("of many candidates for a free lease exactly one leads, and goes on leading", async () => {
  await using server = openScene();
  let begun = 0;
  const candidates = Array.from({ length: 6 }, (_, i) => run(server, `c-${i}`, () => begun++));
  try {
    for (let i = 0; i < 60; i++) {
      ok(leaders(candidates) <= 1);
      await later(25);
    }
    strictEqual(leaders(candidates), 1);
    strictEqual(begun, 1);
    strictEqual(server.objects.get(LEASE_PATH)?.spec?.leaseTransitions, 0);
  } finally {
    await close(candidates);
  }
});

Deno.test("a leader that cannot renew stops before another begins", async () => {
  await using server = openScene();
  server.users.set("old", { username: "old" });
  const old = run(server, "old", () => {}, "old");
  await until("old leads", () => old.remaining() > 0);
  const next = run(server, "next");
  server.intercept = (_request, _path, user) =>
    user === "old" ? new Response(null, { status: 503 }) : undefined;
  try {
    let idle = 0;
    while (next.remaining() === 0) {
      if (old.remaining() === 0) idle++;
      await later(5);
    }
    strictEqual(old.remaining(), 0);
    ok(idle > 10, "a while without any");
  } finally {
    await close([old, next]);
  }
});

Deno.test("only what changes here counts: another's clock does not", async () => {
  await using server = openScene();
  const lease = (renewTime: string) => ({
    metadata: { name: "kube-gateway-signer" },
    spec: { holderIdentity: "other", leaseDurationSeconds: 1, renewTime },
  });
  server.put(LEASE_PATH, lease("2001-01-01T00:00:00.000000Z"));
  const candidate = run(server, "me");
  try {
    for (let i = 0; i < 8; i++) {
      await later(200);
      strictEqual(candidate.remaining(), 0, "its holder renews it");
      server.put(LEASE_PATH, lease("2001-01-01T00:00:00.000000Z"));
    }
    server.put(LEASE_PATH, lease("2099-01-01T00:00:00.000000Z"));
    await until("the lease is taken", () => candidate.remaining() > 0, 2_500);
    strictEqual(server.objects.get(LEASE_PATH)?.spec?.leaseTransitions, 1);
  } finally {
    await candidate.close();
  }
  strictEqual(server.objects.get(LEASE_PATH)?.spec?.holderIdentity, "", "given back");
});

function run(
  server: FakeApiServer,
  identity: string,
  onLead: () => void = () => {},
  token = "signer",
): Candidacy {
  const api = apiOf(server, token);
  const name = "kube-gateway-signer";
  return campaign({ api, namespace: "kube-gateway", name, identity, times: TIMES, onLead });
}

function leaders(candidates: Candidacy[]): number {
  return candidates.filter((candidate) => candidate.remaining() > 0).length;
}

async function close(candidates: Candidacy[]): Promise<void> {
  await Promise.all(candidates.map((candidate) => candidate.close()));
}

function later(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
