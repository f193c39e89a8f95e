import * as v from "valibot";
import type { ApiClient } from "../kubernetes/api.ts";
import { type WatchedList, watchList } from "../kubernetes/watch.ts";
import { NODE_LABEL, REQUESTS_PATH } from "./signing_names.ts";

/** What has become of a CertificateSigningRequest: one of the two, or neither yet. */
export interface RequestOutcome {
  /** base64 of PEM. */
  readonly certificate?: string;
  readonly refusal?: {
    readonly type: string;
    readonly reason: string;
    readonly message: string;
  };
}

/**
 * Tells what becomes of a node's requests, by a watch that is open only while one of them is under
 * way: asking for each again and again would cost the API server more, and time.
 */
export class RequestOutcomes {
  readonly #api: ApiClient;
  readonly #nodeName: string;
  readonly #signerName: string;
  readonly #waiting = new Map<string, (outcome: RequestOutcome) => void>();
  #watch: WatchedList | undefined;
  #closing: ReturnType<typeof setTimeout> | undefined;

  constructor(api: ApiClient, nodeName: string, signerName: string) {
    this.#api = api;
    this.#nodeName = nodeName;
    this.#signerName = signerName;
  }

  /** Resolves when the request `name` has an outcome; @throws the signal's reason. */
  of(name: string, signal: AbortSignal): Promise<RequestOutcome> {
    clearTimeout(this.#closing);
    this.#watch ??= this.#open();
    return new Promise<RequestOutcome>((resolve, reject) => {
      signal.throwIfAborted();
      const end = () => {
        signal.removeEventListener("abort", late);
        this.#waiting.delete(name);
        if (this.#waiting.size === 0) this.#closeSoon();
      };
      const late = () => {
        end();
        reject(signal.reason);
      };
      signal.addEventListener("abort", late, { once: true });
      this.#waiting.set(name, (outcome) => {
        end();
        resolve(outcome);
      });
    });
  }

  async close(): Promise<void> {
    clearTimeout(this.#closing);
    await this.#watch?.close();
  }

  #open(): WatchedList {
    return watchList(this.#api, {
      name: "certificate requests of this node",
      path: REQUESTS_PATH,
      // Whoever may ask another signer may label what he asks as he likes.
      query: {
        labelSelector: `${NODE_LABEL}=${this.#nodeName}`,
        fieldSelector: `spec.signerName=${this.#signerName}`,
      },
      read: (value) => {
        const { metadata: { name } } = v.parse(NamedSchema, value);
        return this.#waiting.has(name) ? outcomeOf(value) : undefined; // others are history
      },
      onChange: (outcomes) => {
        for (const [name, outcome] of outcomes) {
          if (outcome.certificate ?? outcome.refusal) this.#waiting.get(name)?.(outcome);
        }
      },
    });
  }

  /** A burst is not over when one is done. */
  #closeSoon(): void {
    clearTimeout(this.#closing);
    this.#closing = setTimeout(() => {
      void this.#watch?.close();
      this.#watch = undefined;
    }, LINGER_MILLISECONDS);
  }
}

/** Of a CertificateSigningRequest object. */
export function outcomeOf(value: unknown): RequestOutcome {
  const { certificate, conditions } = v.parse(RequestSchema, value).status ?? {};
  const refusal = conditions?.find(({ type }) => type === "Denied" || type === "Failed");
  if (refusal !== undefined) {
    const { type, reason, message } = refusal;
    return { refusal: { type, reason: reason ?? "", message: message ?? "" } };
  }
  return certificate ? { certificate } : {};
}

const NamedSchema = v.object({ metadata: v.object({ name: v.string() }) });
const RequestSchema = v.object({
  status: v.optional(v.object({
    certificate: v.nullish(v.string()),
    conditions: v.nullish(v.array(v.object({
      type: v.string(),
      reason: v.nullish(v.string()),
      message: v.nullish(v.string()),
    }))),
  })),
});

const LINGER_MILLISECONDS = 5_000;
