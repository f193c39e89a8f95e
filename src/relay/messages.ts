/** What the main thread and the relay workers say to each other. */
import type { Credentials } from "../native/tls_context.ts";

/** To a worker, with a ring of its bell. */
export type WorkerCommand =
  | {
    readonly type: "start";
    readonly bell: number;
    /** Map descriptors, lent, like the next three. */
    readonly peers: number;
    readonly identities: number;
    readonly flows: number;
    readonly origins: number;
    readonly trustDomain: string;
  }
  | { readonly type: "enrol"; readonly pod: PodDescription; readonly credentials: Credentials }
  /** From the next handshake on; live tunnels keep theirs. */
  | { readonly type: "renew"; readonly uid: string; readonly credentials: Credentials }
  /** Closes the listeners; the streams may go on for `drainMilliseconds`. Answered by `withdrawn`. */
  | { readonly type: "withdraw"; readonly uid: string; readonly drainMilliseconds: number }
  /** Some peers are gone from the kernel's map, or other pods now: tunnels to them are not used again. */
  | { readonly type: "peers" }
  /** Answered by `report`. */
  | { readonly type: "report"; readonly id: number };

/** One enrolled pod, as a worker needs it. */
export interface PodDescription {
  readonly uid: string;
  /** `namespace/name`, for the log. */
  readonly name: string;
  /** Canonical text. */
  readonly addresses: readonly string[];
  readonly cookie: bigint;
  /** The namespace's descriptor, lent: the main thread keeps it open until `withdrawn`. */
  readonly namespace: number;
  /** Listening sockets, given: the worker closes them. */
  readonly outbound: readonly number[];
  readonly inbound: readonly number[];
  readonly outboundPort: number;
}

/** From a worker. */
export type WorkerEvent =
  | { readonly type: "enrolled"; readonly uid: string }
  | { readonly type: "failed"; readonly uid: string; readonly reason: string }
  | { readonly type: "withdrawn"; readonly uid: string }
  | {
    readonly type: "report";
    readonly id: number;
    readonly pods: readonly PodReport[];
    /** The sums of the pods that are withdrawn. */
    readonly past: Traffic;
  }
  | {
    readonly type: "log";
    readonly level: "info" | "warning" | "error";
    readonly message: string;
    readonly fields: Readonly<Record<string, string | number>>;
  };

/** What a worker has done for a pod since it was enrolled. */
export interface PodReport extends Traffic {
  readonly uid: string;
}

/** Counters and, ending in Open, what there is now. */
export interface Traffic {
  readonly streamsOpen: number;
  readonly streams: number;
  readonly tunnelsOpen: number;
  readonly handshakes: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly refused: Readonly<Record<string, number>>;
}
