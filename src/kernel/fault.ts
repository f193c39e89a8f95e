/** Something that is not in the kernel as it should be, as it was seen just now. */
export interface Fault {
  /**
   * `link`: a program is not attached to the pod's cgroup; `pin`: it would not outlive the agent;
   * `hold`, `strict_inbound`, `guard`: the same as `link` for the programs above all pods, in a
   * pod's network namespace, on a pod's device; `state_directory`: what was pinned there has gone.
   */
  readonly kind: "link" | "pin" | "hold" | "strict_inbound" | "guard" | "state_directory";
  /** On what, and what is wrong with it. */
  readonly what: string;
}
