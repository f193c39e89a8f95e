import { rejects, strictEqual } from "node:assert/strict";
import { makeCertificates } from "../../tests/lab/api_server/certificates.ts";

Deno.test("an API server is trusted under the given CA only, not under those that Deno trusts", async () => {
  const [ours, others] = await Promise.all([
    makeCertificates(["127.0.0.1"], []),
    makeCertificates(["127.0.0.1"], []),
  ]);
  const directory = await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/trusted.pem`, others.ca);
  const ask = async (credentials: { certificate: string; key: string }) => {
    const { certificate: cert, key } = credentials;
    const listening = { hostname: "127.0.0.1", port: 0, cert, key, onListen: () => {} };
    await using server = Deno.serve(listening, () => Response.json("answered"));
    return await askIn(`https://127.0.0.1:${server.addr.port}`, ours.ca, {
      DENO_CERT: `${directory}/trusted.pem`,
      DENO_NO_UPDATE_CHECK: "1",
    });
  };
  try {
    strictEqual(await ask(ours), "answered, and the environment is as it was");
    await rejects(ask(others), /invalid peer certificate/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

/** In a process of its own: Deno chooses the CAs that it trusts once in a process. */
async function askIn(
  server: string,
  certificateAuthority: string,
  env: Record<string, string>,
): Promise<string> {
  const script = `
    import { KubernetesApi } from "${new URL("api.ts", import.meta.url)}";
    import { errorText } from "${new URL("../error_text.ts", import.meta.url)}";
    Deno.createHttpClient({}).close(); // as to ask on a unix socket for another agent
    const [server, certificateAuthority] = Deno.args;
    using api = new KubernetesApi({ server, certificateAuthority });
    try {
      const answer = await api.request("GET", "/");
      const isKept = Deno.env.has("DENO_CERT");
      console.log(answer + (isKept ? ", and the environment is as it was" : ""));
    } catch (error) {
      console.error(errorText(error));
      Deno.exit(1);
    }`;
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", script, server, certificateAuthority],
    env,
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}
