import { KUBELET_DIRECTORIES } from "./cgroup.ts";
import { nodeIpv4, nodeIpv6, type NodeNetwork } from "./network.ts";
import { Place } from "./place.ts";
import type { Processes } from "./process.ts";

/**
 * A node: its namespace is "the host's" for its agent. Its processes are not in any pod's cgroup.
 */
export class Node extends Place implements NodeNetwork {
  readonly ipv4: string;
  readonly ipv6: string;
  /** The link to the other nodes. */
  readonly uplink = "eth0";
  readonly agentCgroup: string;
  #nextHost = 2; // 1 is the gateway.

  constructor(
    processes: Processes,
    readonly name: string,
    readonly number: number,
    netns: string,
    /** What the agent gets as `--cgroup-root`. */
    readonly cgroup: string,
  ) {
    super(processes, netns, `${cgroup}/system.slice/other`);
    this.ipv4 = nodeIpv4(number);
    this.ipv6 = nodeIpv6(number);
    this.agentCgroup = `${cgroup}/system.slice/kube-gateway`;
  }

  async makeCgroups(): Promise<void> {
    const wanted = KUBELET_DIRECTORIES.map((directory) => `${this.cgroup}/${directory}`);
    for (const directory of [this.processCgroup, this.agentCgroup, ...wanted]) {
      await Deno.mkdir(directory, { recursive: true });
    }
  }

  /** The last part of the next pod's addresses; a removed pod's is not given out again. */
  takeHostNumber(): number {
    if (this.#nextHost > 254) throw new Error(`Cannot add a pod to ${this.name}: its /24 is full`);
    return this.#nextHost++;
  }
}
