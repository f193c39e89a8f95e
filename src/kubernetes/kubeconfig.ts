import { dirname, resolve } from "node:path";
import { rootCertificates } from "node:tls";
import * as v from "valibot";
import { parse } from "yaml";
import { type ClusterConnection, tokenFile } from "./connection.ts";

/**
 * The connection of a kubeconfig's current context. Certificates, tokens and token files are read
 * here; only for plugins is client-node's KubeConfig loaded: an idle process with it takes 124 MB,
 * with this file 56.
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
    throw unusable(placeOf(cause), cause);
  }
  const current = config["current-context"];
  const context = config.contexts?.find(({ name }) => name === current)?.context;
  const cluster = config.clusters?.find(({ name }) => name === context?.cluster)?.cluster;
  const user = config.users?.find(({ name }) => name === context?.user)?.user;
  if (cluster === undefined || user === undefined) {
    throw unusable(`its current context "${current ?? ""}" has no cluster or no user`);
  }
  const refused = refusal(`cluster "${context?.cluster}"`, cluster, REFUSED.cluster) ??
    refusal(`user "${context?.user}"`, user, REFUSED.user);
  if (refused !== undefined) throw unusable(refused);

  // As kubectl does: paths are relative to the file, and data go before files.
  const text = async <Field extends string>(
    part: { readonly [Name in Field | `${Field}-data`]?: string | undefined },
    field: Field,
  ) => {
    const data = part[`${field}-data`];
    const path = part[field];
    try {
      if (data !== undefined) return new TextDecoder().decode(Uint8Array.fromBase64(data));
      return path === undefined ? undefined : await Deno.readTextFile(resolve(dirname(file), path));
    } catch (cause) {
      throw unusable(`its ${field}${data === undefined ? "" : "-data"} cannot be read`, cause);
    }
  };
  const certificate = await text(user, "client-certificate");
  const key = await text(user, "client-key");
  return {
    server: cluster.server.replace(/\/+$/, ""),
    certificateAuthority: await text(cluster, "certificate-authority") ??
      rootCertificates.join("\n"), // a server with a certificate from a public CA
    ...(certificate === undefined || key === undefined
      ? {}
      : { clientCertificate: { certificate, key } }),
    ...await tokenOf(user, file),
  };
}

/**
 * placeOf names the field that is not as it must be.
 */
function placeOf(error: unknown): string {
  const path = error instanceof v.ValiError ? v.getDotPath(error.issues[0]) : undefined;
  return path === undefined || path === null ? "it cannot be read" : `${path} is not as it must be`;
}

type User = v.InferOutput<typeof UserSchema>;

async function tokenOf(user: User, file: string): Promise<Pick<ClusterConnection, "token">> {
  const { token, tokenFile: path } = user;
  if (path !== undefined) return { token: tokenFile(resolve(dirname(file), path)) };
  if (token !== undefined) return { token: () => Promise.resolve(token) };
  if (isAbsent(user.exec) && isAbsent(user["auth-provider"])) return {};
  const { pluginCredentials } = await import("./kubeconfig_plugin.ts");
  return await pluginCredentials(file);
}

/** Why a part of the kubeconfig cannot be done as it says; undefined when it can. */
function refusal(
  what: string,
  part: Readonly<Record<string, unknown>>,
  refused: Readonly<Record<string, string>>,
): string | undefined {
  const field = Object.keys(refused).find((name) => !isAbsent(part[name]));
  return field === undefined ? undefined : `its ${what} has ${field}, ${refused[field]}`;
}

/** As client-go sees it, for which a field that is not there has its type's zero value. */
function isAbsent(value: unknown): boolean {
  return !value || typeof value === "object" && Object.keys(value).length === 0;
}

const IMPERSONATION =
  "and no request is made in another's name: give the user credentials of its own";
const PASSWORDS = "and Kubernetes has no passwords since 1.19: give it a token or a certificate";

/**
 * REFUSED has the fields that say how to connect and as whom, and that are not followed here: to
 * ignore one would be to do something else than it says.
 */
const REFUSED = {
  cluster: {
    "insecure-skip-tls-verify":
      "and then anybody could answer for the server: give it certificate-authority-data instead",
    "proxy-url":
      "and connections are made directly: give it a server that can be reached without a proxy",
    "tls-server-name":
      "and the certificate must name the host in server: give it a server that it names",
  },
  user: {
    as: IMPERSONATION,
    "as-uid": IMPERSONATION,
    "as-groups": IMPERSONATION,
    "as-user-extra": IMPERSONATION,
    username: PASSWORDS,
    password: PASSWORDS,
  },
};

const text = v.pipe(v.nullish(v.string()), v.transform((given) => given || undefined));

const UserSchema = v.looseObject({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  token: text,
  tokenFile: text,
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
    cluster: v.looseObject({
      server: v.pipe(v.string(), v.regex(/^https:\/\//, "needs https://")),
      "certificate-authority": text,
      "certificate-authority-data": text,
    }),
  }))),
  users: v.optional(v.array(v.object({ name: v.string(), user: UserSchema }))),
});
