import * as v from "valibot";
import { quoted } from "../names.ts";

/** An object from outside is not what its kind must be. `path` leads to the bad field. */
export class ObjectError extends Error {
  override readonly name = "ObjectError";
  readonly path: readonly (string | number)[];

  constructor(message: string, path: readonly (string | number)[]) {
    super(message);
    this.path = path;
  }
}

/** @throws {ObjectError} naming the object, the first bad field and what is wrong with it. */
export function parseObject<const S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  path: readonly (string | number)[],
): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const inside = (issue.path ?? []).map((item) => item.key as string | number);
  const field = v.getDotPath(issue) ?? "object";
  const message = issue.message.length > 200 ? `${issue.message.slice(0, 200)}…` : issue.message;
  const named = nameOf(value);
  throw new ObjectError(
    `${named === "" ? "" : `${named}: `}${field.slice(0, 200)}: ${message}`,
    [...path, ...inside],
  );
}

/** "Pod web" for messages, so that one finds it in a list of a thousand. */
function nameOf(value: unknown): string {
  const found = v.safeParse(
    v.object({ kind: v.string(), metadata: v.object({ name: v.string() }) }),
    value,
  );
  if (!found.success) return "";
  const { kind, metadata: { name } } = found.output;
  return `${quoted(kind).slice(1, -1)} ${quoted(name)}`;
}
