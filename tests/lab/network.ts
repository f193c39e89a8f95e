import { runScript } from "./process.ts";

/**
 * The lab's network:
 *
 *   outside ── fabric0 (bridge, namespace "fabric") ── eth0 of each node
 *                                                      node: cni0 (bridge) ── eth0 of each pod
 */
export interface NodeNetwork {
  netns: string;
  /** 1 for the first node: it is in every address of the node and of its pods. */
  number: number;
}

export interface PodNetwork {
  netns: string;
  hostVeth: string;
  ipv4?: string;
  ipv6?: string;
}

export const OUTSIDE = { ipv4: "203.0.113.5", ipv6: "2001:db8::5" };

export const nodeIpv4 = (node: number) => `10.76.0.${node}`;
export const nodeIpv6 = (node: number) => `fd76::${node.toString(16)}`;
export const podIpv4 = (node: number, host: number) => `10.77.${node}.${host}`;
export const podIpv6 = (node: number, host: number) =>
  `fd77:${node.toString(16)}::${host.toString(16)}`;

export async function buildFabric(
  fabric: string,
  outside: string,
  nodes: NodeNetwork[],
): Promise<void> {
  const uplinks = [
    { netns: outside, name: "outside" },
    ...nodes.map(({ netns, number }) => ({ netns, name: `node${number}` })),
  ];
  await runScript([
    batch(fabric, outside, ...nodes.map(({ netns }) => netns)),
    // The settings are the defaults of links to come, so they precede the links.
    ...[outside, ...nodes.map(({ netns }) => netns)].map((netns) => inNamespace(netns, [])),
    inNamespace(fabric, [
      `link add fabric0 address ${bridgeMac(0)} type bridge mcast_snooping 0`,
      "link set fabric0 up",
      ...uplinks.flatMap(({ netns, name }) => [
        `link add ${name} type veth peer name eth0 netns ${netns}`,
        `link set ${name} master fabric0 up`,
      ]),
    ]),
    inNamespace(outside, [
      "link set eth0 up",
      `addr add ${OUTSIDE.ipv4}/24 dev eth0`,
      `addr add ${OUTSIDE.ipv6}/64 dev eth0 nodad`,
      "route add 10.76.0.0/24 dev eth0",
      "route add fd76::/64 dev eth0",
      ...nodes.flatMap(routesToPodsOf),
    ]),
    ...nodes.map((node) => inNamespace(node.netns, nodeLines(node, nodes), FORWARDING)),
  ].join("\n"));
}

/** Makes the namespaces of pods on one node and connects them, in one go. */
export async function connectPods(node: NodeNetwork, pods: PodNetwork[]): Promise<void> {
  if (pods.length === 0) return;
  await runScript([
    batch(...pods.map(({ netns }) => netns)),
    ...pods.map(({ netns }) => inNamespace(netns, [])),
    inNamespace(
      node.netns,
      [
        ...pods.flatMap(({ netns, hostVeth }) => [
          `link add ${hostVeth} type veth peer name eth0 netns ${netns}`,
          `link set ${hostVeth} master cni0 up`,
        ]),
        // An address may have been another pod's: its link-layer address is not to be remembered.
        "neigh flush dev cni0",
      ],
      "",
    ),
    ...pods.map(({ netns, ipv4, ipv6 }) =>
      `ip -n ${netns} -batch - <<'LINES'
link set eth0 up
${ipv4 ? `addr add ${ipv4}/24 dev eth0\nroute add default via ${podIpv4(node.number, 1)}` : ""}
${
        ipv6
          ? `addr add ${ipv6}/64 dev eth0 nodad\nroute add default via ${podIpv6(node.number, 1)}`
          : ""
      }
LINES`
    ),
  ].join("\n"));
}

/**
 * Takes a pod off its node's network, as CNI's DEL does, and removes its namespace. The kernel
 * takes a namespace apart later, and until then its link would go on answering for an address that
 * may be another pod's by now.
 */
export async function disconnectPod(node: NodeNetwork, pod: PodNetwork): Promise<void> {
  await runScript(`ip -n ${node.netns} link del ${pod.hostVeth}`);
  await removeNamespaces([pod.netns]);
}

/** Removes named namespaces; their links go with them, sooner or later. */
export async function removeNamespaces(names: string[]): Promise<void> {
  if (names.length === 0) return;
  const lines = names.map((name) => `netns del ${name}`).join("\n");
  // -force: two labs may sweep the same leftovers at the same time.
  await runScript(`ip -force -batch - <<'LINES' || true\n${lines}\nLINES\n`);
}

function nodeLines(node: NodeNetwork, nodes: NodeNetwork[]): string[] {
  return [
    "link set eth0 up",
    `addr add ${nodeIpv4(node.number)}/24 dev eth0`,
    `addr add ${nodeIpv6(node.number)}/64 dev eth0 nodad`,
    // An address of its own: a bridge takes its ports' lowest one, and would change it as pods
    // come, so that their neighbours' packets went nowhere for seconds.
    `link add cni0 address ${bridgeMac(node.number)} type bridge mcast_snooping 0`,
    "link set cni0 up",
    `addr add ${podIpv4(node.number, 1)}/24 dev cni0`,
    `addr add ${podIpv6(node.number, 1)}/64 dev cni0 nodad`,
    "route add 203.0.113.0/24 dev eth0",
    "route add 2001:db8::/64 dev eth0",
    ...nodes.filter((other) => other !== node).flatMap(routesToPodsOf),
  ];
}

function routesToPodsOf({ number }: NodeNetwork): string[] {
  return [
    `route add 10.77.${number}.0/24 via ${nodeIpv4(number)}`,
    `route add fd77:${number.toString(16)}::/64 via ${nodeIpv6(number)}`,
  ];
}

// Without this an address waits a second or more for duplicate address detection.
const NO_DAD = "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad\n" +
  "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad\n";

const FORWARDING = NO_DAD +
  "echo 1 > /proc/sys/net/ipv4/ip_forward\n" +
  "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n";

/** Shell text that runs `ip` lines, and `settings` before them, inside a namespace. */
function inNamespace(netns: string, lines: string[], settings = NO_DAD): string {
  return `nsenter --net=/run/netns/${netns} sh -e <<'SETTINGS'
${settings}
ip -batch - <<'LINES'
link set lo up
${lines.join("\n")}
LINES
SETTINGS`;
}

function batch(...namespaces: string[]): string {
  return `ip -batch - <<'LINES'\n${
    namespaces.map((name) => `netns add ${name}`).join("\n")
  }\nLINES`;
}

/** A locally administered unicast address (IEEE 802). */
function bridgeMac(number: number): string {
  return `02:00:00:00:00:${number.toString(16).padStart(2, "0")}`;
}
