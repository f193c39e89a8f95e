/** Names and numbers that two sides must agree on. Tuning lives beside what it tunes. */

/**
 * The port on which every enrolled pod's inbound relay listens: mutual TLS, on the pod's own
 * addresses.
 */
export const TUNNEL_PORT = 18443;

/** The loopback port to which `connect()` is redirected, unless the pod already uses it. */
export const OUTBOUND_PORT = 18000;

/** The annotation that enrols a pod: `"true"` or `"false"`, nothing else. */
export const ANNOTATION = "kube-gateway.io";

/** `"strict"` or `"permissive"` (the default): whether plain connections to the pod are refused. */
export const INBOUND_ANNOTATION = "kube-gateway.io/inbound";

/**
 * `"strict"` or `"permissive"` (the default): whether the pod's plain connections inside the
 * cluster are refused.
 */
export const EGRESS_ANNOTATION = "kube-gateway.io/egress";

/** Which identities may connect to the pod (policy.ts). */
export const ALLOW_ANNOTATION = "kube-gateway.io/allow";

/**
 * How long connections that are older than a pod's enrolment may go on in clear: `30s`, `10m`,
 * `2h`; absent: for ever.
 */
export const GRACE_ANNOTATION = "kube-gateway.io/grace";

/**
 * Of a namespace: `"strict"` is the least that its pods are, in both directions, whatever they say
 * themselves.
 */
export const FLOOR_ANNOTATION = "kube-gateway.io/floor";

/**
 * The label that marks an EndpointSlice as a part of the registry; its value is the publishing
 * node.
 */
export const REGISTRY_LABEL = "kube-gateway.io/registry-node";

/** The registry slice's annotation that maps a pod's UID to its SPIFFE ID, as a JSON object. */
export const IDENTITIES_ANNOTATION = "kube-gateway.io/identities";

/** The namespace in which the gateway itself runs and keeps its registry. */
export const GATEWAY_NAMESPACE = "kube-gateway";

/** The trust domain when `--trust-domain` is not given: the cluster's default DNS domain. */
export const DEFAULT_TRUST_DOMAIN = "cluster.local";

/** The pod condition by which `kubectl wait` learns that a pod is enrolled. */
export const SECURED_CONDITION = "kube-gateway.io/Secured";
