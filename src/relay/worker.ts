/// <reference lib="deno.worker" />
/**
 * A relay worker: one thread with its own epoll loop. It blocks in the kernel; the main thread
 * posts a command and rings the bell, and the worker then gives its event loop a turn to receive
 * it.
 */
import { Bell } from "../native/epoll.ts";
import { AlpnProtocol } from "../native/tls_context.ts";
import { TlsEngine } from "../native/tls_session.ts";
import { EventLoop } from "./loop/event_loop.ts";
import { Load } from "./loop/load.ts";
import { openMaps, WorkerContext } from "./loop/worker_context.ts";
import type { WorkerCommand, WorkerEvent } from "./messages.ts";
import { Relay } from "./relay.ts";
import { ALPN } from "./tunnel/frame.ts";

/** Commands that arrived before the loop could take them. */
const commands: WorkerCommand[] = [];
let received = 0;
self.onmessage = (message: MessageEvent<WorkerCommand>) => {
  received++;
  if (message.data.type === "start") start(message.data);
  else commands.push(message.data);
};

function start(command: WorkerCommand & { type: "start" }): void {
  let rung = 1; // for this command
  const context = new WorkerContext(
    command.context,
    openMaps(command.context.maps),
    new EventLoop(new Bell(command.bell), async (rings) => {
      rung += rings;
      while (received < rung) await new Promise((resolve) => setTimeout(resolve, 0));
      for (const next of commands.splice(0)) relay.tryToObey(next);
    }),
    new TlsEngine(new AlpnProtocol(ALPN)),
    new Load(command.load, command.worker),
    (event: WorkerEvent) => self.postMessage(event),
  );
  const relay = new Relay(context);
  context.loop.run();
}
