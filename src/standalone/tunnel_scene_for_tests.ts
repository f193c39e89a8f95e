/** For tests: two relays, one of which dials the other, and tunnels between them. */
import { type Facing, RelayBench } from "./relay_for_tests.ts";
import type { Script } from "./scripted_relay_for_tests.ts";

export interface Scene extends Facing {
  readonly bench: RelayBench;
  /**
   * Both ends of a tunnel whose handshake is done, of which the server sends nothing more by
   * itself.
   */
  pair(): Promise<{ client: Script; far: Script }>;
}

export function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const facing = await bench.facing();
    const { pod, server } = facing;
    const pair = async () => {
      const client = bench.dial(pod, server.address);
      const count = server.tunnels.length;
      await bench.until(() =>
        client.last === "secured" && server.tunnels.length > count &&
        server.tunnel.last === "secured"
      );
      return { client, far: server.tunnel };
    };
    await play({ bench, ...facing, pair });
  });
}
