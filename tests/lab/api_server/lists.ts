import { groupVersion, type Resource } from "./resources.ts";
import type { Selector } from "./selectors.ts";
import { badRequest, gone } from "./status.ts";
import type { Store, Stored } from "./store.ts";

export interface ListOptions {
  resource: Resource;
  namespace: string;
  selector: Selector | undefined;
  limit: number;
  /** The token of the page before; empty for the first. */
  continueFrom: string;
}

interface Snapshot {
  readonly items: Stored[];
  readonly version: number;
}

/** Lists, also in pages: all pages of a list show the state at its first. */
export class Lists {
  readonly #snapshots = new Map<string, Snapshot>();

  constructor(private readonly store: Store) {}

  /**
   * The list object as JSON, in parts: as a real server sends a long one, and who has had enough of
   * it costs no more.
   *
   * @throws {StatusError} 410 for a token that is too old.
   */
  list(options: ListOptions): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { resource, limit, continueFrom, selector } = options;
    const [id, offset, snapshot] = continueFrom === ""
      ? [crypto.randomUUID(), 0, this.#take(options)] as const
      : this.#resume(continueFrom);
    const end = limit > 0 ? offset + limit : Infinity;
    const page = snapshot.items.slice(offset, end);
    const remaining = snapshot.items.length - offset - page.length;
    if (remaining > 0) this.#keep(id, snapshot);
    else this.#snapshots.delete(id);
    const metadata = {
      resourceVersion: String(snapshot.version),
      ...(remaining > 0 ? { continue: btoa(JSON.stringify([id, end])) } : {}),
      // A real server cannot count what a selector will leave.
      ...(remaining > 0 && selector === undefined ? { remainingItemCount: remaining } : {}),
    };
    const head = { kind: `${resource.kind}List`, apiVersion: groupVersion(resource), metadata };
    return ReadableStream.from(partsOf(head, page)).pipeThrough(new TextEncoderStream());
  }

  /** Makes every token too old. */
  expire(): void {
    this.#snapshots.clear();
  }

  #take({ resource, namespace, selector }: ListOptions): Snapshot {
    const all = this.store.collection(resource).sorted(namespace);
    const items = selector === undefined ? all : all.filter(({ object }) => selector(object));
    return { items, version: this.store.version };
  }

  #resume(token: string): readonly [string, number, Snapshot] {
    const [id, offset] = parseToken(token);
    const snapshot = this.#snapshots.get(id);
    if (snapshot !== undefined) return [id, offset, snapshot];
    throw gone(
      "The provided continue parameter is too old to display a consistent list result. You can " +
        "start a new list without the continue parameter.",
    );
  }

  /** Clients that never fetch the rest must not cost memory for ever. */
  #keep(id: string, snapshot: Snapshot): void {
    this.#snapshots.set(id, snapshot);
    const [oldest] = this.#snapshots.keys();
    if (this.#snapshots.size > MAX_SNAPSHOTS && oldest !== undefined) {
      this.#snapshots.delete(oldest);
    }
  }
}

function* partsOf(head: object, items: readonly Stored[]): Iterable<string> {
  let part = `${JSON.stringify(head).slice(0, -1)},"items":[`;
  for (const [index, { text }] of items.entries()) {
    part += index === 0 ? text : `,${text}`;
    if (part.length < PART_LENGTH) continue;
    yield part;
    part = "";
  }
  yield `${part}]}`;
}

const PART_LENGTH = 256 * 1024;
const MAX_SNAPSHOTS = 200;

function parseToken(token: string): [string, number] {
  try {
    const parsed: unknown = JSON.parse(atob(token));
    if (Array.isArray(parsed)) return [String(parsed[0]), Number(parsed[1])];
  } catch {
    // Falls through: not one of ours.
  }
  throw badRequest("continue key is not valid");
}
