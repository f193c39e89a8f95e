/**
 * A signer for tests of rotation: the real one, with times of seconds instead of minutes and days.
 */
import { runSigner } from "../../src/signer/signer.ts";
import { openKubernetesApi } from "../../src/kubernetes/open.ts";
import { DEFAULT_SIGNER_NAME } from "../../src/identity/signing_names.ts";

const [kubeconfig, certificateSeconds] = Deno.args;
using api = await openKubernetesApi(kubeconfig);
await runSigner({
  api,
  namespace: "kube-gateway",
  signerName: DEFAULT_SIGNER_NAME,
  agentServiceAccount: "kube-gateway-agent",
  trustDomain: "cluster.local",
  certificateSeconds: Number(certificateSeconds),
  identity: crypto.randomUUID(),
  propagationMilliseconds: 2_000,
  reviewMilliseconds: 500,
}, new Promise(() => {}));
