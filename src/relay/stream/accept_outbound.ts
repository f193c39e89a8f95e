/**
 * The outbound side of a pod, in the order a connection takes:
 *
 *   accept      the redirected connect() arrives on the pod's loopback
 *   flow        the kernel's note says where the application was going
 *   route       to that pod, or to one endpoint after the other of that Service until one takes it
 *   tunnel      one that an earlier stream has left, or a new one (outbound.ts, pool.ts, dial.ts)
 *   OPEN        the stream is asked for, and accepted or refused
 *   stream      bytes go both ways
 */
import { decodeEndpoint, encodeSocketKey } from "../../kernel/maps.ts";
import { type Socket, text } from "../../native/socket.ts";
import { type Endpoint, isLoopback } from "../../native/socket_address.ts";
import type { Expiring } from "../loop/deadlines.ts";
import { Outbound } from "./outbound.ts";
import type { Connection, RelayPod } from "./pod.ts";
import { PeerRoute } from "./route.ts";
import { ServiceRoute } from "./service_route.ts";

/** When a connection of which nobody knows where it goes is looked at again. */
const UNROUTED_MILLISECONDS = 20;

/** Takes a connection that the kernel redirected to the pod's outbound listener. */
export function acceptOutbound(pod: RelayPod, app: Socket, source: Endpoint): void {
  const { worker } = pod;
  const noted = worker.flows.take(encodeSocketKey(pod.description.cookie, source));
  if (noted === undefined) {
    app.reset();
    const message = "closed a connection to the outbound listener that connect() did not redirect";
    return pod.refuse("no_flow", message, { source: text(source) });
  }
  const dialled = decodeEndpoint(noted);
  const fields = { source: text(source), destination: text(dialled) };
  if (!pod.makeRoom("outbound")) {
    app.reset();
    const message = "refused a connection: too many are open (--max-connections)";
    return pod.refuse("too_many_connections", message, fields);
  }
  if (begin(pod, app, source, dialled)) return;
  // Its peer may have gone while it was on its way, and the worker be about to hear of it.
  worker.loop.deadlines.arm(new Unrouted(pod, app, source, dialled), UNROUTED_MILLISECONDS);
}

/** False when it is not known where it goes. */
function begin(pod: RelayPod, app: Socket, source: Endpoint, dialled: Endpoint): boolean {
  const { worker } = pod;
  const peer = worker.peers.findLeaving(dialled.address, worker.now());
  const route = peer === undefined
    ? ServiceRoute.find(pod, dialled)
    : new PeerRoute(worker.peers, dialled, peer);
  const own = pod.ownAddress(dialled.address);
  if (route === undefined || own === undefined) return false;
  // An application that did not bind() has loopback for its address, as that is where it was sent.
  const client = isLoopback(source.address) ? { address: own, port: source.port } : source;
  new Outbound(pod, app, route, peer === undefined, client, dialled).attempt();
  return true;
}

/** A connection of which nobody knows where it goes: asked once more, a moment later. */
class Unrouted implements Connection, Expiring {
  readonly direction = "outbound";

  constructor(
    readonly pod: RelayPod,
    readonly app: Socket,
    readonly source: Endpoint,
    readonly dialled: Endpoint,
  ) {
    pod.opened(this);
  }

  expired(): void {
    const { pod, app, source, dialled } = this;
    pod.closed(this);
    if (begin(pod, app, source, dialled)) return;
    app.reset();
    const fields = { source: text(source), destination: text(dialled) };
    const message = "refused a connection to a pod that is no peer any more";
    pod.refuse("unknown_peer", message, fields);
  }

  abort(): void {
    this.pod.worker.loop.deadlines.disarm(this);
    this.pod.closed(this);
    this.app.reset();
  }

  enforce(): void {}

  review(): boolean {
    return false;
  }

  verifyAgain(): void {}

  describe(): undefined {
    return undefined;
  }
}
