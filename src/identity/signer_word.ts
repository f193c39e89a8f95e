/**
 * The signer's word: what the leading signer says of itself now and again, as JSON in an annotation
 * of the trust bundle, which every agent follows. A signer that is gone, or cannot sign, is known
 * before the first certificate is due.
 */
import * as v from "valibot";
import { quoted } from "../names.ts";

/** The trust bundle's annotation. */
export const WORD_ANNOTATION = "kube-gateway.io/signer";

export interface SignerWord {
  /** RFC 3339. */
  readonly at: string;
  /** When it will have said something again, if it is well. */
  readonly until: string;
  /** Why it cannot sign, or soon will not. */
  readonly problem?: string | undefined;
}

/**
 * What is wrong by the signer's last word; undefined when nothing is, or when no signer has ever
 * said anything.
 *
 * @param text the annotation.
 * @param ageMilliseconds for how long it has stood there, by the reader's own monotonic clock:
 * clocks of nodes differ.
 */
export function signerProblem(
  text: string | undefined,
  ageMilliseconds: number,
): string | undefined {
  const word = text === undefined ? undefined : parsed(text);
  if (word === undefined) return undefined;
  const { at, until, problem } = word;
  const period = Math.min(Math.max(Date.parse(until) - Date.parse(at), 0), LONGEST_MILLISECONDS);
  if (ageMilliseconds > 2 * period) {
    return `no signer has been heard of since ${at}: certificates are good until they expire, and new ones are not ` +
      "given out. Look at the pods of the Deployment kube-gateway-signer";
  }
  return problem === undefined ? undefined : `the signer says: ${quoted(problem, 1_000)}`;
}

function parsed(text: string): SignerWord | undefined {
  try {
    const read = v.safeParse(WordSchema, JSON.parse(text));
    return read.success ? read.output : undefined;
  } catch {
    return undefined; // somebody else's: nothing is known of the signer by it
  }
}

const TimeSchema = v.pipe(v.string(), v.isoTimestamp(), v.maxLength(40));
const WordSchema = v.object({
  at: TimeSchema,
  until: TimeSchema,
  problem: v.optional(v.string()),
});

const LONGEST_MILLISECONDS = 600_000;
