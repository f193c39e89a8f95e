import { delay } from "../../lab/delay.ts";
import { Lab } from "../../lab/lab.ts";
import { holdConnections } from "../applications.ts";
import type { Measure } from "../model.ts";
import { cpuOf, residentKilobytes } from "../usage.ts";

const [FEW, MANY] = [1_000, 2_500];

/** What one idle connection more costs, from 1,000 to 2,500, in processes that have just begun. */
export const IDLE_CONNECTIONS: Measure = {
  figures: [{
    key: "each",
    name: "memory per idle connection, both proxies",
    unit: "kB",
    better: "less",
  }],
  passes: 1,
  mostRounds: 3,
  absent: ({ cgroups }) => cgroups.length === 0 ? "–" : undefined,
  async run(contender) {
    await contender.restart();
    await using client = holdConnections(contender, [FEW, MANY]);
    const resident = async (connections: number) => {
      await client.waitForEvent(({ held }) => held === connections, 60_000);
      await delay(500); // what the handshakes needed is given back
      return residentKilobytes(contender.cgroups);
    };
    const few = await resident(FEW);
    await client.write("\n");
    const many = await resident(MANY);
    return { few, many, each: (many - few) / (MANY - FEW) };
  },
};

const [SOME_PODS, ALL_PODS] = [30, 110];

/** Whole rounds of what is looked at every 5 and every 30 s. */
const IDLE_MILLISECONDS = 60_000;
const SETTLING_MILLISECONDS = 15_000;

/** An agent as in a cluster: with an API server and metrics, on a node of its own. */
export const ENROLLED_PODS: Measure = {
  figures: [
    ...[SOME_PODS, ALL_PODS].map((pods) => ({
      key: `pods${pods}`,
      name: `memory of the agent with ${pods} enrolled pods`,
      unit: "MB",
      better: "less" as const,
    })),
    {
      key: "idle",
      name: `idle CPU of the agent with ${ALL_PODS} enrolled pods`,
      unit: "% of a core",
      better: "less",
    },
  ],
  passes: 1,
  mostRounds: 2,
  absent: ({ name }) => name === "gateway" ? undefined : "–",
  async run() {
    await using lab = await Lab.open({ cluster: "api", nodes: ["node-a"] });
    await lab.startSigner();
    await lab.startAgent("node-a", { args: ["--metrics-address", ":9090"] });
    const megabytesWith = async (pods: number) => {
      const from = lab.pods.length;
      const added = await lab.addPods(
        Array.from({ length: pods - from }, (_, index) => ({
          name: `pod-${from + index}`,
          node: "node-a",
          annotation: "true",
        })),
      );
      for (const pod of added) await lab.waitEnrolled(pod, 60_000);
      await delay(3_000);
      return residentKilobytes([lab.node("node-a").agentCgroup]) / 1000;
    };
    const some = await megabytesWith(SOME_PODS);
    const all = await megabytesWith(ALL_PODS);
    await delay(SETTLING_MILLISECONDS);
    const { cpu } = await cpuOf([lab.node("node-a").agentCgroup], () => delay(IDLE_MILLISECONDS));
    const idle = 100 * cpu.proxies / (IDLE_MILLISECONDS / 1000);
    return { [`pods${SOME_PODS}`]: some, [`pods${ALL_PODS}`]: all, idle };
  },
};
