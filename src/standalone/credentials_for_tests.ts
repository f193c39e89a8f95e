import type { Credentials } from "../native/tls_context.ts";
import { newKeyAndRequest } from "../identity/csr.ts";
import { openInProcessIssuer } from "./in_process.ts";

export const TRUST_DOMAIN = "cluster.local";

/** What a pod shows whose CA lies in a directory, or is made there. */
export async function credentials(directory: string, address = "10.0.0.1"): Promise<Credentials> {
  const issuer = await openInProcessIssuer({
    directory: `${directory}/ca`,
    trustDomain: TRUST_DOMAIN,
    ttlSeconds: 3600,
  });
  const request = await newKeyAndRequest();
  const pod = {
    uid: "u",
    namespace: "shop",
    name: "web",
    serviceAccount: "web",
    addresses: [address],
  };
  const { chain } = await issuer.issue(pod, request);
  return { chain, privateKey: request.privateKey, roots: await issuer.trustBundle() };
}
