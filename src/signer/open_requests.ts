import * as v from "valibot";
import { NODE_CLAIM } from "../identity/signing_names.ts";
import { type CsrFacts, readCsr } from "./facts.ts";

/** What is kept of a request that is not at its end. */
export interface OpenRequest {
  readonly name: string;
  readonly createdAt: Date;
  /** Who made it, and from which node, as the API server says. */
  readonly requester: string;
  readonly facts: CsrFacts;
}

/**
 * A CertificateSigningRequest that waits for a decision or a certificate. Undefined for one that is
 * at its end, and for what is none: that cannot come from an API server.
 */
export function readRequest(value: unknown): OpenRequest | undefined {
  try {
    const facts = readCsr(value);
    const { name, createdAt, state, username, extra } = facts;
    if (state !== "pending" && state !== "approved") return undefined;
    const requester = `${username} ${extra[NODE_CLAIM]?.[0] ?? ""}`;
    return { name, createdAt, requester, facts };
  } catch (error) {
    if (!(error instanceof v.ValiError)) throw error;
    return undefined;
  }
}

/**
 * The names of the requests that somebody still waits for, going by the API server's own clock. The
 * API server collects the others.
 */
export function awaited(requests: Iterable<Pick<OpenRequest, "name" | "createdAt">>): Set<string> {
  const all = [...requests];
  const newest = all.reduce((time, { createdAt }) => Math.max(time, createdAt.getTime()), 0);
  const fresh = all.filter(({ createdAt }) =>
    createdAt.getTime() >= newest - ABANDONED_MILLISECONDS
  );
  return new Set(fresh.map(({ name }) => name));
}

/** Agents wait for five minutes. */
const ABANDONED_MILLISECONDS = 10 * 60_000;
