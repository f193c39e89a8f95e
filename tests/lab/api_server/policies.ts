/**
 * The ValidatingAdmissionPolicies of daemonset/, evaluated: the API server for tests is started with this module.
 * Of the API (admissionregistration.k8s.io/v1) it knows what those manifests use.
 */
import { Environment } from "@marcbachmann/cel-js";
import { parseAllDocuments } from "yaml";
import type { AdmissionRequest } from "./admission.ts";

interface Policy {
  kind: string;
  metadata: { name: string };
  spec: {
    matchConstraints: {
      namespaceSelector?: { matchLabels: Record<string, string> };
      resourceRules: { apiGroups: string[]; resources: string[]; operations: string[] }[];
    };
    matchConditions: { expression: string }[];
    variables: { name: string; expression: string }[];
    validations: { expression: string; message: string }[];
  };
}

const FILE = new URL("../../../daemonset/30-policies.yaml", import.meta.url);
const policies = parseAllDocuments(Deno.readTextFileSync(FILE))
  .map((document) => document.toJS() as Policy)
  .filter(({ kind }) => kind === "ValidatingAdmissionPolicy");
const environment = new Environment({ unlistedVariablesAreDyn: true, enableOptionalTypes: true });

/** Why a policy refuses the request, or undefined. An expression that fails refuses, too (failurePolicy: Fail). */
export default function admit(request: AdmissionRequest): string | undefined {
  for (const { metadata, spec } of policies) {
    if (!matches(spec.matchConstraints, request)) continue;
    try {
      const why = refusal(spec, request);
      if (why !== undefined) return `${metadata.name}: ${why}`;
    } catch (error) {
      return `${metadata.name}: ${error}`;
    }
  }
  return undefined;
}

type Program = ReturnType<typeof environment.parse>;
const programs = new Map<string, Program>();

/** Each expression is parsed once. */
function compiled(expression: string): Program {
  const known = programs.get(expression);
  if (known !== undefined) return known;
  const program = environment.parse(expression);
  programs.set(expression, program);
  return program;
}

function matches(
  { namespaceSelector, resourceRules }: Policy["spec"]["matchConstraints"],
  { group, resource, subresource, operation, namespace }: AdmissionRequest,
): boolean {
  const wanted = namespaceSelector?.matchLabels["kubernetes.io/metadata.name"];
  if (wanted !== undefined && wanted !== namespace) return false;
  const full = subresource === "" ? resource : `${resource}/${subresource}`;
  return resourceRules.some(({ apiGroups, resources, operations }) =>
    apiGroups.includes(group) && resources.includes(full) && operations.includes(operation)
  );
}

function refusal(spec: Policy["spec"], request: AdmissionRequest): string | undefined {
  const { operation, user: userInfo, namespace, name, object, oldObject } = request;
  const known = { request: { operation, userInfo, namespace, name }, object, oldObject };
  const value = (expression: string, variables = {}) =>
    compiled(expression)({ ...known, variables }) as unknown;
  if (!spec.matchConditions.every(({ expression }) => value(expression) === true)) return undefined;
  const variables = Object.fromEntries(
    spec.variables.map(({ name, expression }) => [name, value(expression)]),
  );
  return spec.validations.find(({ expression }) => value(expression, variables) !== true)?.message;
}
