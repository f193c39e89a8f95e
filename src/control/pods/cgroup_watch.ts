import { basename } from "node:path";
import { ANNOTATION } from "../../constants.ts";
import { logger } from "../../log.ts";
import { podUidOf } from "./cgroup.ts";
import type { ClusterObjects } from "../../cluster/cluster.ts";
import { CONFIG_HASH_ANNOTATION, type Pod } from "../../cluster/objects.ts";

const log = logger("births");

/**
 * Reports each pod's cgroup when it is made, before anything runs in it: kubelet makes it before the pod's
 * sandbox, and cgroupfs reports a mkdir through inotify within a millisecond.
 */
export function watchBirths(
  cgroupRoot: string,
  born: (uid: string, cgroup: string) => void,
): { close(): void } {
  const watcher = Deno.watchFs(cgroupRoot, { recursive: true });
  const follow = async () => {
    for await (const { kind, paths } of watcher) {
      if (kind !== "create") continue;
      for (const path of paths) {
        const uid = podUidOf(basename(path));
        if (uid !== undefined) born(uid, path);
      }
    }
  };
  follow().catch((error) =>
    log.error("following {cgroupRoot} failed, new pods are found by looking: {error}", {
      cgroupRoot,
      error: String(error),
    })
  );
  return watcher;
}

/**
 * The UIDs by which cgroups of this node's pods may be named, as far as it is known of them whether they are
 * annotated: by themselves, or by their namespace.
 */
export function knownUids(objects: ClusterObjects, nodeName: string): Set<string> {
  const { namespaces, hasNamespaces } = objects;
  const isKnown = (pod: Pod) =>
    pod.nodeName === nodeName &&
    (!hasNamespaces || pod.annotations[ANNOTATION] !== undefined || namespaces.has(pod.namespace));
  return new Set(
    objects.pods.filter(isKnown).flatMap((pod) => {
      const hash = pod.annotations[CONFIG_HASH_ANNOTATION];
      return hash === undefined ? [pod.uid] : [pod.uid, hash];
    }),
  );
}
