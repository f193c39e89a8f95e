import { deepStrictEqual, match, rejects, strictEqual } from "node:assert/strict";
import { rootCertificates } from "node:tls";
import { errorText } from "../error_text.ts";
import { KubernetesApi } from "./api.ts";
import { kubeconfigConnection } from "./kubeconfig.ts";

const base64 = (text: string) => new TextEncoder().encode(text).toBase64();

/** A kubeconfig whose one context has this cluster and user. */
function config(cluster: object, user: object): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server: "https://10.0.0.1:6443/", ...cluster } }],
    users: [{ name: "u", user }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
}

Deno.test("certificates and tokens are read from data, and from files beside the kubeconfig", async () => {
  await inDirectory(async (directory, connection) => {
    await Deno.writeTextFile(`${directory}/ca.crt`, "the CA");
    await Deno.writeTextFile(`${directory}/token`, "first\n");
    const byFile = await connection({ "certificate-authority": "ca.crt" }, { tokenFile: "token" });
    strictEqual(byFile.server, "https://10.0.0.1:6443");
    strictEqual(byFile.certificateAuthority, "the CA");
    strictEqual(await byFile.token?.(), "first");
    await Deno.writeTextFile(`${directory}/token`, "second");
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    strictEqual(await byFile.token?.(), "second", "what was rotated is read again");

    const byData = await connection(
      { "certificate-authority-data": base64("another CA"), "certificate-authority": "ca.crt" },
      { "client-certificate-data": base64("certificate"), "client-key-data": base64("key") },
    );
    strictEqual(byData.certificateAuthority, "another CA");
    deepStrictEqual(byData.clientCertificate, { certificate: "certificate", key: "key" });
    strictEqual(byData.token, undefined);
    const byToken = await connection({}, { token: "t" });
    strictEqual(await byToken.token?.(), "t");
    strictEqual(byToken.certificateAuthority, rootCertificates.join("\n"));
    new KubernetesApi(byToken)[Symbol.dispose](); // takes them all
  });
});

Deno.test("an exec plugin gives the token", async () => {
  await inDirectory(async (directory, connection) => {
    const credential = {
      apiVersion: "client.authentication.k8s.io/v1",
      kind: "ExecCredential",
      status: { token: "by-plugin" },
    };
    const plugin = `${directory}/plugin`;
    await Deno.writeTextFile(plugin, `#!/bin/sh\necho '${JSON.stringify(credential)}'\n`);
    await Deno.chmod(plugin, 0o700);
    const { apiVersion } = credential;
    const user = { exec: { apiVersion, command: plugin, interactiveMode: "Never" } };
    strictEqual(await (await connection({}, user)).token?.(), "by-plugin");
    await Deno.writeTextFile(plugin, "#!/bin/sh\necho no >&2; exit 1\n");
    await rejects(connection({}, user), /plugin of the kubeconfig .*config has failed/);
  });
});

Deno.test("what would be done otherwise than it says is refused, not ignored", async () => {
  await inDirectory(async (_directory, connection) => {
    const token = "t";
    for (
      const one of [{ as: "admin" }, { "as-uid": "1" }, { "as-groups": ["system:masters"] }, {
        "as-user-extra": { scopes: ["all"] },
      }]
    ) {
      const what = `/config: its user "u" has ${Object.keys(one)[0]}, .*: give .*credentials`;
      await rejects(connection({}, { token, ...one }), new RegExp(what));
    }
    const proxy = { "proxy-url": "http://10.0.0.2:3128" };
    await rejects(connection(proxy, { token }), /its cluster "c" has proxy-url, .*: give/);
    const name = { "tls-server-name": "kubernetes" };
    await rejects(connection(name, { token }), /its cluster "c" has tls-server-name, .*: give/);
  });
});

Deno.test("what is empty counts as absent, as for kubectl", async () => {
  await inDirectory(async (directory, connection) => {
    await Deno.writeTextFile(`${directory}/ca.crt`, "the CA");
    const { certificateAuthority, clientCertificate, token } = await connection({
      "certificate-authority": "ca.crt",
      "certificate-authority-data": "",
      "insecure-skip-tls-verify": false,
      "proxy-url": "",
      "tls-server-name": null,
    }, {
      "client-certificate": "",
      "client-key-data": "",
      as: "",
      "as-groups": [],
      "as-user-extra": {},
      exec: null,
      password: "",
      token: "t",
      tokenFile: "",
      username: "",
    });
    strictEqual(certificateAuthority, "the CA");
    strictEqual(clientCertificate, undefined);
    strictEqual(await token?.(), "t");
    strictEqual((await connection({}, { exec: null, token: "" })).token, undefined);
  });
});

Deno.test("what cannot be used is refused with the file and the reason", async () => {
  await inDirectory(async (_directory, connection) => {
    await rejects(
      connection({ "insecure-skip-tls-verify": true }, {}),
      /certificate-authority-data/,
    );
    await refuses(
      connection({ server: "http://10.0.0.1" }, {}),
      /config: clusters\.0\.cluster\.server .*needs https/,
    );
    await refuses(connection({ server: 7 }, {}), /clusters\.0\.cluster\.server/);
    const damaged = { "certificate-authority-data": "*" };
    await refuses(
      connection(damaged, {}),
      /config: its certificate-authority-data cannot be read: /,
    );
    await refuses(
      connection({}, { "client-key": "gone.pem" }),
      /its client-key .*: No such file.*gone/,
    );
    await rejects(connection({}, { username: "a", password: "b" }), /no passwords/);
    await rejects(
      connection({}, { tokenFile: "missing" }).then(({ token }) => token?.()),
      /missing/,
    );
  });
  await refuses(kubeconfigConnection("/nowhere/config"), /kubeconfig \/nowhere\/config: .*No such/);
});

/** As a user reads it. */
async function refuses(connecting: Promise<unknown>, message: RegExp): Promise<void> {
  match(await connecting.then(() => "taken", errorText), message);
}

async function inDirectory(
  use: (
    directory: string,
    connection: (
      cluster: object,
      user: object,
    ) => ReturnType<typeof kubeconfigConnection>,
  ) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await use(directory, async (cluster, user) => {
      await Deno.writeTextFile(`${directory}/config`, JSON.stringify(config(cluster, user)));
      return await kubeconfigConnection(`${directory}/config`);
    });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
