import { type Fields, isFields, same } from "./objects.ts";
import { badRequest, StatusError } from "./status.ts";

/** How lists are merged: by the field that tells their items apart, or replaced. */
type MergeKeys = (listName: string) => readonly string[];

/** @throws {StatusError} 415 for a kind of patch that the server does not know, 400, 422. */
export function applyPatch(
  contentType: string,
  object: Fields,
  patch: unknown,
  kind: string,
): Fields {
  switch (contentType.split(";")[0]?.trim()) {
    case "application/json-patch+json":
      return jsonPatch(object, patch);
    case "application/merge-patch+json":
      return mergeFields(object, fieldsOf(patch), () => REPLACED);
    case "application/strategic-merge-patch+json":
      // The Go type of a CSR's conditions has no merge key, so this kind of patch replaces them.
      return mergeFields(object, fieldsOf(patch), (list) => {
        return kind === "CertificateSigningRequest" ? REPLACED : MERGE_KEYS[list] ?? REPLACED;
      });
    case APPLY:
      return mergeFields(object, fieldsOf(patch), (list) => MERGE_KEYS[list] ?? REPLACED);
    default:
      throw new StatusError(
        415,
        "UnsupportedMediaType",
        `the body of the request was in an unknown format: ${contentType}`,
      );
  }
}

export const APPLY = "application/apply-patch+yaml";

const REPLACED: readonly string[] = [];

/** The merge keys of core types' lists; the first that an item has counts. */
const MERGE_KEYS: Record<string, readonly string[]> = {
  conditions: ["type"],
  containers: ["name"],
  initContainers: ["name"],
  volumes: ["name"],
  volumeMounts: ["mountPath"],
  env: ["name"],
  imagePullSecrets: ["name"],
  ports: ["containerPort", "port"],
  ownerReferences: ["uid"],
  podIPs: ["ip"],
  hostIPs: ["ip"],
  taints: ["key"],
};

const SETS = ["finalizers"];

function fieldsOf(patch: unknown): Fields {
  if (!isFields(patch)) throw badRequest("cannot patch: the body is not a JSON object");
  return patch;
}

function mergeFields(object: Fields, patch: Fields, keys: MergeKeys): Fields {
  if (patch["$patch"] === "replace") return withoutDirectives(patch);
  const merged = { ...object };
  for (const [name, value] of Object.entries(patch)) {
    if (name.startsWith("$")) {
      deleteFromPrimitiveList(merged, name, value);
      continue;
    }
    const old = merged[name];
    if (value === null) delete merged[name];
    else if (isFields(value)) {
      if (value["$patch"] === "delete") delete merged[name];
      else merged[name] = mergeFields(isFields(old) ? old : {}, value, keys);
    } else if (Array.isArray(value) && Array.isArray(old)) {
      merged[name] = mergeList(name, old, value, keys);
    } else {
      merged[name] = value;
    }
  }
  return merged;
}

function mergeList(name: string, old: unknown[], items: unknown[], keys: MergeKeys): unknown[] {
  const mergeKeys = keys(name);
  const isStrategic = keys("conditions") !== REPLACED || keys(name) !== REPLACED;
  if (SETS.includes(name) && isStrategic) return [...new Set([...old, ...items])];
  if (mergeKeys.length === 0) return items;
  let merged = old;
  for (const item of items) {
    if (!isFields(item)) return items;
    if (item["$patch"] === "replace") {
      return items.filter((other) => other !== item);
    }
    const key = mergeKeys.find((candidate) => item[candidate] !== undefined);
    if (key === undefined) {
      throw badRequest(
        `map: ${JSON.stringify(item)} does not contain declared merge key: ${mergeKeys[0]}`,
      );
    }
    const isSame = (other: unknown) => isFields(other) && same(other[key], item[key]);
    if (item["$patch"] === "delete") merged = merged.filter((other) => !isSame(other));
    else if (merged.some(isSame)) {
      merged = merged.map((other) =>
        isSame(other) && isFields(other) ? mergeFields(other, item, keys) : other
      );
    } else merged = [...merged, withoutDirectives(item)];
  }
  return merged;
}

function deleteFromPrimitiveList(object: Fields, directive: string, values: unknown): void {
  const [, list] = /^\$deleteFromPrimitiveList\/(.+)$/.exec(directive) ?? [];
  if (list === undefined || !Array.isArray(values)) return;
  const old = object[list];
  if (Array.isArray(old)) object[list] = old.filter((value) => !values.includes(value));
}

function withoutDirectives(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([name]) => !name.startsWith("$")));
}

/** RFC 6902, without `move` and `copy`. */
function jsonPatch(object: Fields, patch: unknown): Fields {
  if (!Array.isArray(patch)) throw badRequest("cannot patch: the body is not a JSON array");
  const document: unknown = structuredClone(object);
  for (const step of patch as Fields[]) applyStep(document, step);
  return document as Fields;
}

function applyStep(document: unknown, { op, path, value }: Fields): void {
  const names = String(path).split("/").slice(1).map((name) =>
    name.replaceAll("~1", "/").replaceAll("~0", "~")
  );
  const last = names.pop();
  if (last === undefined) throw unprocessable(`the path ${JSON.stringify(path)} names no field`);
  let parent = document;
  for (const name of names) {
    parent = Array.isArray(parent)
      ? parent[Number(name)]
      : isFields(parent)
      ? parent[name]
      : undefined;
  }
  if (Array.isArray(parent)) applyToList(parent, op, last, value);
  else if (isFields(parent)) applyToFields(parent, op, last, value);
  else throw unprocessable(`${op} operation does not apply: doc is missing path: ${path}`);
}

function applyToList(list: unknown[], op: unknown, last: string, value: unknown): void {
  const index = last === "-" ? list.length : Number(last);
  const isThere = Number.isInteger(index) && index >= 0 && index < list.length;
  if (op === "add" && (isThere || index === list.length)) list.splice(index, 0, value);
  else if (op === "replace" && isThere) list[index] = value;
  else if (op === "remove" && isThere) list.splice(index, 1);
  else if (op !== "test" || !same(list[index], value)) {
    throw unprocessable(`${op} operation does not apply to index ${last}`);
  }
}

function applyToFields(fields: Fields, op: unknown, last: string, value: unknown): void {
  const isThere = last in fields;
  if (op === "add" || (op === "replace" && isThere)) fields[last] = value;
  else if (op === "remove" && isThere) delete fields[last];
  else if (op !== "test" || !same(fields[last], value)) {
    throw unprocessable(`${op} operation does not apply to field ${last}`);
  }
}

function unprocessable(message: string): StatusError {
  return new StatusError(422, "Invalid", `the server rejected our request: ${message}`);
}
