/** What an agent would publish, written by the test. */
import { slicesOf } from "../../src/cluster/registry.ts";
import type { Lab } from "./lab.ts";
import type { Pod } from "./pod.ts";

/**
 * Names a pod in the registry's part of its node, as if that node's agent had enrolled it, beside
 * what the agent says itself. Resolves when the file is there; {@link unregister} takes it away.
 */
export async function register(lab: Lab, pod: Pod, identity: string): Promise<void> {
  const { uid, name, namespace, addresses } = pod;
  const node = pod.node.name;
  const entry = { uid, name, namespace, identity, node, addresses, ready: true };
  const items = slicesOf(node, [entry]).map((slice, index) => {
    const metadata = { ...slice.metadata, name: `registry-${node}-ipv4-${900 + index}-${name}` };
    return { ...slice, metadata };
  });
  await lab.write(fileOf(pod), JSON.stringify({ apiVersion: "v1", kind: "List", items }));
}

export async function unregister(lab: Lab, pod: Pod): Promise<void> {
  await lab.remove(fileOf(pod));
}

function fileOf({ name }: Pod): string {
  return `registry/by-the-test-${name}.json`;
}
