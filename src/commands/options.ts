import { canonicalAddress } from "../addresses.ts";
import { parseCidr } from "../cidr.ts";
import { DEFAULT_TRUST_DOMAIN } from "../constants.ts";
import { parseEgressException } from "../control/rules/egress_rules.ts";
import { DEFAULT_SIGNER_NAME } from "../identity/signing_names.ts";
import { validTrustDomain } from "../identity/spiffe.ts";
import { parseListenAddress } from "../listen_address.ts";
import { isDnsSubdomain } from "../names.ts";

/** One option of a command. */
export interface OptionSpec {
  /** The value's name in the help; a flag has none. */
  readonly value?: string;
  readonly about: string;
  readonly default?: string | readonly string[];
  readonly required?: boolean;
  /** May be given several times. */
  readonly multiple?: boolean;
  /** What the value must be, when it is not. */
  readonly check?: (value: string) => string | undefined;
}

const wholeNumber = (least: number, most: number) => (value: string) =>
  /^\d{1,9}$/.test(value) && Number(value) >= least && Number(value) <= most
    ? undefined
    : `a whole number from ${least} to ${most}`;

const oneOf = (...choices: string[]) => (value: string) =>
  choices.includes(value) ? undefined : `one of ${choices.join(", ")}`;

const absolutePath = (value: string) => value.startsWith("/") ? undefined : "an absolute path";

const listenAddress = (value: string) =>
  parseListenAddress(value) === undefined ? "HOST:PORT or :PORT" : undefined;

const kubernetesName = (what: string) => (value: string) =>
  isDnsSubdomain(value) ? undefined : `the name of ${what} in Kubernetes`;

const KUBECONFIG = {
  value: "FILE",
  about: "how to reach the API server (default: as a pod in the cluster)",
} as const;

const TRUST_DOMAIN = {
  value: "NAME",
  about: "SPIFFE trust domain of the pods' identities",
  default: DEFAULT_TRUST_DOMAIN,
  check: (value: string) => validTrustDomain(value) ? undefined : "a SPIFFE trust domain",
} as const;

const SIGNER_NAME = {
  value: "NAME",
  about: "signerName of the certificate requests",
  default: DEFAULT_SIGNER_NAME,
  check: (value: string) => isSignerName(value) ? undefined : "a signer name, DOMAIN/PATH",
} as const;

const LOG = {
  "log-level": {
    value: "LEVEL",
    about: "debug, info, warning or error",
    default: "info",
    check: oneOf("debug", "info", "warning", "error"),
  },
  "log-format": {
    value: "FORMAT",
    about: "text or json, on standard error",
    default: "text",
    check: oneOf("text", "json"),
  },
} as const;

const ADMIN_SOCKET = {
  value: "PATH",
  about: "unix socket of the agent",
  default: "/run/kube-gateway/admin.sock",
  check: absolutePath,
} as const;

const STATE_DIR = {
  value: "DIR",
  about: "where links and maps are pinned, on a bpffs",
  default: "/sys/fs/bpf/kube-gateway",
  check: absolutePath,
} as const;

const ASK = {
  "admin-socket": {
    ...ADMIN_SOCKET,
    about: "unix socket of the agent; several give one table",
    multiple: true,
    default: [ADMIN_SOCKET.default],
  },
  json: { about: "print JSON" },
} as const;

/** Every command and its options: what the command line accepts and --help prints. */
export const COMMANDS = {
  agent: {
    about: "run on a node: enrol its annotated pods and relay their connections",
    options: {
      "node-name": {
        value: "NAME",
        about: "this node, as pods' spec.nodeName has it",
        required: true,
        check: kubernetesName("a node"),
      },
      kubeconfig: KUBECONFIG,
      cluster: {
        value: "DIR",
        about: "a directory of Kubernetes objects that plays the API server",
      },
      "daemon-set": {
        value: "NAME",
        about:
          "the DaemonSet that runs this agent: pods get plain connections back at its end, not ours",
        check: kubernetesName("a DaemonSet"),
      },
      "signer-name": SIGNER_NAME,
      "metrics-address": {
        value: "[HOST]:PORT",
        about: "where /healthz, /readyz and /metrics are served (default: nowhere)",
        check: listenAddress,
      },
      "state-dir": STATE_DIR,
      "cgroup-root": {
        value: "DIR",
        about: "where the pods' cgroups are (default: the cgroup v2 mount)",
        check: absolutePath,
      },
      "proc-root": {
        value: "DIR",
        about: "the node's /proc",
        default: "/proc",
        check: absolutePath,
      },
      workers: {
        value: "N",
        about: "relay threads",
        default: String(Math.min(4, Math.max(2, Math.floor(navigator.hardwareConcurrency / 4)))),
        check: wholeNumber(1, 64),
      },
      "trust-domain": TRUST_DOMAIN,
      "cert-ttl": {
        value: "SECONDS",
        about: "lifetime of a pod's certificate, renewed at half",
        default: "86400",
        check: wholeNumber(10, 30 * 86400),
      },
      "tunnel-idle": {
        value: "SECONDS",
        about: "how long a tunnel waits for its next connection; 0: every connection has its own",
        default: "10",
        check: wholeNumber(0, 100),
      },
      "max-connections": {
        value: "N",
        about:
          "open connections of all pods together, 30 kB each; a pod, or a namespace beside another, has half at most",
        default: "25000",
        check: wholeNumber(100, 10_000_000),
      },
      "access-log": {
        value: "N",
        about: "log one in N connections when it has ended, failed ones always; 0: none",
        default: "1",
        check: wholeNumber(0, 1_000_000),
      },
      "cluster-cidr": {
        value: "CIDR",
        about: "where pods and Services are: strict egress refuses plain connections there",
        multiple: true,
        default: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"],
        check: (value) => parseCidr(value) === undefined ? "a range like 10.0.0.0/8" : undefined,
      },
      "guest-runtimes": {
        value: "HANDLER",
        about:
          "a RuntimeClass' handler whose pods have a kernel of their own and are refused, beside runsc and kata; may end with *",
        multiple: true,
        default: [],
        check: (value) => /^[a-z0-9-]+\*?$/.test(value) ? undefined : "a handler's name",
      },
      inbound: {
        value: "strict|dry-run|permissive",
        about: "what pods are that say nothing of kube-gateway.io/inbound, nor their namespaces",
        default: "permissive",
        check: strictness,
      },
      egress: {
        value: "strict|dry-run|permissive",
        about: "the same for kube-gateway.io/egress",
        default: "permissive",
        check: strictness,
      },
      "egress-allow": {
        value: "CIDR[:PORT]",
        about:
          "what strict egress lets through in clear, IPv6 as [CIDR]:PORT; always the API server",
        multiple: true,
        default: ["0.0.0.0/0:53", "[::/0]:53"],
        check: (value) =>
          parseEgressException(value) === undefined
            ? "a range like 10.0.0.0/8, 10.0.0.0/8:53 or [fd00::/8]:53"
            : undefined,
      },
      "admin-socket": ADMIN_SOCKET,
      ...LOG,
    },
  },
  signer: {
    about: "run in the cluster: approve and sign the agents' certificate requests",
    options: {
      kubeconfig: KUBECONFIG,
      "signer-name": SIGNER_NAME,
      "agent-service-account": {
        value: "NAME",
        about: "the service account of the agents: nobody else may ask",
        default: "kube-gateway-agent",
        check: kubernetesName("a service account"),
      },
      "trust-domain": TRUST_DOMAIN,
      "cert-ttl": {
        value: "SECONDS",
        about: "longest and usual lifetime of a pod's certificate; a request may ask for less",
        default: "86400",
        check: wholeNumber(10, 30 * 86400),
      },
      "health-address": {
        value: "[HOST]:PORT",
        about: "where /healthz and /readyz are served",
        default: ":8080",
        check: listenAddress,
      },
      ...LOG,
    },
  },
  status: {
    about: "ask the local agent what is enrolled, and what is not and why",
    options: ASK,
  },
  conns: {
    about: "ask the local agent which connections are open, and how they are encrypted",
    options: ASK,
  },
  audit: {
    about:
      "have the local agent look now whether everything is as it says, and put right what is not",
    options: ASK,
  },
  certs: {
    about: "ask the local agent for its pods' certificates",
    options: ASK,
  },
  check: {
    about: "tell whether this node has what the agent needs, and what to do where it has not",
    options: { "state-dir": STATE_DIR, json: { about: "print JSON" } },
  },
  "ca check": {
    about: "say whether pods' certificates by a CA would be accepted, before it is installed",
    operand: "FILE",
    options: {
      key: {
        value: "FILE",
        about: "the private key, when it is not in FILE, too",
      },
      address: {
        value: "ADDRESS",
        about: "of a pod that the CA must be able to vouch for",
        multiple: true,
        default: [],
        check: (value) => canonicalAddress(value) === undefined ? "an IP address" : undefined,
      },
      "trust-domain": TRUST_DOMAIN,
    },
  },
  cleanup: {
    about: "detach everything from this node; pods go on with plain connections",
    options: { "state-dir": STATE_DIR },
  },
  version: {
    about: "print the version and the commit",
    options: { json: { about: "print JSON" } },
  },
} as const satisfies Record<string, CommandSpec>;

/** What a subcommand does and takes. */
export interface CommandSpec {
  readonly about: string;
  /** What its one argument beside the options is. */
  readonly operand?: string;
  readonly options: Record<string, OptionSpec>;
}

export type CommandName = keyof typeof COMMANDS;

/** certificates.k8s.io/v1: a domain with a dot, then a path of subdomains. */
function isSignerName(text: string): boolean {
  const [domain = "", ...path] = text.split("/");
  return text.length <= 571 && domain.includes(".") && isDnsSubdomain(domain) &&
    path.length === 1 && path.every(isDnsSubdomain);
}

function strictness(text: string): string | undefined {
  return ["strict", "dry-run", "permissive"].includes(text)
    ? undefined
    : "strict, dry-run or permissive";
}
