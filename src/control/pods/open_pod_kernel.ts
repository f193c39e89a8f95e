import { cgroupId } from "../../native/file_system.ts";
import { findNamespace } from "./namespace.ts";
import { NotThereYet, type PodKernel } from "./pod_kernel.ts";
import { processesOf } from "./processes.ts";
import { Serving, type ServingServices } from "./serving.ts";

export function openPodKernel(
  services: ServingServices,
): PodKernel {
  const { redirector, procRoot } = services;
  return {
    cgroupId,
    attach: (uid, cgroup, strictEgress) => redirector.attach(uid, cgroup, strictEgress),
    release: (uid) => redirector.release(uid),
    detach: (uid) => redirector.detach(uid),
    inspect: (uid, cgroup, strictEgress, isThorough) =>
      redirector.inspect(uid, cgroup, strictEgress, isThorough),
    open(wanted, cgroup) {
      const found = findNamespace(processesOf(cgroup), wanted.addresses, procRoot);
      if ("missing" in found) throw new NotThereYet(found.missing);
      try {
        return new Serving(wanted, cgroup, found, services);
      } catch (error) {
        found.namespace[Symbol.dispose]();
        throw error;
      }
    },
  };
}
