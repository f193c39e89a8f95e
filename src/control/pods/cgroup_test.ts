import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { findKubepods, findPodCgroups, podUidOf } from "./cgroup.ts";

const UID = "0c5f3b1e-6d5e-4c64-9d3a-111111111111";
const SLICE_UID = UID.replaceAll("-", "_");

/** A tree of directories, which is what a cgroup is to these functions. */
function withTree(directories: readonly string[], look: (root: string) => void): void {
  const root = Deno.makeTempDirSync();
  try {
    for (const directory of directories) {
      Deno.mkdirSync(`${root}/${directory}`, { recursive: true });
    }
    look(root);
  } finally {
    Deno.removeSync(root, { recursive: true });
  }
}

const TREES = {
  "the cgroupfs driver": {
    kubepods: "kubepods",
    pods: [`kubepods/pod${UID}/c1`, "kubepods/burstable/pod2/c1", "kubepods/besteffort/pod3"],
  },
  "the systemd driver": {
    kubepods: "kubepods.slice",
    pods: [
      `kubepods.slice/kubepods-pod${SLICE_UID}.slice/cri-containerd-c1.scope`,
      "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2.slice",
    ],
  },
  "kind in Docker": {
    kubepods: "system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice",
    pods: [
      "system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/" +
      `kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${SLICE_UID}.slice`,
    ],
  },
};

for (const [name, { kubepods, pods }] of Object.entries(TREES)) {
  Deno.test(`pods' cgroups, and the one above them all, with ${name}`, () =>
    withTree([...pods, "system.slice/other", "user.slice"], (root) => {
      deepStrictEqual(findKubepods(root), [`${root}/${kubepods}`]);
      const found = findPodCgroups(root);
      strictEqual(found.size, pods.length);
      for (const cgroup of found.values()) {
        strictEqual(cgroup.startsWith(`${root}/${kubepods}/`), true, cgroup);
      }
    }));
}

Deno.test("a cluster inside a pod is that pod's own affair", () =>
  withTree([`kubepods/pod${UID}/kubelet/kubepods/pod2`], (root) => {
    deepStrictEqual(findKubepods(root), [`${root}/kubepods`]);
    deepStrictEqual([...findPodCgroups(root).keys()], [UID]);
  }));

Deno.test("a pod's UID in its cgroup's name", () => {
  strictEqual(podUidOf(`pod${UID}`), UID);
  strictEqual(podUidOf(`kubepods-burstable-pod${SLICE_UID}.slice`), UID);
  strictEqual(podUidOf(`kubelet-kubepods-pod${SLICE_UID}.slice`), UID);
  for (const other of ["kubepods", "kubepods.slice", "kubepods-burstable.slice", "pod", "c1"]) {
    strictEqual(podUidOf(other), undefined, other);
  }
});
