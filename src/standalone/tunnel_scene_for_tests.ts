/** For tests: two relays, one of which dials the other, and tunnels between them. */
import { RelayBench, type Script, type ScriptedServer } from "./relay_for_tests.ts";
import type { WorkerContext } from "../relay/loop/worker_context.ts";
import type { RelayPod } from "../relay/stream/pod.ts";

export interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  /** The server's. */
  readonly far: WorkerContext;
  readonly server: ScriptedServer;
  /** Both ends of a tunnel whose handshake is done, of which the server sends nothing more by itself. */
  pair(): Promise<{ client: Script; far: Script }>;
}

export function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const pod = await bench.pod(bench.worker(), "client");
    const far = bench.worker();
    const server = await bench.script(far);
    const pair = async () => {
      const client = bench.dial(pod, server.address);
      const count = server.tunnels.length;
      await bench.until(() =>
        client.last === "secured" && server.tunnels.length > count &&
        server.tunnel.last === "secured"
      );
      return { client, far: server.tunnel };
    };
    await play({ bench, pod, far, server, pair });
  });
}
