/** Who may connect to a pod: the annotation `kube-gateway.io/allow`. */
import { isDnsLabel, isDnsSubdomain, quoted } from "./names.ts";

/**
 * What a pod's `kube-gateway.io/allow` says; without the annotation there is no policy, and every
 * peer may connect.
 */
export interface Policy {
  /** Who may connect; empty: nobody. */
  readonly rules: readonly PolicyRule[];
  /** Only told, never enforced. */
  readonly dryRun: boolean;
}

/** One `namespace/serviceaccount[:port[,port]]`. */
export interface PolicyRule {
  /** `*`: every one. */
  readonly namespace: string;
  /** `*`: every one. */
  readonly serviceAccount: string;
  /** Of the application; empty: every one. */
  readonly ports: readonly number[];
}

/**
 * What a policy that cannot be understood means: nobody may connect, or nobody would if it were no
 * dry run.
 */
export function nobody(text: string): Policy {
  return { rules: [], dryRun: isDryRun(text) };
}

/**
 * Reads a policy: rules separated by blanks, `;` or `,` (a number after a comma is one more port),
 * `dry-run:` in front if it is only to be told.
 *
 * @throws {TypeError} that says what is wrong with which (bounded) part.
 */
export function parsePolicy(text: string): Policy {
  if (text.length > MAX_POLICY_LENGTH) {
    throw new TypeError(`longer than ${MAX_POLICY_LENGTH} characters`);
  }
  const dryRun = isDryRun(text);
  const list = dryRun ? text.trimStart().slice(DRY_RUN.length) : text;
  const rules: (PolicyRule & { ports: number[] })[] = [];
  for (const part of list.split(/[\s;,]+/).filter((each) => each !== "")) {
    if (!part.includes("/") && part !== "*") {
      const last = rules.at(-1);
      if (last === undefined || last.ports.length === 0) {
        throw new TypeError(`${quoted(part, 80)} is no namespace/serviceaccount[:port[,port]]`);
      }
      last.ports.push(portOf(part));
    } else rules.push(ruleOf(part));
    if (rules.length > MAX_RULES) throw new TypeError(`more than ${MAX_RULES} rules`);
    if ((rules.at(-1)?.ports.length ?? 0) > MAX_PORTS) {
      throw new TypeError(`more than ${MAX_PORTS} ports in a rule`);
    }
  }
  return { rules, dryRun };
}

/**
 * The rule that lets an identity connect to `port`, or undefined. `dryRun` is the caller's to heed.
 */
export function allowingRule(
  { rules }: Policy,
  identity: { readonly namespace: string; readonly serviceAccount: string },
  port: number,
): PolicyRule | undefined {
  return rules.find(({ namespace, serviceAccount, ports }) =>
    (namespace === "*" || namespace === identity.namespace) &&
    (serviceAccount === "*" || serviceAccount === identity.serviceAccount) &&
    (ports.length === 0 || ports.includes(port))
  );
}

/** A policy in its canonical form, for people. */
export function policyText({ rules, dryRun }: Policy): string {
  const list = rules.map(({ namespace, serviceAccount, ports }) =>
    `${namespace}/${serviceAccount}${ports.length === 0 ? "" : `:${ports.join(",")}`}`
  );
  return `${dryRun ? DRY_RUN : ""}${list.join(" ") || "nobody"}`;
}

function isDryRun(text: string): boolean {
  return text.trimStart().startsWith(DRY_RUN);
}

function ruleOf(part: string): PolicyRule & { ports: number[] } {
  const [who = "", port, ...more] = part.split(":");
  const [namespace = "", serviceAccount = "", ...deeper] = who === "*"
    ? ["*", "*"]
    : who.split("/");
  if (more.length > 0 || deeper.length > 0) {
    throw new TypeError(`${quoted(part, 80)} is no namespace/serviceaccount[:port[,port]]`);
  }
  if (namespace !== "*" && !isDnsLabel(namespace)) {
    throw new TypeError(`${quoted(namespace, 80)} is no namespace's name and not "*"`);
  }
  if (serviceAccount !== "*" && !isDnsSubdomain(serviceAccount)) {
    throw new TypeError(`${quoted(serviceAccount, 80)} is no service account's name and not "*"`);
  }
  const everyPort = port === undefined || port === "*";
  return { namespace, serviceAccount, ports: everyPort ? [] : [portOf(port)] };
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^[1-9][0-9]{0,4}$/.test(text) && port <= 65_535) return port;
  throw new TypeError(`${quoted(text, 80)} is no port (1 to 65535)`);
}

const DRY_RUN = "dry-run:";

/** What an annotation may take: 64 rules of names of usual length. */
export const MAX_POLICY_LENGTH = 4096;
const MAX_RULES = 64;
const MAX_PORTS = 16;
