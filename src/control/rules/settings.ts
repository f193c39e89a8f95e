/** What a pod's annotations ask for beside its enrolment. */
import {
  ALLOW_ANNOTATION,
  EGRESS_ANNOTATION,
  FLOOR_ANNOTATION,
  GRACE_ANNOTATION,
  INBOUND_ANNOTATION,
} from "../../constants.ts";
import { errorText } from "../../error_text.ts";
import type { Strictness } from "../../kernel/maps.ts";
import { quoted } from "../../names.ts";
import { nobody, parsePolicy, type Policy } from "../../policy.ts";

export interface PodSettings {
  /** Strict: new connections to the pod that are not through its tunnel are refused. */
  readonly inbound: Strictness;
  /** Only because a policy is to bind everybody. */
  readonly isInboundImplied: boolean;
  /**
   * Strict: connections from the pod that would go in clear to somewhere inside the cluster are
   * refused.
   */
  readonly egress: Strictness;
  /** Who may connect; undefined: every identity of the trust domain. */
  readonly policy: Policy | undefined;
  /**
   * How long connections that are older than the enrolment may go on in clear; undefined: for ever.
   */
  readonly graceSeconds: number | undefined;
  /** What was not understood. It then means the strictest it could have meant. */
  readonly problems: readonly string[];
}

/** By their full names. */
export type Annotations = Readonly<Record<string, string>>;

/**
 * What a pod's annotations ask for, its namespace's where it has none, and `defaults` where neither
 * has, as if they were annotations. Its namespace's floor is the least. Never fails: a mistake in
 * an annotation must neither keep a pod from being encrypted nor open it.
 */
export function settingsOf(
  own: Annotations,
  namespace: Annotations = {},
  defaults: Annotations = {},
): PodSettings {
  const problems: string[] = [];
  const annotations = { ...defaults, ...namespace, ...own };
  const floor = namespace[FLOOR_ANNOTATION];
  if (floor !== undefined && floor !== "strict") {
    problems.push(
      `the namespace's annotation ${FLOOR_ANNOTATION} must be "strict", not ${
        quoted(floor, 40)
      }: taken as strict`,
    );
  }
  const strictnessOf = (key: string): Strictness => {
    const value = annotations[key];
    if (floor !== undefined) {
      if (own[key] === "permissive" || own[key] === "dry-run") {
        problems.push(`annotation ${key}: no pod of this namespace is less than strict`);
      }
      return "strict";
    }
    if (value === undefined) return "permissive";
    if (value === "strict" || value === "dry-run" || value === "permissive") return value;
    problems.push(
      `annotation ${key} must be "strict", "dry-run" or "permissive", not ${
        quoted(value, 40)
      }: taken as strict`,
    );
    return "strict";
  };
  const policyOf = (text: string | undefined): Policy | undefined => {
    if (text === undefined) return undefined;
    try {
      return parsePolicy(text);
    } catch (error) {
      const reason = errorText(error);
      const policy = nobody(text);
      const meaning = policy.dryRun ? "every stream is told" : "nobody may connect";
      problems.push(`annotation ${ALLOW_ANNOTATION}: ${reason}; ${meaning}`);
      return policy;
    }
  };
  const graceOf = (text: string | undefined): number | undefined => {
    if (text === undefined) return undefined;
    const [, count, unit] = /^([0-9]{1,6})([smh])$/.exec(text) ?? [];
    if (count !== undefined && unit !== undefined) return Number(count) * (UNITS[unit] ?? 0);
    problems.push(
      `annotation ${GRACE_ANNOTATION} must be a time like 30s, 10m or 2h, not ${
        quoted(text, 40)
      }: older connections are ended`,
    );
    return 0;
  };
  const inbound = strictnessOf(INBOUND_ANNOTATION);
  const egress = strictnessOf(EGRESS_ANNOTATION);
  const policy = policyOf(annotations[ALLOW_ANNOTATION]);
  const isInboundSaid = annotations[INBOUND_ANNOTATION] !== undefined;
  const isBinding = policy !== undefined && !policy.dryRun;
  if (isBinding && isInboundSaid && inbound !== "strict") {
    problems.push(
      `annotation ${ALLOW_ANNOTATION} does not bind who is not encrypted, since ` +
        `${INBOUND_ANNOTATION} is "${inbound}": plain connections are taken from everybody`,
    );
  }
  const isInboundImplied = isBinding && !isInboundSaid && inbound !== "strict";
  return {
    // Who may connect is asked of all: plain connections could not answer.
    inbound: isInboundImplied ? "strict" : inbound,
    isInboundImplied,
    egress,
    policy,
    graceSeconds: graceOf(annotations[GRACE_ANNOTATION]),
    problems,
  };
}

/** In seconds. */
const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

export function sameSettings(a: PodSettings, b: PodSettings): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
