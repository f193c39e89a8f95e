/** Kubernetes objects as the server keeps them. What is stored is never changed, only replaced. */

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
}

export interface Metadata {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generateName?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
  [field: string]: unknown;
}

export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: Metadata;
  [field: string]: unknown;
}

export type Fields = Record<string, unknown>;

export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value at a path of field names such as "spec.nodeName"; undefined where there is none. */
export function fieldAt(object: unknown, path: string): unknown {
  let value = object;
  for (const name of path.split(".")) {
    if (!isFields(value)) return undefined;
    value = value[name];
  }
  return value;
}

/** The text at a path, empty where there is none. */
export function textAt(object: unknown, path: string): string {
  const value = fieldAt(object, path);
  return value === undefined || value === null ? "" : String(value);
}

export function fieldsAt(object: unknown, path: string): Fields {
  const value = fieldAt(object, path);
  return isFields(value) ? value : {};
}

export function listAt(object: unknown, path: string): unknown[] {
  const value = fieldAt(object, path);
  return Array.isArray(value) ? value : [];
}

/** Whether two values are the same JSON, whatever the order of their fields. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((value, index) => same(value, b[index]));
  }
  if (!isFields(a) || !isFields(b)) return false;
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].every((name) => same(a[name], b[name]));
}

/** The time as Kubernetes writes it: whole seconds. */
export function timestamp(ms = Date.now()): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
}
