import { KubernetesApi } from "./api.ts";
import { inClusterConnection } from "./connection.ts";

/**
 * A client by a kubeconfig, or, without one, of the cluster that this process runs in.
 *
 * @throws {Error} when there is no way to an API server, saying what is missing.
 */
export async function openKubernetesApi(kubeconfig: string | undefined): Promise<KubernetesApi> {
  if (kubeconfig === undefined) return new KubernetesApi(await inClusterConnection());
  // An agent in a cluster needs no YAML.
  const { kubeconfigConnection } = await import("./kubeconfig.ts");
  return new KubernetesApi(await kubeconfigConnection(kubeconfig));
}
