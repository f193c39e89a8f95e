import { Lab } from "../../lab/lab.ts";
import { delay } from "../../lab/delay.ts";
import { echoClient, wrk } from "../applications.ts";
import type { Contender } from "../contenders/contender.ts";
import { agentKnows } from "../contenders/gateway.ts";
import { openGatewayIn } from "../contenders/open.ts";
import type { Measure, Stage } from "../model.ts";
import { reasonOf } from "../run.ts";

export const KEEP_ALIVE: Measure = {
  figures: [{
    key: "rate",
    name: "requests/s, 64 keep-alive connections",
    unit: "/s",
    better: "more",
  }],
  run: async (contender, seconds) => ({ rate: await wrk(contender, seconds, 64) }),
};

/** The gateway takes a tunnel that it has; proxies hand-shake, or resume a session. */
export const NEW_CONNECTIONS: Measure = {
  figures: [{
    key: "rate",
    name: "new connections/s, tunnels reused",
    unit: "/s",
    better: "more",
  }],
  run: async (contender, seconds) => ({
    rate: await wrk(contender, seconds, 16, "Connection: close"),
  }),
};

/** A full handshake for every connection, whoever makes it. */
export const NEW_CONNECTIONS_NOTHING_REUSED: Measure = {
  figures: [{
    key: "rate",
    name: "new connections/s, nothing reused",
    unit: "/s",
    better: "more",
  }],
  absent: ({ name }) => name === "haproxy-resumed" ? "–" : undefined,
  open: openWithoutReuse,
  run: NEW_CONNECTIONS.run,
};

/** The agents' option for how long a tunnel waits for its next connection: 0 is not at all. */
const TUNNEL_IDLE = "tunnel-idle";

/** The usual contenders, but the gateway in a lab of its own with agents that reuse nothing. */
async function openWithoutReuse(usual: readonly Contender[]): Promise<Stage> {
  const others = usual.filter(({ name }) => name !== "gateway");
  let lab: Lab | undefined;
  const stage = (contenders: readonly Contender[], note?: string): Stage => ({
    contenders,
    notes: new Map(note === undefined ? [] : [["gateway", note]]),
    [Symbol.asyncDispose]: async () => await lab?.close(),
  });
  if (others.length === usual.length) return stage(usual);
  try {
    lab = await Lab.open();
    if (!await agentKnows(lab, TUNNEL_IDLE)) {
      return stage(others, `skipped: agents have no --${TUNNEL_IDLE}`);
    }
    const gateway = await openGatewayIn(lab, [`--${TUNNEL_IDLE}`, "0"]);
    return stage(usual.map((each) => each.name === "gateway" ? gateway : each));
  } catch (error) {
    return stage(others, `failed: ${reasonOf(error)}`);
  }
}

const AT_ONCE = 1_000;

export const SIMULTANEOUS: Measure = {
  figures: [{
    key: "seconds",
    name: "1,000 connections at once, the last echo after",
    unit: "s",
    better: "less",
  }],
  async run(contender, seconds) {
    const report = await echoClient(contender, "connects", seconds, "--count", `${AT_ONCE}`);
    await delay(300); // the connections end on all sides
    return report;
  },
};
