import { dirname, resolve } from "node:path";
import { rootCertificates } from "node:tls";
import * as v from "valibot";
import { parse } from "yaml";
import { type ClusterConnection, tokenFile } from "./connection.ts";

/**
 * The connection of a kubeconfig's current context. Certificates, tokens and token files are read here; only
 * for plugins is client-node loaded, which costs 75 MB.
 *
 * @throws {Error} when the file cannot be used, saying why.
 */
export async function kubeconfigConnection(file: string): Promise<ClusterConnection> {
  const unusable = (why: string, cause?: unknown) =>
    new Error(`cannot use the kubeconfig ${file}: ${why}`, { cause });
  let config: v.InferOutput<typeof KubeconfigSchema>;
  try {
    config = v.parse(KubeconfigSchema, parse(await Deno.readTextFile(file)));
  } catch (cause) {
    throw unusable((cause as Error).message, cause);
  }
  const current = config["current-context"];
  const context = config.contexts?.find(({ name }) => name === current)?.context;
  const cluster = config.clusters?.find(({ name }) => name === context?.cluster)?.cluster;
  const user = config.users?.find(({ name }) => name === context?.user)?.user;
  if (cluster === undefined || user === undefined) {
    throw unusable(`its current context "${current ?? ""}" has no cluster or no user`);
  }
  if (cluster["insecure-skip-tls-verify"]) {
    throw unusable("it says insecure-skip-tls-verify; give it certificate-authority-data instead");
  }
  if (user.username !== undefined) throw unusable("Kubernetes has no passwords since 1.19");

  // As kubectl does: paths are relative to the file, and data go before files.
  const text = async (data: string | undefined, path: string | undefined) =>
    data !== undefined
      ? new TextDecoder().decode(Uint8Array.fromBase64(data))
      : path === undefined
      ? undefined
      : await Deno.readTextFile(resolve(dirname(file), path));
  const certificate = await text(user["client-certificate-data"], user["client-certificate"]);
  const key = await text(user["client-key-data"], user["client-key"]);
  return {
    server: cluster.server.replace(/\/+$/, ""),
    certificateAuthority: await text(
      cluster["certificate-authority-data"],
      cluster["certificate-authority"],
    ) ?? rootCertificates.join("\n"), // a server with a certificate from a public CA
    ...(certificate === undefined || key === undefined
      ? {}
      : { clientCertificate: { certificate, key } }),
    ...await tokenOf(user, file),
  };
}

type User = v.InferOutput<typeof UserSchema>;

async function tokenOf(user: User, file: string): Promise<Pick<ClusterConnection, "token">> {
  const { token, tokenFile: path } = user;
  if (path !== undefined) return { token: tokenFile(resolve(dirname(file), path)) };
  if (token !== undefined) return { token: () => Promise.resolve(token) };
  if (user.exec === undefined && user["auth-provider"] === undefined) return {};
  const { pluginCredentials } = await import("./kubeconfig_plugin.ts");
  return await pluginCredentials(file);
}

const text = v.optional(v.string());

const UserSchema = v.object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
  username: text,
  exec: v.optional(v.unknown()),
  "auth-provider": v.optional(v.unknown()),
});

/** client-go's tools/clientcmd/api/v1, as far as it is used here. */
const KubeconfigSchema = v.object({
  "current-context": text,
  contexts: v.optional(v.array(v.object({
    name: v.string(),
    context: v.object({ cluster: v.string(), user: v.string() }),
  }))),
  clusters: v.optional(v.array(v.object({
    name: v.string(),
    cluster: v.object({
      server: v.pipe(v.string(), v.regex(/^https:\/\//, "needs https://")),
      "certificate-authority": text,
      "certificate-authority-data": text,
      "insecure-skip-tls-verify": v.optional(v.boolean()),
    }),
  }))),
  users: v.optional(v.array(v.object({ name: v.string(), user: UserSchema }))),
});
