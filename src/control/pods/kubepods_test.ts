import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { findKubepods, findPodCgroups, isPodCgroup, podUidOf } from "./kubepods.ts";

/** The trees of these tests belong to whoever runs them. */
const OWNER = Deno.uid() ?? 0;

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
      const found = findKubepods(root, OWNER);
      deepStrictEqual(found.tops, [`${root}/${kubepods}`]);
      const cgroups = [...findPodCgroups(found, OWNER).values()].flat();
      strictEqual(cgroups.length, pods.length);
      for (const cgroup of cgroups) strictEqual(isPodCgroup(cgroup, found, OWNER), true, cgroup);
    }));
}

Deno.test("what is another user's, or may be written by others, is nobody's pod", () =>
  withTree([`kubepods/pod${UID}`, "kubepods/burstable/pod2", "kubepods/pod3"], (root) => {
    deepStrictEqual(findKubepods(root, OWNER + 1).tops, []);
    const kubepods = findKubepods(root, OWNER);
    deepStrictEqual(findPodCgroups(kubepods, OWNER + 1).size, 0);
    strictEqual(isPodCgroup(`${root}/kubepods/pod${UID}`, kubepods, OWNER + 1), false);
    Deno.chmodSync(`${root}/kubepods/burstable`, 0o777);
    Deno.chmodSync(`${root}/kubepods/pod3`, 0o775);
    const found = findPodCgroups(findKubepods(root, OWNER), OWNER);
    deepStrictEqual([...found.keys()], [UID]);
  }));

Deno.test("a pod's name elsewhere than where kubelet puts pods is nobody's pod", () => {
  const pods = [
    `user.slice/kubepods-pod${SLICE_UID}.slice`,
    `user.slice/user-1000.slice/kubepods.slice/kubepods-pod${SLICE_UID}.slice`,
    `kubepods.slice/kubepods-pod1.slice/kubepods-pod${SLICE_UID}.slice`,
    `kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod${SLICE_UID}.slice`,
    `kubepods.slice/pod${UID}`,
    `kubepods/other/pod${UID}`,
  ];
  withTree([...pods, "kubepods.slice/kubepods-pod1.slice"], (root) => {
    const kubepods = findKubepods(root, OWNER);
    deepStrictEqual([...findPodCgroups(kubepods, OWNER).keys()], ["1"]);
    for (const cgroup of pods) {
      strictEqual(isPodCgroup(`${root}/${cgroup}`, kubepods, OWNER), false, cgroup);
    }
  });
});

Deno.test("two cgroups of one pod's name are both found", () =>
  withTree([`kubepods/pod${UID}`, `kubepods/burstable/pod${UID}`], (root) => {
    const found = findPodCgroups(findKubepods(root, OWNER), OWNER);
    deepStrictEqual(found.get(UID), [
      `${root}/kubepods/pod${UID}`,
      `${root}/kubepods/burstable/pod${UID}`,
    ]);
  }));

Deno.test("a cluster inside a pod is that pod's own affair", () =>
  withTree([`kubepods/pod${UID}/kubelet/kubepods/pod2`], (root) => {
    const kubepods = findKubepods(root, OWNER);
    deepStrictEqual(kubepods.tops, [`${root}/kubepods`]);
    deepStrictEqual([...findPodCgroups(kubepods, OWNER).keys()], [UID]);
  }));

Deno.test("a pod's UID in its cgroup's path", () => {
  strictEqual(podUidOf(`/kubepods/pod${UID}`), UID);
  strictEqual(podUidOf(`/kubepods-burstable.slice/kubepods-burstable-pod${SLICE_UID}.slice`), UID);
  strictEqual(podUidOf(`/kubelet-kubepods.slice/kubelet-kubepods-pod${SLICE_UID}.slice`), UID);
  for (
    const other of [
      ...[
        "/kubepods",
        "/x/kubepods.slice",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/pod",
      ],
      ...["/kubepods/c1", `/kubepods.slice/pod${UID}`, `/kubepods/kubepods-pod${SLICE_UID}.slice`],
    ]
  ) {
    strictEqual(podUidOf(other), undefined, other);
  }
});
