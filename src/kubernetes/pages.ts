import * as v from "valibot";
import { type ApiRequests, MAX_OBJECT_BYTES } from "./api.ts";
import { TooLarge } from "./errors.ts";

/** Which list is read. */
export interface ListRequest {
  /** Of the collection, for example `/api/v1/pods`. */
  readonly path: string;
  /** `fieldSelector`, `labelSelector`. */
  readonly query?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Called once, when a page has too many bytes and smaller ones are asked for. */
  readonly onLarge?: () => void;
}

/** A part of a list. */
export interface Page {
  readonly items: readonly unknown[];
  /** The version of the whole list. */
  readonly resourceVersion: string;
}

/**
 * readPages reads a list in pages of some {@link USUAL_PAGE_LENGTH}, so that nobody who may write
 * large objects fills the memory of all who list them. A page that has more than
 * {@link MAX_PAGE_BYTES} is read no further, and fewer objects are asked for from the same place;
 * only one object alone may have more.
 *
 * @throws {ApiError} 410 when the list has taken too long; what else a request throws.
 */
export async function* readPages(
  api: ApiRequests,
  { path, query, signal, onLarge }: ListRequest,
): AsyncGenerator<Page> {
  let isLargeKnown = false;
  let limit = FIRST_LIMIT;
  for (let from = "";;) {
    let length = 0;
    let page: v.InferOutput<typeof ListSchema>;
    try {
      page = v.parse(
        ListSchema,
        await api.request("GET", path, {
          query: { ...query, limit: String(limit), ...(from === "" ? {} : { continue: from }) },
          signal,
          timeoutMs: LIST_MILLISECONDS,
          maxBytes: limit === 1 ? MAX_OBJECT_BYTES : MAX_PAGE_BYTES,
          onLength: (characters) => length = characters,
        }),
      );
    } catch (error) {
      if (!(error instanceof TooLarge) || limit === 1) throw error;
      if (!isLargeKnown) onLarge?.();
      isLargeKnown = true;
      limit = Math.ceil(limit / 2);
      continue;
    }
    const items = page.items ?? [];
    limit = nextLimit(limit, items.length, length);
    from = page.metadata.continue ?? "";
    yield { items, resourceVersion: page.metadata.resourceVersion };
    if (from === "") return;
  }
}

/**
 * As many objects as make a usual page when they are like those before. At most twice as many as
 * were asked for, so that the API server, too, is not made to gather what nobody will read.
 */
function nextLimit(limit: number, count: number, length: number): number {
  const usual = Math.floor(count * USUAL_PAGE_LENGTH / Math.max(length, 1));
  return Math.max(1, Math.min(usual, 2 * limit, MAX_LIMIT));
}

const ListSchema = v.object({
  metadata: v.object({ resourceVersion: v.string(), continue: v.optional(v.string()) }),
  items: v.nullish(v.array(v.unknown())),
});

/** Of JSON text; what is made of it takes a few times as much for a moment. */
export const MAX_PAGE_BYTES = 4 * 2 ** 20;

const USUAL_PAGE_LENGTH = MAX_PAGE_BYTES * 3 / 4;

/** Of ordinary Pods these are some 600 kB. */
const FIRST_LIMIT = 64;
const MAX_LIMIT = 500;
const LIST_MILLISECONDS = 30_000;
