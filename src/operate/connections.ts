import type { ConnectionReport } from "../relay/messages.ts";

/**
 * What is open on a node now: the answer of `GET /connections`, printed by `kube-gateway conns`.
 */
export interface AgentConnections {
  readonly node: string;
  /** All of them; the list may be shorter. */
  readonly count: number;
  readonly connections: readonly Connection[];
}

export interface Connection extends ConnectionReport {
  /** `namespace/name` of the other pod, as the registry has it. */
  readonly peerPod?: string;
  /**
   * Whether the kernel does the encryption. Never yet: sessions go through memory, which needs
   * fewer system calls.
   */
  readonly kernelTls: false;
}

/** The longest first. `podAt`: a peer's `namespace/name` by its address. */
export function agentConnections(
  node: string,
  connections: readonly ConnectionReport[],
  count: number,
  podAt: (address: string | undefined) => string | undefined,
): AgentConnections {
  return {
    node,
    count,
    connections: connections.map((connection) => {
      const peerPod = podAt(connection.peer);
      return {
        ...connection,
        ...(peerPod === undefined ? {} : { peerPod }),
        kernelTls: false as const,
      };
    }).sort((a, b) => b.milliseconds - a.milliseconds),
  };
}
