import * as v from "valibot";
import { type SignerWord, WORD_ANNOTATION } from "../identity/signer_word.ts";
import { TRUST_BUNDLE } from "../identity/signing_names.ts";
import type { ApiRequests } from "../kubernetes/api.ts";
import { ApiError, NoAnswer } from "../kubernetes/errors.ts";
import { bundleObject, type BundleRoot, readBundle } from "./bundle.ts";

/** The trust bundle's ConfigMap, read and written by the leading signer. */
export class BundleStore {
  readonly #api: ApiRequests;
  readonly #namespace: string;

  constructor(api: ApiRequests, namespace: string) {
    this.#api = api;
    this.#namespace = namespace;
  }

  /**
   * Changes the bundle by a pure function and returns what it is then. `change` is asked again when
   * somebody else was faster; nothing is written when it returns its argument.
   *
   * @param timeoutMs until all of it must be done.
   * @throws {ApiError | NoAnswer} or what `change` throws; {TypeError} when the ConfigMap cannot be
   * read.
   */
  async update(
    change: (current: readonly BundleRoot[]) => readonly BundleRoot[],
    timeoutMs: number,
  ): Promise<readonly BundleRoot[]> {
    const deadline = performance.now() + timeoutMs;
    for (let attempt = 1;; attempt++) {
      const existing = await this.#get(leftUntil(deadline));
      const current = existing === undefined ? [] : readBundle(existing);
      const next = change(current);
      if (next === current) return current;
      const body = bundleObject(next, this.#namespace, existing);
      const options = { body, timeoutMs: leftUntil(deadline) };
      try {
        // The resourceVersion in metadata guards the update against others'.
        await (existing === undefined
          ? this.#api.request("POST", this.#collection, options)
          : this.#api.request("PUT", this.#path, options));
        return next;
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 409 || attempt === 5) throw error;
      }
    }
  }

  /**
   * Writes the signer's word beside the roots, whatever these look like; nothing where there is no
   * bundle yet.
   *
   * @throws {ApiError | NoAnswer} also when somebody else was faster.
   */
  async say(word: SignerWord, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    const existing = await this.#get(leftUntil(deadline));
    if (existing === undefined) return;
    const { metadata, ...rest } = v.parse(AnnotatedSchema, existing);
    const annotations = { ...metadata.annotations, [WORD_ANNOTATION]: JSON.stringify(word) };
    await this.#api.request("PUT", this.#path, {
      body: { ...rest, metadata: { ...metadata, annotations } },
      timeoutMs: leftUntil(deadline),
    });
  }

  async #get(timeoutMs: number): Promise<unknown> {
    try {
      return v.parse(v.looseObject({}), await this.#api.request("GET", this.#path, { timeoutMs }));
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  get #collection(): string {
    return `/api/v1/namespaces/${this.#namespace}/configmaps`;
  }

  get #path(): string {
    return `${this.#collection}/${TRUST_BUNDLE}`;
  }
}

const AnnotatedSchema = v.looseObject({
  metadata: v.looseObject({ annotations: v.nullish(v.record(v.string(), v.string())) }),
});

function leftUntil(deadline: number): number {
  const left = deadline - performance.now();
  if (left <= 0) throw new NoAnswer(`ConfigMap ${TRUST_BUNDLE} took too long to read and write`);
  return left;
}
