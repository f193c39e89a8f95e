import { GATEWAY_NAMESPACE } from "../constants.ts";
import type { KubernetesApi } from "../kubernetes/api.ts";
import { openKubernetesApi } from "../kubernetes/open.ts";
import { HttpServer } from "../http_server.ts";
import { listen, type ListenAddress } from "../listen_address.ts";
import { runSigner, SignerHealth } from "../signer/signer.ts";
import { addressOption, optionalText, type Options, textOption } from "./command_line.ts";
import { keepMemoryPrivate } from "../native/secrecy.ts";
import { configureLog, signalled } from "./process.ts";

/** `kube-gateway signer`. Resolves after SIGTERM or SIGINT. */
export async function signerCommand(options: Options): Promise<void> {
  keepMemoryPrivate();
  await configureLog(options);
  using api = await openKubernetesApi(optionalText(options, "kubeconfig"));
  await serveSigner(options, api, signalled("SIGTERM", "SIGINT"));
}

/** Resolves after `stop`, the lease given back. */
export async function serveSigner(
  options: Options,
  api: KubernetesApi,
  stop: Promise<void>,
): Promise<void> {
  const health = new SignerHealth();
  const address = addressOption(options, "health-address");
  using _server = address === undefined ? undefined : serveHealth(address, health);
  await runSigner(
    {
      api,
      namespace: GATEWAY_NAMESPACE,
      signerName: textOption(options, "signer-name"),
      agentServiceAccount: textOption(options, "agent-service-account"),
      trustDomain: textOption(options, "trust-domain"),
      certificateSeconds: Number(textOption(options, "cert-ttl")),
      identity: `${Deno.hostname()}_${crypto.randomUUID()}`, // as client-go names candidates
    },
    stop,
    health,
  );
}

/** Alive while it answers; ready while it could sign if it led. */
function serveHealth(address: ListenAddress, health: SignerHealth): HttpServer {
  return new HttpServer(listen(address), {
    "/healthz": () => ({ text: "ok\n" }),
    "/readyz": () => {
      if (health.problem !== undefined) return { status: 503, text: `${health.problem}\n` };
      return { text: health.leading ? "ok, leading\n" : "ok, standing by\n" };
    },
  });
}
