/**
 * Whether a pod's processes are the node's own, whose connect() its programs see, or those of a
 * kernel of the pod's.
 */

/**
 * `shared`: the container runtime shares the node's kernel. `guest`: it does not, and what leaves
 * the pod are packets that no program of ours could send elsewhere. `unknown`: a class that nobody
 * here knows.
 */
export type KernelOfPod = "shared" | "guest" | "unknown";

/**
 * Whose kernel a pod's processes run on, by its RuntimeClass' handler (node.k8s.io/v1), the name by
 * which the container runtime knows it.
 *
 * @param runtimeClass the pod's `spec.runtimeClassName`; undefined: the node's usual runtime.
 * @param handlers of every RuntimeClass, by its name.
 * @param guests handlers, or beginnings that end with `*`, that are known to have a guest kernel
 * beside the usual ones.
 */
export function kernelOf(
  runtimeClass: string | undefined,
  handlers: ReadonlyMap<string, string>,
  guests: readonly string[],
): KernelOfPod {
  if (runtimeClass === undefined) return "shared";
  const handler = handlers.get(runtimeClass);
  if (handler === undefined) return "unknown";
  const isOne = (patterns: readonly string[]) =>
    patterns.some((pattern) =>
      pattern.endsWith("*") ? handler.startsWith(pattern.slice(0, -1)) : handler === pattern
    );
  if (isOne([...GUESTS, ...guests])) return "guest";
  return isOne(SHARED) ? "shared" : "unknown";
}

/** gVisor's and Kata Containers' handlers. */
const GUESTS = ["runsc*", "kata*"];

const SHARED = ["runc", "crun", "youki", "nvidia*"];
