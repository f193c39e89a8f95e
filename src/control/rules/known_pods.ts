import type { ClusterObjects } from "../../cluster/cluster.ts";
import { CONFIG_HASH_ANNOTATION, MIRROR_ANNOTATION, type Pod } from "../../cluster/objects.ts";
import { ANNOTATION } from "../../constants.ts";
import { isPodUid } from "../../names.ts";

/**
 * The UIDs by which cgroups of this node's pods may be named, as far as it is known of them whether
 * they are annotated: by themselves, or by their namespace.
 */
export function knownUids(objects: ClusterObjects, nodeName: string): Set<string> {
  const { namespaces, hasNamespaces } = objects;
  const isKnown = (pod: Pod) =>
    pod.nodeName === nodeName &&
    (!hasNamespaces || pod.annotations[ANNOTATION] !== undefined || namespaces.has(pod.namespace));
  const staticUids = staticUidsOf(objects.pods);
  return new Set(
    objects.pods.filter(isKnown).flatMap((pod) => [pod.uid, staticUids.get(pod.uid) ?? []].flat()),
  );
}

/**
 * By mirror pod's UID: the UID that kubelet derived from the static pod's manifest, which names its
 * cgroup. Only a mirror pod may name one, and only if no other pod has or names the same: both
 * annotations are text that a user could write.
 */
export function staticUidsOf(pods: readonly Pod[]): ReadonlyMap<string, string> {
  const claims = new Map<string, string[]>(pods.map(({ uid }) => [uid, [uid]]));
  for (const { uid, annotations } of pods) {
    const hash = annotations[CONFIG_HASH_ANNOTATION];
    if (hash === undefined || hash === uid || !isPodUid(hash)) continue;
    if (annotations[MIRROR_ANNOTATION] !== hash) continue;
    claims.set(hash, [...claims.get(hash) ?? [], uid]);
  }
  return new Map(
    [...claims].flatMap(([hash, [uid, ...others]]) =>
      uid !== undefined && uid !== hash && others.length === 0 ? [[uid, hash] as const] : []
    ),
  );
}
