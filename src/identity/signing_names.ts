/** What the agent's requests, the signer and the manifests must agree on. */

/** The signer's name when `--signer-name` is not given. */
export const DEFAULT_SIGNER_NAME = "kube-gateway.io/pod";

/**
 * Annotations of a CertificateSigningRequest: which pod it is for. The PKCS#10 in it carries the
 * key only.
 */
export const POD_NAMESPACE_ANNOTATION = "kube-gateway.io/pod-namespace";
export const POD_NAME_ANNOTATION = "kube-gateway.io/pod-name";
export const POD_UID_ANNOTATION = "kube-gateway.io/pod-uid";
/** One or two addresses, joined by a comma. */
export const POD_ADDRESSES_ANNOTATION = "kube-gateway.io/pod-addresses";

/** A CertificateSigningRequest's label: the node whose agent has filed it. */
export const NODE_LABEL = "kube-gateway.io/node";

export const REQUESTS_PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/**
 * The usages of the certificate's template, in the API's words (certificates.k8s.io/v1 KeyUsage).
 */
export const USAGES = ["digital signature", "server auth", "client auth"] as const;

/** The Secret of type kubernetes.io/tls, in the gateway's namespace, that holds the CA. */
export const CA_SECRET = "kube-gateway-ca";

/**
 * The ConfigMap in the gateway's namespace that holds the roots, as PEM under `TRUST_BUNDLE_KEY`.
 */
export const TRUST_BUNDLE = "kube-gateway-trust-bundle";
export const TRUST_BUNDLE_KEY = "ca-bundle.pem";

/** The bundle's annotation with the signer's record of each root, as JSON (signer/bundle.ts). */
export const ROOTS_ANNOTATION = "kube-gateway.io/roots";

/**
 * The user extra that the API server fills in from a token bound to a pod, by default since
 * Kubernetes 1.30.
 */
export const NODE_CLAIM = "authentication.kubernetes.io/node-name";
