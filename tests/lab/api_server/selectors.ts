import { type KubeObject, textAt } from "./objects.ts";
import { type Resource, resourceKey } from "./resources.ts";
import { badRequest } from "./status.ts";

export type Selector = (object: KubeObject) => boolean;

/** What both selectors of a request ask for. @throws {StatusError} when one is malformed. */
export function selectorOf(resource: Resource, query: URLSearchParams): Selector | undefined {
  const labels = query.get("labelSelector") ?? "";
  const fields = query.get("fieldSelector") ?? "";
  const tests = [
    ...splitRequirements(labels).map(labelRequirement),
    ...fields.split(",").filter(Boolean).map((text) => fieldRequirement(resource, text)),
  ];
  return tests.length === 0 ? undefined : (object) => tests.every((test) => test(object));
}

/** Commas within parentheses separate values, not requirements. */
function splitRequirements(text: string): string[] {
  return text.match(/(?:[^,(]|\([^)]*\))+/g)?.map((part) => part.trim()).filter(Boolean) ?? [];
}

function labelRequirement(text: string): Selector {
  const set = /^(\S+)\s+(in|notin)\s*\(([^)]*)\)$/.exec(text);
  if (set) {
    const [, key = "", operator, list = ""] = set;
    const values = list.split(",").map((value) => value.trim());
    return ({ metadata: { labels } }) => {
      const value = labels?.[key];
      const isIn = value !== undefined && values.includes(value);
      return operator === "in" ? isIn : !isIn;
    };
  }
  const equality = /^([^!=\s]+)\s*(==|=|!=)\s*([^!=\s]*)$/.exec(text);
  if (equality) {
    const [, key = "", operator, wanted = ""] = equality;
    return ({ metadata: { labels } }) => (labels?.[key] === wanted) === (operator !== "!=");
  }
  const existence = /^(!?)\s*([^!=\s()]+)$/.exec(text);
  if (!existence) throw badRequest(`unable to parse requirement: ${text}`);
  const [, not, key = ""] = existence;
  return ({ metadata: { labels } }) => (labels?.[key] !== undefined) === (not === "");
}

function fieldRequirement(resource: Resource, text: string): Selector {
  const [, field = "", operator, wanted = ""] = /^([^!=]+)(==|=|!=)(.*)$/.exec(text) ?? [];
  if (field === "") throw badRequest(`invalid selector: '${text}'; can't understand '${text}'`);
  const supported = ["metadata.name", "metadata.namespace", ...FIELDS[resourceKey(resource)] ?? []];
  if (!supported.includes(field)) {
    throw badRequest(`field label not supported: ${field}`);
  }
  return (object) => (textAt(object, field) === wanted) === (operator !== "!=");
}

/** The fields that a real server can select by, besides name and namespace. */
const FIELDS: Record<string, string[]> = {
  "/pods": [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
  ],
  "/namespaces": ["status.phase"],
  "/nodes": ["spec.unschedulable"],
  "/secrets": ["type"],
  "/services": ["spec.clusterIP", "spec.type"],
  "/events": [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "reason",
    "type",
  ],
  "certificates.k8s.io/certificatesigningrequests": ["spec.signerName"],
};
