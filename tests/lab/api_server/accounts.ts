import {
  NODE_NAME_CLAIM,
  NODE_UID_CLAIM,
  POD_NAME_CLAIM,
  POD_UID_CLAIM,
  type TokenEntry,
} from "./users.ts";

/** The claims of a token that is bound to a pod. */
export interface BoundPod {
  name: string;
  uid: string;
  /** None while the pod is not scheduled. */
  nodeName?: string;
  /** None for a node without a Node object. */
  nodeUid?: string;
}

/** Somebody whom the API server knows, with what his client is given to prove it. */
export class Account {
  /** Holds token, ca.crt and namespace, as a pod finds them mounted. */
  readonly directory: string;
  #token = "";

  /** Use `Accounts.add`. */
  constructor(
    directory: string,
    private readonly accounts: Accounts,
    readonly entry: TokenEntry,
  ) {
    this.directory = directory;
  }

  get username(): string {
    return this.entry.username;
  }

  get token(): string {
    return this.#token;
  }

  /** The file is replaced when the token is. */
  get tokenFile(): string {
    return `${this.directory}/token`;
  }

  /** A kubeconfig that names the token's file. */
  get kubeconfig(): string {
    return `${this.directory}/kubeconfig`;
  }

  /**
   * Puts a new token into the file; the old one is refused from then on, or stays good for a while.
   */
  async rotate({ keepOld = false } = {}): Promise<void> {
    const old = this.#token;
    this.#token = `lab-${crypto.randomUUID()}`;
    await this.accounts.write(this.#token, this.entry); // Known to the server before anyone has it.
    await replace(this.tokenFile, this.#token);
    if (old !== "" && !keepOld) await this.accounts.write(old, undefined);
  }

  /** From now on the token is unknown to the server; its file stays. */
  async revoke(): Promise<void> {
    await this.accounts.write(this.#token, undefined);
  }
}

/** Writes tokens.json, from which the server knows who has which token. */
export class Accounts {
  readonly #entries: Record<string, TokenEntry> = {};
  #last: Promise<void> = Promise.resolve();
  #count = 0;

  constructor(
    private readonly directory: string,
    private readonly url: () => string,
    private readonly ca: string,
  ) {}

  async add(entry: TokenEntry): Promise<Account> {
    const directory = `${this.directory}/accounts/${++this.#count}`;
    await Deno.mkdir(directory, { recursive: true });
    const account = new Account(directory, this, entry);
    await account.rotate();
    const [, , namespace = "default"] = entry.username.split(":");
    await Deno.writeTextFile(`${directory}/ca.crt`, this.ca);
    await Deno.writeTextFile(`${directory}/namespace`, namespace);
    await Deno.writeTextFile(account.kubeconfig, this.kubeconfig({ tokenFile: account.tokenFile }));
    return account;
  }

  /** A kubeconfig as JSON, which is YAML. `user` is what stands below `users[0].user`. */
  kubeconfig(user: Record<string, unknown>): string {
    const cluster = {
      server: this.url(),
      "certificate-authority-data": new TextEncoder().encode(this.ca).toBase64(),
    };
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "lab", cluster }],
      users: [{ name: "lab", user }],
      contexts: [{ name: "lab", context: { cluster: "lab", user: "lab" } }],
      "current-context": "lab",
    };
    return JSON.stringify(config, null, 2);
  }

  /** Makes a token known, or with undefined unknown. */
  write(token: string, entry: TokenEntry | undefined): Promise<void> {
    if (entry === undefined) delete this.#entries[token];
    else this.#entries[token] = entry;
    const text = JSON.stringify(this.#entries);
    return this.#last = this.#last.then(() => replace(`${this.directory}/tokens.json`, text));
  }
}

export function podClaims({ name, uid, nodeName, nodeUid }: BoundPod): Record<string, string[]> {
  return {
    [POD_NAME_CLAIM]: [name],
    [POD_UID_CLAIM]: [uid],
    ...(nodeName === undefined ? {} : { [NODE_NAME_CLAIM]: [nodeName] }),
    ...(nodeUid === undefined ? {} : { [NODE_UID_CLAIM]: [nodeUid] }),
  };
}

/** A reader sees the old file or the new one, never a part. */
async function replace(file: string, text: string): Promise<void> {
  const unfinished = `${file}.${crypto.randomUUID()}`;
  await Deno.writeTextFile(unfinished, text);
  await Deno.rename(unfinished, file);
}
