/** What the API server does to objects of single resources: defaults, immutable fields, refusals. */
import { certificateRules } from "./certificate_requests.ts";
import { type Fields, fieldsAt, type KubeObject, listAt, same, textAt } from "./objects.ts";
import { type Resource, resourceKey } from "./resources.ts";
import { badRequest, invalid } from "./status.ts";
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

/** @throws {StatusError} 422 for a name or label that no API server takes. */
export function validateMetadata(resource: Resource, { metadata }: KubeObject): void {
  const { name, labels = {} } = metadata;
  const isName = resource.group === "rbac.authorization.k8s.io"
    ? /^[^/%]+$/.test(name) && name !== "." && name !== ".."
    : name.length <= 253 && DNS_SUBDOMAIN.test(name);
  if (!isName) throw invalid(resource, name, "metadata.name", `Invalid value: "${name}"`);
  for (const [key, value] of Object.entries(labels)) {
    const [last = "", prefix] = key.split("/").reverse();
    if (!LABEL.test(last) || last === "" || last.length > 63 || prefix === "") {
      throw invalid(resource, name, "metadata.labels", `Invalid value: "${key}"`);
    }
    if (typeof value !== "string") throw badRequest(`json: cannot unmarshal into label ${key}`);
    if (!LABEL.test(value) || value.length > 63) {
      throw invalid(resource, name, "metadata.labels", `Invalid value: "${value}"`);
    }
  }
  for (const [key, value] of Object.entries(metadata.annotations ?? {})) {
    if (typeof value !== "string") {
      throw badRequest(`json: cannot unmarshal into annotation ${key}`);
    }
  }
}

const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL = /^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$/;

/** Adds what the client left out, below one field of the object. */
function fill(object: KubeObject, field: "spec" | "status", defaults: Fields): void {
  object[field] = { ...defaults, ...fieldsAt(object, field) };
}

const RULES: Record<string, Rules> = {
  "/namespaces": {
    create(object) {
      fill(object, "status", { phase: "Active" });
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
      const { namespace = "", name } = object.metadata;
      const involved = textAt(object, "involvedObject.namespace");
      // An event about a cluster's object, such as a node, belongs in "default".
      if (involved === namespace || (involved === "" && namespace === "default")) return;
      throw invalid(
        resource,
        name,
        "involvedObject.namespace",
        `Invalid value: "${involved}": does not match event.namespace`,
      );
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
      if (object.addressType === old.addressType) return;
      throw invalid(resource, object.metadata.name, "addressType", "field is immutable");
    },
    validate(object, { resource }) {
      const { name } = object.metadata;
      const endpoints = listAt(object, "endpoints");
      object.endpoints = endpoints;
      if (!["IPv4", "IPv6", "FQDN"].includes(String(object.addressType))) {
        throw invalid(resource, name, "addressType", `Unsupported value: "${object.addressType}"`);
      }
      if (endpoints.length > 1000) {
        throw invalid(resource, name, "endpoints", "Too many: must have at most 1000 items");
      }
      endpoints.forEach((endpoint, index) => {
        const { length } = listAt(endpoint, "addresses");
        if (length >= 1 && length <= 100) return;
        throw invalid(resource, name, `endpoints[${index}].addresses`, "must have 1 to 100 items");
      });
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
