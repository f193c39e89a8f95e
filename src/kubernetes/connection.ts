/** How to reach an API server, and as whom. */
export interface ClusterConnection {
  /** `https://host:port`, without a slash at the end. */
  readonly server: string;
  /** PEM: one or more. The server is trusted under these only. */
  readonly certificateAuthority: string;
  /** PEM of a client certificate and its key, for those that authenticate by one. */
  readonly clientCertificate?: { readonly certificate: string; readonly key: string };
  /** Asked before every request, because tokens rotate; undefined where a certificate is enough. */
  readonly token?: () => Promise<string>;
}

/**
 * The connection of a process in a pod, as Kubernetes describes it to every pod
 * (kubernetes.io/docs/tasks/run-application/access-api-from-pod): the environment names the server,
 * the service account's volume holds CA and token, and kubelet writes a fresh token before the old
 * one expires.
 *
 * @throws {Error} outside a pod.
 */
export async function inClusterConnection(): Promise<ClusterConnection> {
  const host = Deno.env.get("KUBERNETES_SERVICE_HOST");
  const port = Deno.env.get("KUBERNETES_SERVICE_PORT");
  if (!host || !port) {
    throw new Error(
      "not in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set. " +
        "Outside a cluster, name one by --kubeconfig FILE",
    );
  }
  return {
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    certificateAuthority: await Deno.readTextFile(`${SERVICE_ACCOUNT}/ca.crt`),
    token: tokenFile(`${SERVICE_ACCOUNT}/token`),
  };
}

/**
 * tokenFile reads a token from a file that is written anew long before the old token expires (by
 * kubelet when a fifth of its life is left). In a burst of requests the file is read once.
 */
export function tokenFile(path: string): () => Promise<string> {
  let token = "";
  let readAt = -Infinity;
  return async () => {
    if (performance.now() - readAt > FRESH_MILLISECONDS) {
      token = (await Deno.readTextFile(path)).trim();
      readAt = performance.now();
    }
    return token;
  };
}

const FRESH_MILLISECONDS = 1_000;
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
