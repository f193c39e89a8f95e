import { LineCounter, parseAllDocuments } from "yaml";
import { type KeptObject, readObjects } from "../cluster/objects.ts";
import { ObjectError } from "../cluster/parse.ts";

/** An object and the line (from 1) at which it begins; no line in a JSON file. */
export type LocatedObject = KeptObject & { readonly line?: number };

/** A file's text is not what it must be. `line` counts from 1. */
export class FileError extends Error {
  override readonly name = "FileError";
  readonly line: number | undefined;

  constructor(message: string, line?: number, options?: ErrorOptions) {
    super(message, options);
    this.line = line;
  }
}

/**
 * The objects in the text of one file: JSON when the name says so, else YAML, of any number of
 * documents.
 *
 * @throws {FileError} for the first thing that is wrong; then nothing of the file is to be
 * believed.
 */
export function parseObjectsFile(fileName: string, text: string): LocatedObject[] {
  return fileName.endsWith(".json") ? parseJson(text) : parseYaml(text);
}

/** Ten times faster than reading it as YAML, which is used only to find the line of a mistake. */
function parseJson(text: string): LocatedObject[] {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    // V8 tells the place of most mistakes, but not of an unexpected token.
    const { message } = cause as Error;
    const line = /\(line (\d+) column \d+\)/.exec(message)?.[1];
    if (line !== undefined) throw new FileError(bounded(message), Number(line), { cause });
    const atEnd = message.includes("end of JSON");
    throw new FileError(bounded(message), atEnd ? text.split("\n").length : undefined, { cause });
  }
  try {
    return readObjects(document);
  } catch (error) {
    if (!(error instanceof ObjectError)) throw error;
    return parseYaml(text);
  }
}

function parseYaml(text: string): LocatedObject[] {
  const lines = new LineCounter();
  const lineAt = (offset: number) => lines.linePos(offset).line;
  const located: LocatedObject[] = [];
  for (const document of documentsOf(text, lines)) {
    const [error] = document.errors;
    if (error !== undefined) throw new FileError(bounded(error.message), lineAt(error.pos[0]));
    const lineOf = (path: readonly (string | number)[]) => {
      // A missing field has no place of its own: its object's has to do.
      for (let depth = path.length; depth >= 0; depth--) {
        const node = document.getIn(path.slice(0, depth), true);
        const range = (node as { range?: [number, number, number] | null } | undefined)?.range;
        if (range) return lineAt(range[0]);
      }
      return lineAt(document.range[0]);
    };
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (cause) {
      throw new FileError(bounded((cause as Error).message), lineAt(document.range[0]), { cause });
    }
    try {
      located.push(...readObjects(value).map((kept) => ({ ...kept, line: lineOf(kept.path) })));
    } catch (cause) {
      if (!(cause instanceof ObjectError)) throw cause;
      throw new FileError(cause.message, lineOf(cause.path), { cause });
    }
  }
  return located;
}

function documentsOf(text: string, lineCounter: LineCounter) {
  try {
    const documents = parseAllDocuments(text, {
      lineCounter,
      prettyErrors: false, // they would echo the file's text
      stringKeys: true,
      logLevel: "error",
    });
    return [...documents];
  } catch (cause) {
    // The parser recurses: too many brackets end as a RangeError.
    const message = bounded(`it cannot be parsed: ${(cause as Error).message}`);
    throw new FileError(message, undefined, { cause });
  }
}

function bounded(message: string): string {
  const line = message.replace(/\s+/g, " ");
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}

/** How often aliases may multiply what a document holds; kubectl writes none. */
const MAX_ALIASES = 100;
