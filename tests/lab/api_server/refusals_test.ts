/**
 * What the API server for tests does beside storing: refusals, garbage, namespaces and accounts
 * that go.
 */
import assert from "node:assert/strict";
import { until } from "../delay.ts";
import { ApiServer } from "./controller.ts";
import type { KubeObject } from "./objects.ts";

Deno.test("the API server for tests refuses and collects as the real one does", async (t) => {
  await using server = await ApiServer.start();
  await server.create({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } });

  await t.step(
    "a name's beginning with a trailing dot is refused, one with a dash is taken",
    async () => {
      const make = (generateName: string) => server.create(configMap({ generateName }));
      await assert.rejects(make("pod-01."), /422.*generateName|generateName/);
      const { metadata: { name } } = await make("pod-01-");
      assert.match(name, /^pod-01-[a-z0-9]{5}$/);
    },
  );

  await t.step(
    "an object that etcd does not take is refused, and a body that is larger still",
    async () => {
      const make = (name: string, length: number) =>
        server.create({
          ...configMap({ name }),
          data: { text: "x".repeat(length) },
        });
      await make("large", 1_500_000);
      await assert.rejects(make("larger", 1_600_000), {
        code: 500,
        message: /request is too large/,
      });
      await assert.rejects(make("largest", 3_200_000), { code: 413, message: /limit is 3145728/ });
      // What is base64 in JSON is stored as bytes.
      const pem = `${"x".repeat(1_400_000)}\n-----BEGIN CERTIFICATE REQUEST-----\n`;
      const spec = { request: btoa(pem), signerName: "a.b/c", usages: ["client auth"] };
      const kind = { apiVersion: "certificates.k8s.io/v1", kind: "CertificateSigningRequest" };
      await server.create({ ...kind, metadata: { name: "padded" }, spec });
    },
  );

  await t.step(
    "what somebody owns who is gone, or never was, goes within milliseconds",
    async () => {
      const node = await server.create({
        apiVersion: "v1",
        kind: "Node",
        metadata: { name: "n1" },
      });
      const owned = (uid: string) => ({
        ownerReferences: [{ apiVersion: "v1", kind: "Node", name: "n1", uid }],
      });
      await server.create(configMap({ name: "owned", ...owned(node.metadata.uid) }));
      await server.create(configMap({ name: "stray", ...owned(crypto.randomUUID()) }));
      await gone(server, "configmaps", "stray", 500);
      await server.get({ resource: "configmaps", namespace: "shop", name: "owned" });
      await server.delete({ resource: "nodes", name: "n1" });
      await gone(server, "configmaps", "owned", 500);
    },
  );

  await t.step(
    "a namespace that is deleted takes nothing new, and ends when its pods have",
    async () => {
      const pod = { name: "web", namespace: "shop", uid: crypto.randomUUID() };
      const spec = { nodeName: "n1", containers: [] };
      await server.seed([{ apiVersion: "v1", kind: "Pod", metadata: pod, spec }]);
      await server.delete({ resource: "namespaces", name: "shop" });
      await assert.rejects(server.create(configMap({ name: "late" })), /being terminated/);
      await until(
        async () => (await server.list("configmaps", "shop")).length === 0,
        2_000,
        () => "what is in it stays",
      );
      const of = { resource: "pods", namespace: "shop", name: "web" };
      await until(
        async () => (await server.get(of)).metadata.deletionTimestamp !== undefined,
        2_000,
        () => "its pod is not told to end",
      );
      const namespace = await server.get<KubeObject>({ resource: "namespaces", name: "shop" });
      assert.deepEqual(namespace.status, { phase: "Terminating" });
      await server.delete(of, { gracePeriodSeconds: 0 });
      await until(
        async () =>
          !(await server.list("namespaces")).some(({ metadata }) => metadata.name === "shop"),
        2_000,
        () => "the namespace stays",
      );
    },
  );

  await t.step("an account's token ends with the account, also when it is made again", async () => {
    const account = {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "a", namespace: "default" },
    };
    await server.create(account);
    const { token } = await server.serviceAccount("default", "a");
    const ask = async () => {
      const client = Deno.createHttpClient({ caCerts: [server.ca] });
      using _client = client;
      const headers = { authorization: `Bearer ${token}` };
      const response = await fetch(`${server.url}/api`, { client, headers });
      await response.body?.cancel();
      return response.status;
    };
    assert.equal(await ask(), 200);
    await server.delete({ resource: "serviceaccounts", namespace: "default", name: "a" });
    assert.equal(await ask(), 401);
    await server.create(account);
    assert.equal(await ask(), 401);
  });
});

function configMap(metadata: object): object {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { namespace: "shop", ...metadata } };
}

async function gone(
  server: ApiServer,
  resource: string,
  name: string,
  milliseconds: number,
): Promise<void> {
  await until(
    async () =>
      !(await server.list(resource, "shop")).some(({ metadata }) => metadata.name === name),
    milliseconds,
    () => `${name} stays`,
  );
}
