/**
 * For tests of the inbound side: a pod that is served, and a client that does what the test says.
 * No root is needed.
 */
import { endpoint, type ListeningApplication } from "./applications_for_tests.ts";
import { addressOf, RelayBench } from "./relay_for_tests.ts";
import type { Script } from "./scripted_relay_for_tests.ts";
import type { RelayPod } from "../relay/stream/pod.ts";

export const CLIENT_PORT = 40_000;

export interface Scene {
  readonly bench: RelayBench;
  readonly pod: RelayPod;
  readonly client: RelayPod;
  /** Listens at 8080 of the pod. */
  readonly application: ListeningApplication;
  /** A tunnel whose handshake is done. */
  tunnel(): Promise<Script>;
  open(script: Script, port?: number, from?: string): void;
  /** A tunnel with an accepted stream. */
  stream(): Promise<Script>;
}

export function scene(name: string, play: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    using bench = new RelayBench();
    const pod = await bench.pod(bench.worker(), "web");
    const client = await bench.pod(bench.worker(), "client");
    bench.setPeer(addressOf(client), "client");
    bench.serve(pod);
    const application = bench.application(endpoint(addressOf(pod), 8080));
    const tunnel = async () => {
      const script = bench.dial(client, addressOf(pod));
      await bench.until(() => script.last === "secured");
      return script;
    };
    const open = (script: Script, port = 8080, from = addressOf(client)) =>
      script.tunnel.sendOpen({
        port,
        client: endpoint(from, CLIENT_PORT),
        dialled: endpoint(addressOf(pod), port),
      });
    const stream = async () => {
      const script = await tunnel();
      open(script);
      await bench.until(() => script.last === "accept" && application.accept() !== undefined);
      return script;
    };
    await play({ bench, pod, client, application, tunnel, open, stream });
  });
}
