import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import type { ClusterConnection } from "./connection.ts";

/**
 * pluginCredentials asks a kubeconfig's exec plugin or auth provider: for a token, which
 * client-node renews when it has expired, or for a client certificate, which stays as it is. An
 * OIDC provider must come with its `idp-certificate-authority`: this process trusts no CA by
 * itself.
 *
 * @throws {Error} when the plugin fails.
 */
export async function pluginCredentials(
  file: string,
): Promise<Pick<ClusterConnection, "token" | "clientCertificate">> {
  const config = new KubeConfig();
  config.loadFromFile(file);
  const { token, certificate, key } = await credentialsOf(config).catch((cause) => {
    throw new Error(`the plugin of the kubeconfig ${file} has failed`, { cause });
  });
  if (token === undefined) {
    if (certificate !== undefined && key !== undefined) {
      return { clientCertificate: { certificate, key } };
    }
    throw new Error(`the plugin of the kubeconfig ${file} gives neither a token nor a certificate`);
  }
  return { token: async () => (await credentialsOf(config)).token ?? "" };
}

/** What client-node would set on a request. */
async function credentialsOf(config: KubeConfig): Promise<{
  token: string | undefined;
  certificate: string | undefined;
  key: string | undefined;
}> {
  const options: Parameters<KubeConfig["applyToHTTPSOptions"]>[0] = {};
  await config.applyToHTTPSOptions(options);
  const headers = new Headers(options.headers as Record<string, string> | undefined);
  const [, token] = /^Bearer (.+)$/.exec(headers.get("authorization") ?? "") ?? [];
  return { token, certificate: textOf(options.cert), key: textOf(options.key) };
}

function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return value instanceof Uint8Array ? new TextDecoder().decode(value) : undefined;
}
