import type { KubeObject } from "./objects.ts";

/** One line of the state file: what an object became, or its last state when it was deleted. */
export interface Entry {
  /** The resource's key. */
  r: string;
  /** Set when the object was deleted. */
  d?: true;
  o: KubeObject;
}

/**
 * The state file, a JSON object a line. It is appended to before an answer goes out, so a server
 * that was killed comes back with everything that it had said to have stored.
 */
export class Journal {
  #file: Deno.FsFile;

  private constructor(path: string) {
    this.#file = Deno.openSync(path, { append: true, create: true });
  }

  /**
   * Hands each line of the old file to `replay` and starts a new one with what `keep` then lists.
   */
  static open(path: string, replay: (entry: Entry) => void, keep: () => Iterable<Entry>): Journal {
    for (const line of read(path).split("\n")) {
      try {
        if (line !== "") replay(JSON.parse(line) as Entry);
      } catch (error) {
        // The last line of a server that was killed may be a part of one: nobody was told of it.
        if (!(error instanceof SyntaxError)) throw error;
      }
    }
    const unfinished = `${path}.new`;
    Deno.writeTextFileSync(
      unfinished,
      [...keep()].map((entry) => `${JSON.stringify(entry)}\n`).join(""),
    );
    Deno.renameSync(unfinished, path);
    return new Journal(path);
  }

  /** `text` is the object's JSON, which is at hand already. */
  append(resource: string, text: string, deleted: boolean): void {
    const line = `{"r":${JSON.stringify(resource)}${deleted ? ',"d":true' : ""},"o":${text}}\n`;
    let rest = new TextEncoder().encode(line);
    while (rest.length > 0) rest = rest.subarray(this.#file.writeSync(rest));
  }
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
