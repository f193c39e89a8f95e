import type { Pod } from "./objects.ts";

/** What the user should read about a pod in Kubernetes: the condition `kube-gateway.io/Secured`. */
export interface Verdict {
  readonly pod: Pod;
  readonly status: "True" | "False";
  readonly reason: "Enrolled" | "Waiting" | "Repairing" | "Refused" | "NotEnrolled";
  readonly message: string;
}
