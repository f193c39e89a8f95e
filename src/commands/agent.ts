import { EGRESS_ANNOTATION, INBOUND_ANNOTATION } from "../constants.ts";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type AgentSource, runAgent } from "../agent.ts";
import { parseCidr } from "../cidr.ts";
import { cgroup2Mount } from "../cgroup_mount.ts";
import { parseEgressException } from "../control/rules/egress_rules.ts";
import {
  addressOption,
  listOption,
  optionalText,
  type Options,
  textOption,
  UsageError,
} from "./command_line.ts";
import { keepMemoryPrivate } from "../native/secrecy.ts";
import { PodLines } from "./pod_lines.ts";
import { configureLog, signalled } from "./process.ts";

/** `kube-gateway agent`. Resolves after SIGTERM or SIGINT. */
export async function agentCommand(options: Options): Promise<void> {
  const source = sourceOf(options);
  keepMemoryPrivate();
  const podLines = new PodLines();
  await configureLog(options, (record) => podLines.take(record, performance.now()));
  const objectFile = fileURLToPath(new URL("../../build/redirect.bpf.o", import.meta.url));
  if (!existsSync(objectFile)) {
    throw new Error(`${objectFile} is missing: compile the eBPF programs with deno task build:bpf`);
  }
  await runAgent({
    nodeName: textOption(options, "node-name"),
    source,
    trustDomain: textOption(options, "trust-domain"),
    certificateSeconds: Number(textOption(options, "cert-ttl")),
    stateDirectory: textOption(options, "state-dir"),
    cgroupRoot: optionalText(options, "cgroup-root") ??
      cgroup2Mount(readFileSync("/proc/self/mountinfo", "utf8")),
    procRoot: textOption(options, "proc-root"),
    tunnelIdleSeconds: Number(textOption(options, "tunnel-idle")),
    maxConnections: Number(textOption(options, "max-connections")),
    accessLogEvery: Number(textOption(options, "access-log")),
    inside: listOption(options, "cluster-cidr", parseCidr),
    exceptions: listOption(options, "egress-allow", parseEgressException),
    guestRuntimes: listOption(options, "guest-runtimes", (text) => text),
    // Permissive is what nobody has asked for: a policy still binds everybody then.
    defaults: {
      ...asked(INBOUND_ANNOTATION, textOption(options, "inbound")),
      ...asked(EGRESS_ANNOTATION, textOption(options, "egress")),
    },
    workers: Number(textOption(options, "workers")),
    metricsAddress: addressOption(options, "metrics-address"),
    adminSocket: textOption(options, "admin-socket"),
    objectFile,
  }, signalled("SIGTERM", "SIGINT"));
}

function sourceOf(options: Options): AgentSource {
  const directory = optionalText(options, "cluster");
  const kubeconfig = optionalText(options, "kubeconfig");
  const daemonSet = optionalText(options, "daemon-set");
  if (directory === undefined) {
    if (kubeconfig === undefined && Deno.env.get("KUBERNETES_SERVICE_HOST") === undefined) {
      throw new UsageError("outside a pod, agent needs --kubeconfig FILE or --cluster DIR");
    }
    return { kubeconfig, daemonSet, signerName: textOption(options, "signer-name") };
  }
  for (const name of ["kubeconfig", "daemon-set"]) {
    if (options[name] === undefined) continue;
    throw new UsageError(
      `--${name} makes no sense with --cluster, which is there instead of an API server`,
    );
  }
  return { directory };
}

function asked(annotation: string, value: string): Record<string, string> {
  return value === "permissive" ? {} : { [annotation]: value };
}
