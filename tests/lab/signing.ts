/**
 * A cluster for signers: the API server for tests, two nodes with an agent's token each, pods, and
 * signers.
 */
import assert from "node:assert/strict";
import { newKeyAndRequest } from "../../src/identity/csr.ts";
import { openssl } from "../../src/identity/openssl_command.ts";
import { encodePem } from "../../src/identity/pem.ts";
import { DEFAULT_SIGNER_NAME, USAGES } from "../../src/identity/signing_names.ts";
import type { KubernetesApi } from "../../src/kubernetes/api.ts";
import { openKubernetesApi } from "../../src/kubernetes/open.ts";
import { runSigner, SignerHealth, type SignerOptions } from "../../src/signer/signer.ts";
import type { Account } from "./api_server/accounts.ts";
import { ApiServer, type ApiServerOptions } from "./api_server/controller.ts";
import { ApiError } from "./api_server/door.ts";
import { manifests } from "./cluster_api.ts";
import { delay, until } from "./delay.ts";
import { SignerProcess } from "./signer_process.ts";

export const NAMESPACE = "kube-gateway";
export const REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
export const BUNDLE = {
  resource: "configmaps",
  namespace: NAMESPACE,
  name: "kube-gateway-trust-bundle",
};
export const CA = { resource: "secrets", namespace: NAMESPACE, name: "kube-gateway-ca" };
export const LEASE = { resource: "leases", namespace: NAMESPACE, name: "kube-gateway-signer" };

/**
 * Who has a token: the agents of two nodes, an agent's token bound to no pod, a pod of a user,
 * signers.
 */
const WHO = {
  "agent-a": ["kube-gateway-agent", NAMESPACE, "node-a"],
  "agent-b": ["kube-gateway-agent", NAMESPACE, "node-b"],
  unbound: ["kube-gateway-agent", NAMESPACE, undefined],
  web: ["web", "shop", "node-a"],
  signer: ["kube-gateway-signer", NAMESPACE, undefined],
} as const;
export type Who = keyof typeof WHO;

/** A CertificateSigningRequest, as far as tests look into it. */
export interface SigningRequest {
  metadata: { name: string; resourceVersion: string };
  spec: Record<string, unknown>;
  status?: {
    certificate?: string;
    conditions?: { type: string; reason: string; message: string }[];
  };
}

/** What a request claims; a legal one for pod shop/web-0 when nothing is given. */
export interface RequestChange {
  pod?: { namespace?: string; name?: string; uid?: string; addresses?: string };
  spec?: Record<string, unknown>;
  /** PKCS#10, DER. */
  csr?: Uint8Array;
}

/** In many clusters anybody may file requests and read them. */
const EVERYBODY_MAY_ASK = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata: { name: "ask" },
    rules: [{
      apiGroups: ["certificates.k8s.io"],
      resources: ["certificatesigningrequests"],
      verbs: ["create", "get"],
    }],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: "ask" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "ask" },
    subjects: [{
      apiGroup: "rbac.authorization.k8s.io",
      kind: "Group",
      name: "system:serviceaccounts",
    }],
  },
];

export class SigningCluster implements AsyncDisposable {
  readonly #open = new DisposableStack();
  readonly #signers: SignerProcess[] = [];

  private constructor(
    readonly server: ApiServer,
    private readonly accounts: ReadonlyMap<Who, Account>,
  ) {}

  /** Pod shop/web-0 runs on node-a and has 10.1.0.5. */
  static async open(options: ApiServerOptions = {}): Promise<SigningCluster> {
    const server = await ApiServer.start(options);
    try {
      const core = { apiVersion: "v1" };
      await server.seed([
        ...[NAMESPACE, "shop", "bank"].map((name) => ({
          ...core,
          kind: "Namespace",
          metadata: { name },
        })),
        ...(await manifests()).filter(({ kind }) => kind.includes("Role")),
        ...EVERYBODY_MAY_ASK,
        {
          ...core,
          kind: "Node",
          metadata: { name: "node-a" },
          spec: { podCIDRs: ["10.1.0.0/24"] },
          status: { addresses: [{ type: "InternalIP", address: "10.1.0.250" }] },
        },
        { ...core, kind: "Node", metadata: { name: "node-b" }, spec: {} },
        podObject(),
      ]);
      const accounts = new Map<Who, Account>();
      for (const [who, [name, namespace, nodeName]] of Object.entries(WHO)) {
        const pod = nodeName === undefined
          ? undefined
          : { name, uid: crypto.randomUUID(), nodeName };
        accounts.set(who as Who, await server.serviceAccount(namespace, name, pod));
      }
      return new SigningCluster(server, accounts);
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  account(who: Who): Account {
    const account = this.accounts.get(who);
    assert(account);
    return account;
  }

  /** A client of the real kind; lives as long as the cluster. */
  async api(who: Who): Promise<KubernetesApi> {
    return this.#open.use(await openKubernetesApi(this.account(who).kubeconfig));
  }

  /** The real command; killed with the cluster. */
  async startSigner(options: { args?: string[]; wait?: boolean } = {}): Promise<SignerProcess> {
    const signer = new SignerProcess(this.account("signer").kubeconfig, options.args);
    this.#signers.push(signer);
    if (options.wait ?? true) await signer.ready();
    return signer;
  }

  /**
   * The signer in this process, for what takes minutes with its real times; `stop` ends it and
   * waits.
   */
  async runSigner(
    changes: Partial<SignerOptions> = {},
  ): Promise<AsyncDisposable & { health: SignerHealth }> {
    const stopped = Promise.withResolvers<void>();
    const health = new SignerHealth();
    const running = runSigner(
      {
        api: await this.api("signer"),
        namespace: NAMESPACE,
        signerName: DEFAULT_SIGNER_NAME,
        agentServiceAccount: "kube-gateway-agent",
        trustDomain: "cluster.local",
        certificateSeconds: 3600,
        identity: crypto.randomUUID(),
        propagationMilliseconds: 500,
        reviewMilliseconds: 100,
        leaseTimes: { duration: 1_000, renewDeadline: 600, retry: 100 },
        ...changes,
      },
      stopped.promise,
      health,
    );
    return {
      health,
      [Symbol.asyncDispose]: () => {
        stopped.resolve();
        return running;
      },
    };
  }

  /** Files a request and waits for its end; undefined when it has none in time. */
  async request(who: Who, change: RequestChange = {}, timeoutMs = 5_000) {
    const name = await this.file(who, change);
    return await this.settled(name, timeoutMs);
  }

  /** Files a request as an agent would, and returns its name. */
  async file(who: Who, change: RequestChange = {}): Promise<string> {
    const body = await requestBody(change);
    const made = await (await this.api(who)).request("POST", REQUESTS, { body });
    return (made as SigningRequest).metadata.name;
  }

  async settled(name: string, timeoutMs = 5_000): Promise<SigningRequest | undefined> {
    for (const end = Date.now() + timeoutMs; Date.now() < end; await delay(10)) {
      const request = await this.server.get<SigningRequest>({
        resource: "certificatesigningrequests",
        name,
      });
      const { certificate, conditions = [] } = request.status ?? {};
      if (certificate || conditions.some(({ type }) => type !== "Approved")) return request;
    }
    return undefined;
  }

  /** PEM; empty when there is no bundle yet. */
  async bundle(): Promise<string> {
    try {
      const map = await this.server.get<{ data?: Record<string, string> }>(BUNDLE);
      return map.data?.["ca-bundle.pem"] ?? "";
    } catch (error) {
      if (error instanceof ApiError && error.code === 404) return "";
      throw error;
    }
  }

  /** Who holds the Lease; empty when nobody does. */
  async leader(): Promise<string> {
    const leases = await this.server.list<{ spec?: { holderIdentity?: string } }>("leases");
    return leases[0]?.spec?.holderIdentity ?? "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#signers.map((signer) => signer.stop("SIGKILL")));
    this.#open.dispose();
    await this.server[Symbol.asyncDispose]();
  }
}

export const POD_UID = "3c9a1c1e-8a0f-4c6e-9a69-0c7a9f6a6a11";

/** A Pod as the API server holds it, to be seeded. */
export function podObject(
  { metadata = {}, spec = {}, status = {} }: {
    metadata?: Record<string, unknown>;
    spec?: Record<string, unknown>;
    status?: Record<string, unknown>;
  } = {},
): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "web-0", namespace: "shop", uid: POD_UID, ...metadata },
    spec: { nodeName: "node-a", serviceAccountName: "web", ...spec },
    status: { phase: "Running", podIPs: [{ ip: "10.1.0.5" }], ...status },
  };
}

/** A request as an agent files it. */
export async function requestBody({ pod = {}, spec = {}, csr }: RequestChange = {}) {
  const der = csr ?? (await newKeyAndRequest()).csr;
  const claim = { namespace: "shop", name: "web-0", uid: POD_UID, addresses: "10.1.0.5", ...pod };
  return {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: {
      generateName: "test-",
      annotations: Object.fromEntries(
        Object.entries(claim).map(([key, value]) => [`kube-gateway.io/pod-${key}`, value]),
      ),
    },
    spec: {
      request: new TextEncoder().encode(encodePem([der], "CERTIFICATE REQUEST")).toBase64(),
      signerName: DEFAULT_SIGNER_NAME,
      usages: USAGES,
      ...spec,
    },
  };
}

/** Every condition as `Type Reason`. */
export function conditionsOf(request: SigningRequest | undefined): string[] {
  return (request?.status?.conditions ?? []).map(({ type, reason }) => `${type} ${reason}`);
}

/** The issued chain, PEM. */
export function certificateOf(request: SigningRequest | undefined): string {
  return atob(request?.status?.certificate ?? "");
}

/** What `openssl x509 -text` says of the issued leaf. */
export async function textOfLeaf(request: SigningRequest | undefined): Promise<string> {
  const pem = new TextEncoder().encode(certificateOf(request));
  const said = await openssl(["x509", "-noout", "-text"], pem);
  assert(said.ok, `${said.text} ${conditionsOf(request)}`);
  return said.text;
}

/** What `openssl verify` says of an issued chain and a bundle. */
export async function verifyWithOpenssl(chain: string, bundle: string): Promise<string> {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/bundle`, bundle);
    await Deno.writeTextFile(`${directory}/chain`, chain);
    const args = ["verify", "-x509_strict", "-partial_chain", "-CAfile", `${directory}/bundle`];
    const said = await openssl([...args, "-untrusted", `${directory}/chain`, `${directory}/chain`]);
    return said.text;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** A request made by `openssl req` with these arguments, DER. */
export async function csrByOpenssl(args: string): Promise<Uint8Array> {
  const said = await openssl(`req -new -nodes -keyout /dev/null -outform DER ${args}`.split(" "));
  assert(said.ok, said.text);
  return new Uint8Array(said.bytes);
}

/** Waits for something that only asking tells. */
export async function eventually(
  what: string,
  holds: () => Promise<boolean> | boolean,
  timeoutMs = 5_000,
): Promise<void> {
  await until(holds, timeoutMs, () => `not in time: ${what}`);
}
