/**
 * ValidatingAdmissionPolicies, evaluated: the API server for tests is started with this module. In
 * force are those that have been applied to it and are bound; without a server, those of
 * daemonset/. Of the API (admissionregistration.k8s.io/v1) it knows what those manifests use.
 */
import { Environment } from "@marcbachmann/cel-js";
import { parseAllDocuments } from "yaml";
import type { AdmissionRequest, ListObjects, Refusal } from "./admission.ts";
import type { KubeObject } from "./objects.ts";

interface Policy {
  metadata: { name: string };
  spec: {
    failurePolicy: "Fail" | "Ignore";
    paramKind?: { apiVersion: string; kind: string };
    matchConstraints: {
      namespaceSelector?: { matchLabels: Record<string, string> };
      resourceRules: {
        apiGroups: string[];
        resources: string[];
        resourceNames?: string[];
        operations: string[];
      }[];
    };
    matchConditions?: { expression: string }[];
    variables?: { name: string; expression: string }[];
    validations: { expression: string; message: string; reason?: string }[];
  };
}

interface Binding {
  spec: {
    policyName: string;
    paramRef?: { namespace: string; selector: { matchExpressions: { key: string }[] } };
  };
}

const GROUP = "admissionregistration.k8s.io/v1";
const environment = new Environment({ unlistedVariablesAreDyn: true, enableOptionalTypes: true });

/** Why a policy refuses the request, or undefined. */
export default function admit(
  request: AdmissionRequest,
  list: ListObjects = listManifests,
): Refusal | undefined {
  const policies = list(GROUP, "ValidatingAdmissionPolicy", "") as unknown as Policy[];
  const bindings = list(GROUP, "ValidatingAdmissionPolicyBinding", "") as unknown as Binding[];
  for (const { spec: { policyName, paramRef } } of bindings) {
    const policy = policies.find(({ metadata }) => metadata.name === policyName);
    if (policy === undefined || !matches(policy.spec.matchConstraints, request)) continue;
    for (const params of paramsOf(policy, paramRef, list)) {
      const why = judge(policy, request, params);
      if (why !== undefined) return why;
    }
  }
  return undefined;
}

/**
 * What the policy is evaluated with, once each; nothing where it takes parameters and there are
 * none.
 */
function paramsOf(
  { spec: { paramKind } }: Policy,
  paramRef: Binding["spec"]["paramRef"],
  list: ListObjects,
): (KubeObject | null)[] {
  if (paramKind === undefined || paramRef === undefined) return [null];
  return list(paramKind.apiVersion, paramKind.kind, paramRef.namespace).filter(({ metadata }) =>
    paramRef.selector.matchExpressions.every(({ key }) => metadata.labels?.[key] !== undefined)
  );
}

function judge(
  { metadata, spec }: Policy,
  request: AdmissionRequest,
  params: KubeObject | null,
): Refusal | undefined {
  try {
    const failed = refusal(spec, request, params);
    if (failed === undefined) return undefined;
    const { message, reason = "Invalid" } = failed;
    return { reason, message: `'${metadata.name}' denied request: ${message}` };
  } catch (error) {
    if (spec.failurePolicy === "Ignore") return undefined;
    return { reason: "Invalid", message: `'${metadata.name}' failed: ${error}` };
  }
}

function refusal(
  spec: Policy["spec"],
  request: AdmissionRequest,
  params: KubeObject | null,
): Policy["spec"]["validations"][number] | undefined {
  const { operation, user: userInfo, namespace, name, object, oldObject } = request;
  const known = { request: { operation, userInfo, namespace, name }, object, oldObject, params };
  const value = (expression: string, variables = {}) =>
    compiled(expression)({ ...known, variables }) as unknown;
  const { matchConditions = [], variables: defined = [], validations } = spec;
  if (!matchConditions.every(({ expression }) => value(expression) === true)) return undefined;
  const variables = Object.fromEntries(
    defined.map(({ name, expression }) => [name, value(expression)]),
  );
  return validations.find(({ expression }) => value(expression, variables) !== true);
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
  { group, resource, subresource, operation, namespace, name }: AdmissionRequest,
): boolean {
  const wanted = namespaceSelector?.matchLabels["kubernetes.io/metadata.name"];
  // Namespaces are selected by themselves, other objects of the whole cluster always.
  const own = group === "" && resource === "namespaces" ? name : namespace;
  if (wanted !== undefined && own !== "" && wanted !== own) return false;
  const full = subresource === "" ? resource : `${resource}/${subresource}`;
  return resourceRules.some(({ apiGroups, resources, resourceNames = [], operations }) =>
    apiGroups.includes(group) && resources.includes(full) && operations.includes(operation) &&
    (resourceNames.length === 0 || resourceNames.includes(name))
  );
}

const DIRECTORY = new URL("../../../daemonset/", import.meta.url);
const manifests = [...Deno.readDirSync(DIRECTORY)]
  .filter(({ name }) => name.endsWith(".yaml"))
  .flatMap(({ name }) => parseAllDocuments(Deno.readTextFileSync(new URL(name, DIRECTORY))))
  .map((document) => document.toJS() as KubeObject);

function listManifests(apiVersion: string, kind: string): KubeObject[] {
  return manifests.filter((one) => one.apiVersion === apiVersion && one.kind === kind);
}
