import type { RegistryEntry } from "../registry.ts";
import type { Verdict } from "../verdicts.ts";
import type { ClusterObjects } from "./objects.ts";

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
   * Begins to follow the cluster. `onChange` gets the whole state each time that it has changed, never two
   * calls at once, and first when everything has been read once; `start` resolves after that first call.
   *
   * @throws {Error} when the source cannot be read at all.
   */
  start(onChange: (objects: ClusterObjects) => void): Promise<void>;

  /**
   * Makes `entries`, all of this node, this node's whole registry. Idempotent; writes only on change.
   * Calls may overlap: the last one's entries stay.
   */
  publish(entries: readonly RegistryEntry[]): Promise<void>;

  /** Says in the pods' status, and by Events, what has become of them; resolves when it was tried. */
  tell(verdicts: readonly Verdict[]): Promise<void>;

  /** What is wrong with the objects right now. */
  problems(): readonly ClusterProblem[];

  /** Milliseconds since the source was last heard of. */
  readonly silence: number;

  /**
   * Whether an agent that stops now is the last one here, so that pods must go back to plain connections. When
   * another will follow (an upgrade, a restart), they stay held until it is there.
   */
  isBeingUninstalled(): boolean;

  /** Stops following. What is published stays: taking it back is a decision, `publish([])`. */
  close(): Promise<void>;
}
