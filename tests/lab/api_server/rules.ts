/**
 * What the API server does to objects of single resources: defaults, immutable fields, refusals.
 */
import { certificateRules } from "./certificate_requests.ts";
import { eventViolations, legacyViolations } from "./event_rules.ts";
import { metadataViolations, type Violation } from "./metadata_rules.ts";
import {
  fieldAt,
  type Fields,
  fieldsAt,
  type KubeObject,
  listAt,
  same,
  textAt,
} from "./objects.ts";
import { podStatusViolations } from "./pod_status_rules.ts";
import { type Resource, resourceKey } from "./resources.ts";
import { sliceViolations } from "./slice_rules.ts";
import { invalid } from "./status.ts";
import type { UserInfo } from "./users.ts";

/** One write, after authorization. `subresource` is "" for the object itself. */
export interface Write {
  readonly resource: Resource;
  readonly user: UserInfo;
  readonly subresource: string;
}

/** Hooks of a resource; what they get as `object` is theirs to change. */
export interface Rules {
  create?(object: KubeObject, write: Write): void;
  update?(object: KubeObject, old: KubeObject, write: Write): void;
  /** For every object that is about to be stored. */
  validate?(object: KubeObject, write: Write): void;
}

export function rulesOf(resource: Resource): Rules {
  return RULES[resourceKey(resource)] ?? {};
}

/** @throws {StatusError} 422 for metadata that no API server takes. */
export function validateMetadata(
  resource: Resource,
  { metadata }: KubeObject,
  old: KubeObject | undefined,
): void {
  refuse(resource, metadata.name, metadataViolations(resource, metadata, old?.metadata));
}

/** @throws {StatusError} 422 with the first violation. */
function refuse(resource: Resource, name: string, [first]: Violation[]): void {
  if (first !== undefined) throw invalid(resource, name, first.field, first.why);
}

function refuseChange(
  resource: Resource,
  object: KubeObject,
  old: KubeObject,
  field: string,
): void {
  if (same(fieldAt(object, field), fieldAt(old, field))) return;
  throw invalid(resource, object.metadata.name, field, "Invalid value: field is immutable");
}

/** Adds what the client left out, below one field of the object. */
function fill(object: KubeObject, field: "spec" | "status", defaults: Fields): void {
  object[field] = { ...defaults, ...fieldsAt(object, field) };
}

const RULES: Record<string, Rules> = {
  "/namespaces": {
    create(object) {
      object.status = { phase: "Active" };
      object.spec = { finalizers: ["kubernetes"] };
      const { name, labels } = object.metadata;
      object.metadata.labels = { ...labels, "kubernetes.io/metadata.name": name };
    },
  },
  "/pods": {
    create(object) {
      const serviceAccountName = textAt(object, "spec.serviceAccountName") || "default";
      object.spec = {
        restartPolicy: "Always",
        terminationGracePeriodSeconds: 30,
        dnsPolicy: "ClusterFirst",
        schedulerName: "default-scheduler",
        ...fieldsAt(object, "spec"),
        serviceAccountName,
        serviceAccount: serviceAccountName,
      };
      object.status = { phase: "Pending", qosClass: qosOf(object) };
    },
    update(object, old, { resource, subresource }) {
      refuse(resource, object.metadata.name, podStatusViolations(object, old));
      if (subresource !== "" || same(fixed(object), fixed(old))) return;
      const why = "Forbidden: pod updates may not change fields other than " +
        "`spec.containers[*].image`,`spec.initContainers[*].image`," +
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing " +
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was " +
        "previously negative)";
      throw invalid(resource, object.metadata.name, "spec", why);
    },
  },
  "/services": {
    create(object) {
      const type = textAt(object, "spec.type") || "ClusterIP";
      const address = textAt(object, "spec.clusterIP") || nextServiceAddress();
      fill(object, "spec", {
        type,
        sessionAffinity: "None",
        ...(type === "ExternalName" ? {} : { clusterIP: address, clusterIPs: [address] }),
      });
      fill(object, "spec", { ports: [] });
      object.spec = {
        ...fieldsAt(object, "spec"),
        ports: listAt(object, "spec.ports").map((port) => {
          const fields = fieldsAt({ port }, "port");
          return { protocol: "TCP", targetPort: fields.port, ...fields };
        }),
      };
      fill(object, "status", { loadBalancer: {} });
    },
    update(object, old, { resource }) {
      const [address, before] = [object, old].map((each) => textAt(each, "spec.clusterIP"));
      if (address === "") object.spec = { ...fieldsAt(object, "spec"), ...addressesOf(old) };
      else if (before !== "" && address !== before) {
        const why = `Invalid value: "${address}": field is immutable`;
        throw invalid(resource, object.metadata.name, "spec.clusterIPs[0]", why);
      }
    },
  },
  "/events": {
    validate(object, { resource }) {
      refuse(resource, object.metadata.name, legacyViolations(object));
    },
  },
  "events.k8s.io/events": {
    create(object, { resource }) {
      refuse(resource, object.metadata.name, eventViolations(object));
    },
  },
  "/secrets": {
    create(object) {
      object.type ??= "Opaque";
    },
    update(object, old, { resource }) {
      object.type ??= old.type;
      if (object.type === old.type) return;
      throw invalid(resource, object.metadata.name, "type", "field is immutable");
    },
    validate(object, { resource }) {
      const data = fieldsAt(object, "data");
      for (const [key, text] of Object.entries(fieldsAt(object, "stringData"))) {
        data[key] = new TextEncoder().encode(String(text)).toBase64();
      }
      if (Object.keys(data).length > 0) object.data = data;
      delete object.stringData;
      if (object.type !== "kubernetes.io/tls") return;
      for (const key of ["tls.crt", "tls.key"]) {
        if (data[key] === undefined) {
          throw invalid(resource, object.metadata.name, `data[${key}]`, "Required value");
        }
      }
    },
  },
  "discovery.k8s.io/endpointslices": {
    update(object, old, { resource }) {
      refuseChange(resource, object, old, "addressType");
    },
    validate(object, { resource }) {
      object.endpoints = listAt(object, "endpoints");
      refuse(resource, object.metadata.name, sliceViolations(object));
    },
  },
  "rbac.authorization.k8s.io/rolebindings": {
    update(object, old, { resource }) {
      refuseChange(resource, object, old, "roleRef");
    },
  },
  "rbac.authorization.k8s.io/clusterrolebindings": {
    update(object, old, { resource }) {
      refuseChange(resource, object, old, "roleRef");
    },
  },
  "apps/daemonsets": {
    update(object, old, { resource }) {
      refuseChange(resource, object, old, "spec.selector");
    },
  },
  "apps/deployments": {
    update(object, old, { resource }) {
      refuseChange(resource, object, old, "spec.selector");
    },
  },
  "coordination.k8s.io/leases": {
    update(object, _old, { resource }) {
      if (object.metadata.resourceVersion !== "") return;
      const why = "Invalid value: 0: must be specified for an update";
      throw invalid(resource, object.metadata.name, "metadata.resourceVersion", why);
    },
  },
  "certificates.k8s.io/certificatesigningrequests": certificateRules,
};

/** What of a pod's spec nobody may change. */
function fixed(pod: KubeObject): Fields {
  const {
    tolerations: _tolerations,
    activeDeadlineSeconds: _deadline,
    terminationGracePeriodSeconds: _grace,
    ...spec
  } = fieldsAt(pod, "spec");
  const withoutImage = (list: unknown) =>
    (Array.isArray(list) ? list : []).map((container: Fields) => ({ ...container, image: "" }));
  const { containers, initContainers } = spec;
  return {
    ...spec,
    containers: withoutImage(containers),
    initContainers: withoutImage(initContainers),
  };
}

function qosOf(pod: KubeObject): string {
  const resources = listAt(pod, "spec.containers").map((one) => fieldsAt(one, "resources"));
  if (resources.every((one) => Object.keys(one).length === 0)) return "BestEffort";
  const isGuaranteed = resources.every((one) => {
    const limits = fieldsAt(one, "limits");
    const requests = { ...limits, ...fieldsAt(one, "requests") };
    return "cpu" in limits && "memory" in limits && same(limits, requests);
  });
  return isGuaranteed ? "Guaranteed" : "Burstable";
}

function addressesOf(service: KubeObject): Fields {
  const { clusterIP, clusterIPs } = fieldsAt(service, "spec");
  return clusterIP === undefined ? {} : { clusterIP, clusterIPs };
}

// Random, so that a server that was started again does not repeat itself.
function nextServiceAddress(): string {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint8Array(2));
  return `10.96.${high}.${low}`;
}
