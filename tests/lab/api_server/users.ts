import type { Store } from "./store.ts";
import { findResource } from "./resources.ts";
import { unauthorized } from "./status.ts";

/** Who asks, as the API server sees it. */
export interface UserInfo {
  username: string;
  uid?: string;
  groups: string[];
  extra?: Record<string, string[]>;
}

/** What a token in the registry file stands for. */
export interface TokenEntry extends UserInfo {
  /** ISO 8601; the token is unknown from then on. */
  expires?: string;
  /** Whether the token is of no use when the pod of its claims is gone, as a pod-bound one. */
  requirePod?: boolean;
  /** Whether the token is of no use when its service account is gone: the account's UID. */
  requireAccount?: string;
}

export const NODE_NAME_CLAIM = "authentication.kubernetes.io/node-name";
export const NODE_UID_CLAIM = "authentication.kubernetes.io/node-uid";
export const POD_NAME_CLAIM = "authentication.kubernetes.io/pod-name";
export const POD_UID_CLAIM = "authentication.kubernetes.io/pod-uid";

export const ANONYMOUS: UserInfo = {
  username: "system:anonymous",
  groups: ["system:unauthenticated"],
};

/** Bearer tokens and whom they stand for, from a JSON file that tests may replace at any time. */
export class Tokens {
  #stamp = "";
  #entries: Record<string, TokenEntry> = {};

  constructor(private readonly file: string, private readonly store: Store) {}

  /**
   * @throws {StatusError} 401 for a token that is unknown or expired, or whose account or pod is
   * gone.
   */
  authenticate(header: string | null): UserInfo {
    if (header === null) return ANONYMOUS;
    const [, token = ""] = /^Bearer (.+)$/.exec(header) ?? [];
    this.#read();
    const entry = Object.hasOwn(this.#entries, token) ? this.#entries[token] : undefined;
    if (entry === undefined || this.#isOver(entry)) throw unauthorized();
    const { username, uid, groups, extra } = entry;
    const [, , namespace] = /^system:serviceaccount:/.test(username) ? username.split(":") : [];
    const implied = namespace === undefined
      ? []
      : ["system:serviceaccounts", `system:serviceaccounts:${namespace}`];
    return {
      username,
      ...(uid === undefined ? {} : { uid }),
      groups: [...new Set([...groups, ...implied, "system:authenticated"])],
      ...(extra === undefined ? {} : { extra }),
    };
  }

  #isOver({ username, expires, requirePod, requireAccount, extra }: TokenEntry): boolean {
    if (expires !== undefined && Date.parse(expires) <= Date.now()) return true;
    if (requireAccount !== undefined) {
      const [, , namespace = "", name = ""] = username.split(":");
      const accounts = findResource("", "v1", "serviceaccounts");
      const account = this.store.get(accounts, namespace, name)?.object;
      if (account?.metadata.uid !== requireAccount) return true;
    }
    if (!requirePod) return false;
    const [name = ""] = extra?.[POD_NAME_CLAIM] ?? [];
    const pod = this.store.get(findResource("", "v1", "pods"), username.split(":")[2] ?? "", name);
    return pod?.object.metadata.uid !== extra?.[POD_UID_CLAIM]?.[0];
  }

  #read(): void {
    try {
      const { mtime, size, ino } = Deno.statSync(this.file);
      const stamp = `${mtime?.getTime()} ${size} ${ino}`;
      if (stamp === this.#stamp) return;
      this.#entries = JSON.parse(Deno.readTextFileSync(this.file)) as Record<string, TokenEntry>;
      this.#stamp = stamp;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      this.#entries = {};
    }
  }
}
