/** What the main thread and the relay workers say to each other. */
import type { Endpoint } from "../native/socket_address.ts";
import type { Credentials } from "../native/tls_context.ts";
import type { TlsFacts } from "../native/tls_session.ts";
import type { Policy } from "../policy.ts";
import type { Traffic } from "./traffic.ts";

/** To a worker, with a ring of its bell. */
export type WorkerCommand =
  | {
    readonly type: "start";
    readonly bell: number;
    /** Which of the workers it is, counted from 0. */
    readonly worker: number;
    /** Of `load.ts`, shared by all. */
    readonly load: SharedArrayBuffer;
    readonly context: WorkerDescription;
  }
  /** Another worker has too much to do. */
  | { readonly type: "take"; readonly connection: PassedConnection }
  | { readonly type: "enrol"; readonly pod: PodDescription; readonly credentials: RelayCredentials }
  /** From now on, for live streams too. */
  | { readonly type: "adjust"; readonly relay: number; readonly settings: RelaySettings }
  /** From the next handshake on; live tunnels keep theirs. */
  | { readonly type: "renew"; readonly relay: number; readonly credentials: RelayCredentials }
  /**
   * Closes the listeners; the streams may go on for `drainMilliseconds`. Answered by `withdrawn`.
   */
  | { readonly type: "withdraw"; readonly relay: number; readonly drainMilliseconds: number }
  /**
   * Some peers are gone from the kernel's map, or other pods now: tunnels to them are not used
   * again.
   */
  | { readonly type: "peers" }
  /**
   * These peers are about to go from the kernel's map: what is on its way to or from them is let
   * through.
   */
  | { readonly type: "leaving"; readonly peers: readonly LeavingPeer[] }
  /** Whoever is among these is nobody from now on, in live streams too. */
  | { readonly type: "deny"; readonly denied: Denied }
  /** Whether the pod can be reached, seen by a handshake with it. Answered by `proved`. */
  | {
    readonly type: "prove";
    readonly id: number;
    readonly relay: number;
    /** One of the pod's, canonical text. */
    readonly address: string;
  }
  /** Answered by `report`. */
  | { readonly type: "report"; readonly id: number }
  /** Answered by `connections`. */
  | { readonly type: "connections"; readonly id: number };

export interface LeavingPeer {
  /** Canonical text. */
  readonly address: string;
  /** SPIFFE ID. */
  readonly identity: string;
}

/** Whose certificate is good and not to be believed. */
export interface Denied {
  /** Lower-case hexadecimal without leading zeros. */
  readonly serials: ReadonlySet<string>;
  /** SPIFFE IDs. */
  readonly identities: ReadonlySet<string>;
  /** UIDs. */
  readonly pods: ReadonlySet<string>;
}

/** What all connections of a worker share. */
export interface WorkerDescription {
  /** Descriptors of the kernel's maps, lent. */
  readonly maps: {
    readonly peers: number;
    readonly identities: number;
    readonly flows: number;
    readonly origins: number;
    readonly frontends: number;
    readonly backends: number;
    readonly affinities: number;
  };
  readonly trustDomain: string;
  /** How long a tunnel may wait for its next stream; 0: no tunnel is used twice. */
  readonly tunnelIdleMilliseconds: number;
  /** Open connections of all pods together, in one worker. */
  readonly maxConnections: number;
  /** One in so many finished streams is logged, failed ones always; 0: none. */
  readonly accessLogEvery: number;
}

/** What a pod shows and trusts. */
export interface RelayCredentials extends Credentials {
  /** When its certificate expires, in milliseconds since 1970. */
  readonly notAfter: number;
}

/** What a pod's annotations say that concerns the relay. */
export interface RelaySettings {
  /** Who may connect; undefined: every identity of the trust domain. */
  readonly policy: Policy | undefined;
  /** Nothing may leave in clear. */
  readonly strictEgress: boolean;
}

/** One enrolled pod, as a worker needs it. */
export interface PodDescription {
  /**
   * Names it in commands: a pod that has a new sandbox is another one, while the old one's streams
   * end.
   */
  readonly relay: number;
  readonly uid: string;
  /** `namespace/name`, for the log. */
  readonly name: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** Canonical text. */
  readonly addresses: readonly string[];
  readonly settings: RelaySettings;
  readonly cookie: bigint;
  /** The namespace's descriptor, lent: the main thread keeps it open until `withdrawn`. */
  readonly namespace: number;
  /** Listening sockets, given: the worker closes them. */
  readonly outbound: readonly number[];
  readonly inbound: readonly number[];
  readonly outboundPort: number;
}

/** A connection that one worker has accepted and another is to take: a socket that is given. */
export interface PassedConnection {
  readonly relay: number;
  /** Of the pod's listeners, in their order. */
  readonly listener: number;
  readonly descriptor: number;
  readonly peer: Endpoint;
}

/** From a worker. */
export type WorkerEvent =
  | { readonly type: "passed"; readonly to: number; readonly connection: PassedConnection }
  | { readonly type: "enrolled"; readonly relay: number }
  | { readonly type: "failed"; readonly relay: number; readonly reason: string }
  | { readonly type: "withdrawn"; readonly relay: number }
  | { readonly type: "proved"; readonly id: number; readonly result: ProofResult }
  | {
    readonly type: "report";
    readonly id: number;
    readonly pods: readonly PodReport[];
    /** The sums of the pods that are withdrawn. */
    readonly past: Traffic;
  }
  | {
    readonly type: "connections";
    readonly id: number;
    /** The first thousand. */
    readonly connections: readonly ConnectionReport[];
    readonly count: number;
  }
  /** A handshake has shown who is behind an address that the registry gives to another identity. */
  | { readonly type: "shown"; readonly shown: ShownCertificate }
  /**
   * Streams that have ended; of pods in each namespace so many more as `left` says are not told.
   */
  | {
    readonly type: "streams";
    readonly streams: readonly StreamReport[];
    readonly left: ReadonlyMap<string, number>;
  }
  | {
    readonly type: "log";
    readonly level: "info" | "warning" | "error";
    readonly message: string;
    readonly fields: Readonly<Record<string, string | number>>;
  };

/** A certificate that was verified, whose holder is not who the registry says. */
export interface ShownCertificate {
  /** One of those that it is for, canonical text. */
  readonly address: string;
  /** SPIFFE ID. */
  readonly identity: string;
  /** In milliseconds since 1970. */
  readonly notAfter: number;
}

/** What a handshake of a pod with itself has shown. */
export type ProofResult =
  | {
    readonly ok: true;
    /** When the certificate that it showed expires, in milliseconds since 1970. */
    readonly notAfter: number;
    /** How long it took. */
    readonly milliseconds: number;
  }
  | { readonly ok: false; readonly reason: string };

/** What a worker has done for a pod since it was enrolled. */
export interface PodReport extends Traffic {
  readonly uid: string;
}

/** A connection of an application, or the tunnel of the last one while it waits for the next. */
export interface ConnectionReport {
  readonly direction: "outbound" | "inbound";
  /** The relay worker that has it, counted from 0. */
  readonly worker: number;
  /** `namespace/name` of the pod on this node. */
  readonly pod: string;
  /** SPIFFE ID of that pod. */
  readonly identity: string;
  readonly state: "opening" | "streaming" | "idle";
  /** The connecting application's address and port. */
  readonly client: string;
  /** The address and port of the application that it is connected to. */
  readonly destination: string;
  /** What the application had asked for: a pod's address or a Service's. */
  readonly dialled: string;
  readonly milliseconds: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  /**
   * The other pod's address and SPIFFE ID; absent: it is not enrolled, and the connection is in
   * clear.
   */
  readonly peer?: string;
  readonly peerIdentity?: string;
  readonly tls?: TlsFacts;
}

/** A stream that has ended. */
export interface StreamReport extends ConnectionReport {
  /** Why it did not end by both sides' FIN; absent when it did. */
  readonly failure?: string;
}
