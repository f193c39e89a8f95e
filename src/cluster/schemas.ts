/**
 * The parts of Kubernetes objects that are read here, with the API server's own rules for them.
 * Fields that are not listed are passed over, so a newer Kubernetes may have more of them.
 */

import * as v from "valibot";
import { canonicalAddress } from "../addresses.ts";
import { isDnsLabel, isDnsSubdomain, isPodUid, quoted } from "../names.ts";

const name = v.pipe(
  v.string(),
  v.check(isDnsSubdomain, (issue) => `${quoted(issue.input)} is no Kubernetes name`),
);
const namespace = v.pipe(
  v.string(),
  v.check(isDnsLabel, (issue) => `${quoted(issue.input)} is no namespace name`),
);
const uid = v.pipe(
  v.string(),
  v.check(isPodUid, (issue) => `${quoted(issue.input)} is no UID`),
);
const address = v.pipe(
  v.string(),
  v.check(
    (text) => text === "" || canonicalAddress(text) !== undefined,
    (issue) => `${quoted(issue.input)} is no IP address`,
  ),
);
const short = v.pipe(
  v.string(),
  v.check((text) => text.length <= 253, (issue) => `${quoted(issue.input)} is too long`),
);
const text = v.record(
  v.string(),
  v.string("must be a string; in YAML, true and numbers need quotes"),
);

/** Go writes an absent list, map or pointer as null; it means the same as leaving it out. */
function maybe<const S extends v.GenericSchema>(schema: S) {
  return v.pipe(v.nullish(schema), v.transform((value) => value ?? undefined));
}

/** Any object, or a list of objects. */
export const KindSchema = v.object({ kind: short, items: maybe(v.array(v.unknown())) });

/** Enough of an object to tell whether it is ours. */
export const LabelledSchema = v.object({ metadata: v.object({ labels: maybe(text) }) });

/** What every namespaced object has. */
export const NamedSchema = v.object({
  metadata: v.object({ name: short, namespace: v.optional(short) }),
});

/** A core/v1 Pod. */
export const PodSchema = v.object({
  metadata: v.object({
    name,
    namespace: maybe(namespace),
    uid,
    annotations: maybe(text),
    deletionTimestamp: maybe(short),
  }),
  spec: maybe(v.object({
    nodeName: maybe(v.union([v.literal(""), name])),
    serviceAccountName: maybe(v.union([v.literal(""), name])),
    hostNetwork: maybe(v.boolean()),
    runtimeClassName: maybe(v.union([v.literal(""), name])),
  })),
  status: maybe(v.object({
    phase: maybe(short),
    podIP: maybe(address),
    podIPs: maybe(v.array(v.object({ ip: maybe(address) }))),
    conditions: maybe(v.array(v.object({
      type: v.string(),
      status: maybe(v.string()),
      reason: maybe(v.string()),
      message: maybe(v.string()),
      lastTransitionTime: maybe(v.string()),
    }))),
  })),
});

/** A node.k8s.io/v1 RuntimeClass; its handler is a DNS label. */
export const RuntimeClassSchema = v.object({ metadata: v.object({ name }), handler: short });

/** A core/v1 Namespace. */
export const NamespaceSchema = v.object({
  metadata: v.object({
    name: namespace,
    annotations: maybe(text),
    deletionTimestamp: maybe(short),
  }),
});

/** A discovery.k8s.io/v1 EndpointSlice. */
export const SliceSchema = v.object({
  metadata: v.object({ name, namespace: maybe(namespace), annotations: maybe(text) }),
  addressType: short,
  endpoints: maybe(v.pipe(
    v.array(v.object({
      addresses: v.pipe(v.array(short), v.maxLength(100)),
      conditions: maybe(v.object({ ready: maybe(v.boolean()) })),
      nodeName: maybe(short),
      targetRef: maybe(v.object({
        kind: v.optional(short, ""),
        namespace: v.optional(short, ""),
        name: v.optional(short, ""),
        uid: v.optional(short, ""),
      })),
    })),
    v.maxLength(1000), // discovery.k8s.io/v1
  )),
  ports: maybe(v.pipe(
    v.array(v.object({
      name: v.optional(short),
      port: v.optional(v.number()),
      protocol: v.optional(short),
    })),
    v.maxLength(100),
  )),
});

/** core/v1 Node. */
export const NodeSchema = v.object({
  metadata: v.object({ name, labels: maybe(text) }),
  spec: maybe(v.object({
    podCIDR: maybe(short),
    podCIDRs: maybe(v.pipe(v.array(short), v.maxLength(16))),
  })),
  status: maybe(v.object({ addresses: maybe(v.array(v.object({ address: short }))) })),
});
