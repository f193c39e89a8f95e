/** Kubernetes' own types (OpenAPI, release 1.36), as client-node was generated from them. */

/**
 * What is wrong with an object by the API's types: fields that are not known, and values of another
 * type. Paths as `spec.template.spec.containers[0].image`.
 */
export async function typeProblems(
  object: { apiVersion: string; kind: string },
): Promise<string[]> {
  const version = object.apiVersion.split("/").at(-1) ?? "";
  const model = `${version.charAt(0).toUpperCase()}${version.slice(1)}${object.kind}`;
  const names = [model, `Core${model}`, `${groupPrefix(object.apiVersion)}${model}`];
  for (const name of names) {
    if (await attributesOf(name) !== undefined) return await problemsOf(object, name, "");
  }
  return [`client-node knows no ${object.apiVersion} ${object.kind}`];
}

interface Attribute {
  readonly baseName: string;
  readonly type: string;
}

async function problemsOf(value: unknown, type: string, path: string): Promise<string[]> {
  const [, element] = /^(?:Array|Set)<(.+)>$/.exec(type) ??
    /^{ \[key: string\]: (.+); }$/.exec(type) ??
    [];
  if (type === "any") return [];
  if (element !== undefined) {
    const isList = type.startsWith("Array") || type.startsWith("Set");
    if (isList !== Array.isArray(value) || typeof value !== "object" || value === null) {
      return [`${path} is no ${type}`];
    }
    const parts = Object.entries(value).map(([key, part]) =>
      problemsOf(part, element, isList ? `${path}[${key}]` : `${path}.${key}`)
    );
    return (await Promise.all(parts)).flat();
  }
  if (type === "IntOrString") {
    return ["number", "string"].includes(typeof value) ? [] : [`${path} is no ${type}`];
  }
  if (["string", "number", "boolean", "Date"].includes(type)) {
    const found: string = typeof value;
    return found === (type === "Date" ? "string" : type)
      ? []
      : [`${path} is ${JSON.stringify(value)}, no ${type}`];
  }
  const attributes = await attributesOf(type);
  if (attributes === undefined) return [`${path}: client-node knows no ${type}`];
  if (typeof value !== "object" || value === null) return [`${path} is no ${type}`];
  const problems = Object.entries(value).map(([key, part]) => {
    const inner = path === "" ? key : `${path}.${key}`;
    const attribute = attributes.find(({ baseName }) => baseName === key);
    return attribute === undefined
      ? [`${inner} is no field of ${type}`]
      : problemsOf(part, attribute.type, inner);
  });
  return (await Promise.all(problems)).flat();
}

async function attributesOf(type: string): Promise<Attribute[] | undefined> {
  try {
    const module = await import(`@kubernetes/client-node/dist/gen/models/${type}.js`);
    return (module[type] as { attributeTypeMap: Attribute[] }).attributeTypeMap;
  } catch {
    return undefined;
  }
}

function groupPrefix(apiVersion: string): string {
  const [group = ""] = apiVersion.split(".");
  return group.charAt(0).toUpperCase() + group.slice(1);
}
