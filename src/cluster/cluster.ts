import type { DenyList } from "./deny_list.ts";
import type { NodeFacts } from "./nodes.ts";
import type { Namespace, Pod } from "./objects.ts";
import type { RegistryEntry, RegistryPart } from "./registry.ts";
import type { Service, ServiceEndpoints } from "./services.ts";
import type { UnreadList } from "./unread_lists.ts";
import type { Verdict } from "./verdict.ts";

/** Everything that is known about the cluster at one moment. */
export interface ClusterObjects {
  readonly pods: readonly Pod[];
  /** By name. */
  readonly namespaces: ReadonlyMap<string, Namespace>;
  /** Every pod has its namespace among them: one that is missing has not been seen yet. */
  readonly hasNamespaces: boolean;
  /** The handlers of the RuntimeClasses that are known, by name. */
  readonly runtimeHandlers: ReadonlyMap<string, string>;
  /** A part that has not changed is the same object as before. */
  readonly registry: readonly RegistryPart[];
  /** By `namespace/name`; an object that has not changed is the same as before. */
  readonly services: ReadonlyMap<string, Service>;
  readonly endpoints: ReadonlyMap<string, ServiceEndpoints>;
  readonly denied: DenyList;
  /** By name; one that has not changed is the same object as before. */
  readonly nodes: ReadonlyMap<string, NodeFacts>;
  /** What of all this is old, nobody knows how much. The same object while it is the same. */
  readonly unread: readonly UnreadList[];
  /**
   * False while a source has never been read whole (a file that has been malformed since the agent
   * started): what is listed is true, but what is not listed must not be removed for that reason.
   */
  readonly complete: boolean;
}

/** Something in the cluster's objects that needs a person, until it is gone. */
export interface ClusterProblem {
  /** The file, relative to the directory, or the resource. */
  readonly file: string;
  /** Counted from 1. */
  readonly line?: number;
  readonly message: string;
}

/** Where the cluster's objects come from, and where our part of the registry goes. */
export interface Cluster {
  /**
   * Begins to follow the cluster. `onChange` gets the whole state each time that it has changed,
   * never two calls at once, and first when everything has been read once; `start` resolves after
   * that first call.
   *
   * @throws {Error} when the source cannot be read at all.
   */
  start(onChange: (objects: ClusterObjects) => void): Promise<void>;

  /**
   * Makes `entries`, all of this node, this node's whole registry. Idempotent; writes only on
   * change. Calls may overlap: the last one's entries stay. Resolves when they are written, or
   * others are wanted, or this was closed. Nobody needs to wait for that: it is tried for ever,
   * `problems` says why it is not done, and what the registry says is what `onChange` shows.
   */
  publish(entries: readonly RegistryEntry[]): Promise<void>;

  /** Removes this node's registry: the agent goes for good. Resolves as {@link publish} does. */
  withdraw(): Promise<void>;

  /**
   * Says in the pods' status, and by Events, what has become of them; resolves when it was tried.
   */
  tell(verdicts: readonly Verdict[]): Promise<void>;

  /** What is wrong with the objects right now. */
  problems(): readonly ClusterProblem[];

  /** Milliseconds since the source was last heard of. */
  readonly silence: number;

  /**
   * Whether an agent that stops now is the last one here, so that pods must go back to plain
   * connections. When another will follow (an upgrade, a restart), they stay held until it is
   * there.
   */
  isBeingUninstalled(): boolean;

  /** Stops following. What is published stays: taking it back is a decision, {@link withdraw}. */
  close(): Promise<void>;
}
