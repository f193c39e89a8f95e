/**
 * For tests of the outbound side: a pod, and a peer's relay that does what the test says. No root
 * is needed.
 */
import { strictEqual } from "node:assert/strict";
import type { Application } from "./applications_for_tests.ts";
import { type Facing, RelayBench } from "./relay_for_tests.ts";
import type { RelayPod } from "../relay/stream/pod.ts";

export interface Scene extends Facing {
  readonly bench: RelayBench;
  /** Connects to the server, at 8080. */
  connect(): Application;
  /** The same, up to the accepted stream. */
  stream(): Promise<Application>;
  /** As far as OPEN on the last tunnel. */
  opened(tunnels?: number): Promise<void>;
}

export function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const facing = await bench.facing();
    const { pod, server } = facing;
    const connect = () => bench.connect(pod, server.at(8080));
    const opened = (tunnels = 1) =>
      bench.until(() => server.tunnels.length === tunnels && server.tunnel.last === "open 8080");
    const stream = async () => {
      const app = connect();
      await opened();
      server.tunnel.send("ACCEPT");
      await bench.until(() => pod.pool !== undefined && stateOf(pod) === "streaming");
      return app;
    };
    await play({ bench, ...facing, connect, stream, opened });
    strictEqual(pod.counters.streamsOpen, pod.connections.size, "what is open is counted");
  });
}

export function stateOf(pod: RelayPod): string {
  return [...pod.connections].map((connection) => connection.describe()?.state).join();
}

/** Ends a stream by both sides. */
export async function finish({ bench, server, pod }: Scene, app: Application): Promise<void> {
  app.finish();
  await bench.until(() => server.tunnel.last === "end");
  server.tunnel.send("END");
  await bench.until(() => app.end === "fin" && pod.counters.streamsOpen === 0);
}
