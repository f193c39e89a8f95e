import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { AccessLog } from "./access_log.ts";
import { Deadlines } from "./deadlines.ts";
import type { ConnectionReport, WorkerEvent } from "../messages.ts";

const STREAM: ConnectionReport = {
  direction: "inbound",
  worker: 0,
  pod: "shop/web",
  identity: "spiffe://td/ns/shop/sa/web",
  state: "streaming",
  client: "10.0.0.1:1",
  destination: "10.0.0.2:1",
  dialled: "10.0.0.2:1",
  milliseconds: 1,
  bytesSent: 0,
  bytesReceived: 0,
};

function open(every = 1) {
  const told: (WorkerEvent & { type: "streams" })[] = [];
  const loop = { deadlines: new Deadlines(() => 0) };
  const access = new AccessLog(loop, every, (event) => {
    if (event.type === "streams") told.push(event);
  });
  const end = (times: number, namespace: string, failure?: string) => {
    for (let time = 0; time < times; time++) {
      access.finished(namespace, failure, () => ({ ...STREAM, pod: `${namespace}/web` }));
    }
  };
  /** How many of each namespace the batch tells, and how many it does not. */
  const batch = () => {
    access.expired();
    const { streams = [], left = new Map() } = told.at(-1) ?? {};
    const counts = Map.groupBy(streams, ({ pod }) => pod.split("/")[0]);
    return [
      Object.fromEntries([...counts].map(([name, each]) => [name, each.length])),
      Object.fromEntries(left),
    ];
  };
  return { end, batch, told };
}

for (
  const [kind, failure, most] of [["clean", undefined, 1_000], ["failed", "reset", 20]] as const
) {
  Deno.test(`a namespace's flood of ${kind} streams keeps no other's from being told, and is counted`, () => {
    const { end, batch } = open();
    end(most * 5, "evil", failure);
    end(3, "shop", failure);
    deepStrictEqual(batch(), [{ evil: most - 3, shop: 3 }, { evil: most * 4 + 3 }]);
    end(1, "evil", failure);
    deepStrictEqual(batch(), [{ evil: 1 }, {}], "another batch");
  });
}

Deno.test("failed streams leave clean ones their room, and one in N of these is told", () => {
  const { end, batch, told } = open(10);
  end(100, "evil", "reset");
  end(20, "evil");
  deepStrictEqual(batch(), [{ evil: 22 }, { evil: 80 }]);
  strictEqual(told[0]?.streams.filter(({ failure }) => failure === "reset").length, 20);
});
