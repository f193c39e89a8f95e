import { Lab } from "./lab.ts";
import type { PodOptions } from "./pod.ts";

/** An application and its server, enrolled, on a node each: what most tests start from. */
export const WEB_AND_API: readonly PodOptions[] = [
  { name: "web", node: "node-a", annotation: "true" },
  { name: "api", node: "node-b", annotation: "true" },
];

/** A lab with an agent on each node, ready when every pod that is annotated "true" is enrolled. */
export async function openScene(pods: readonly PodOptions[] = WEB_AND_API): Promise<Lab> {
  const lab = await Lab.open();
  try {
    const added = await lab.addPods([...pods]);
    await Promise.all(lab.nodes.map(({ name }) => lab.startAgent(name)));
    const annotated = added.filter(({ annotation }) => annotation === "true");
    await Promise.all(annotated.map((pod) => lab.waitEnrolled(pod)));
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}
