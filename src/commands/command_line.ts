import { parseArgs } from "node:util";
import { DEFAULT_TRUST_DOMAIN } from "../constants.ts";
import { validTrustDomain } from "../identity/spiffe.ts";
import { isDnsSubdomain } from "../names.ts";

/** A command line that makes no sense: exit status 2. The message is one line. */
export class UsageError extends Error {}

export type Options = Readonly<Record<string, string | boolean | string[]>>;

/** A subcommand with its checked options, or the help that was asked for. */
export type CommandLine =
  | { readonly name: CommandName; readonly options: Options }
  | { readonly help: string };

/** Reads the command line. Throws a UsageError. */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const [name, ...rest] = args;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    return { help: overview() };
  }
  if (!isCommand(name)) {
    throw new UsageError(`unknown command '${name}': try kube-gateway --help`);
  }
  const options = parseOptions(name, rest);
  if (options.help === true) return { help: helpOf(name) };
  const checked: Record<string, string | boolean | string[]> = {};
  for (const [option, spec] of Object.entries<OptionSpec>(COMMANDS[name].options)) {
    const value = options[option] ?? spec.default;
    if (value === undefined) {
      if (spec.required) throw new UsageError(`${name} needs --${option} ${spec.value}`);
      continue;
    }
    for (const text of [value].flat()) {
      const problem = typeof text === "string" ? spec.check?.(text) : undefined;
      if (problem !== undefined) {
        throw new UsageError(`--${option} must be ${problem}, not '${text}'`);
      }
    }
    checked[option] = value;
  }
  return { name, options: checked };
}

/** A text option that has a value, by its default or because it is required. */
export function textOption(options: Options, name: string): string {
  const value = options[name];
  if (typeof value !== "string") throw new UsageError(`--${name} is missing`);
  return value;
}

interface OptionSpec {
  /** The value's name in the help; a flag has none. */
  readonly value?: string;
  readonly about: string;
  readonly default?: string | string[];
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

const COMMANDS = {
  agent: {
    about: "run on a node: enrol its annotated pods and relay their connections",
    options: {
      "node-name": {
        value: "NAME",
        about: "this node, as pods' spec.nodeName has it",
        required: true,
        check: (value: string) => isDnsSubdomain(value) ? undefined : "a Kubernetes node name",
      },
      cluster: {
        value: "DIR",
        about: "a directory of Kubernetes objects that plays the API server",
        required: true,
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
      "trust-domain": {
        value: "NAME",
        about: "SPIFFE trust domain of the pods' identities",
        default: DEFAULT_TRUST_DOMAIN,
        check: (value: string) => validTrustDomain(value) ? undefined : "a SPIFFE trust domain",
      },
      "cert-ttl": {
        value: "SECONDS",
        about: "lifetime of a pod's certificate, renewed at half",
        default: "86400",
        check: wholeNumber(10, 30 * 86400),
      },
      "admin-socket": ADMIN_SOCKET,
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
    },
  },
  status: {
    about: "ask the local agent what is enrolled, and what is not and why",
    options: {
      "admin-socket": {
        ...ADMIN_SOCKET,
        about: "unix socket of the agent; several give one table",
        multiple: true,
        default: [ADMIN_SOCKET.default],
      },
      json: { about: "print JSON" },
    },
  },
  check: {
    about: "tell whether this node has what the agent needs, and what to do where it has not",
    options: { "state-dir": STATE_DIR, json: { about: "print JSON" } },
  },
  cleanup: {
    about: "detach everything from this node; pods go on with plain connections",
    options: { "state-dir": STATE_DIR },
  },
} as const satisfies Record<string, { about: string; options: Record<string, OptionSpec> }>;

export type CommandName = keyof typeof COMMANDS;

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

function parseOptions(name: CommandName, args: string[]): Options {
  const options = Object.fromEntries(
    Object.entries<OptionSpec>(COMMANDS[name].options).map(([option, spec]) => [option, {
      type: spec.value === undefined ? "boolean" as const : "string" as const,
      multiple: spec.multiple ?? false,
    }]),
  );
  try {
    const { values } = parseArgs({
      args,
      options: { ...options, help: { type: "boolean", short: "h" } },
    });
    return values as Options;
  } catch (error) {
    const [line] = (error instanceof Error ? error.message : String(error)).split(". ");
    throw new UsageError(`${line}: try kube-gateway ${name} --help`);
  }
}

function overview(): string {
  return [
    "kube-gateway: mutual TLS between annotated pods, one agent per node.",
    "",
    "Usage: kube-gateway COMMAND [OPTIONS]",
    "",
    ...columns(Object.entries(COMMANDS).map(([name, { about }]) => [name, about])),
    "",
    "kube-gateway COMMAND --help tells a command's options.",
  ].join("\n");
}

function helpOf(name: CommandName): string {
  const { about, options } = COMMANDS[name];
  return [
    `kube-gateway ${name}: ${about}.`,
    "",
    "Options:",
    ...columns(
      Object.entries<OptionSpec>(options).map(([option, spec]) => [
        `--${option}${spec.value === undefined ? "" : ` ${spec.value}`}`,
        spec.about + hint(spec),
      ]),
    ),
  ].join("\n");
}

function hint(spec: OptionSpec): string {
  if (spec.required) return " (required)";
  return spec.default === undefined ? "" : ` (default: ${[spec.default].flat().join(", ")})`;
}

function columns(rows: [string, string][]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}
