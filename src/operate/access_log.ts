import { logger } from "../log.ts";
import type { StreamReport } from "../relay/messages.ts";

const log = logger("access");

/**
 * One line for each stream that has ended. `podAt`: the peer's `namespace/name`, as the registry
 * has it.
 */
export function logStreams(
  streams: readonly StreamReport[],
  left: ReadonlyMap<string, number>,
  podAt: (address: string | undefined) => string | undefined,
): void {
  for (const { state: _state, milliseconds, tls, failure, ...stream } of streams) {
    log[failure === undefined ? "info" : "warn"](LINE, {
      ...stream,
      peerPod: podAt(stream.peer) ?? "not a peer",
      peerIdentity: stream.peerIdentity ?? "none",
      milliseconds: Math.round(milliseconds * 10) / 10,
      tls: tls === undefined ? "none" : `${tls.version} ${tls.cipher} ${tls.group}`,
      ended: failure ?? "by both sides",
    });
  }
  if (left.size === 0) return;
  log.warn("{left} more streams have ended", {
    left: [...left.values()].reduce((sum, count) => sum + count, 0),
    namespaces: Object.fromEntries(left),
  });
}

/** All of it: text logs have nothing but the message. */
const LINE = "{direction} of {pod} ({identity}): {client} to {dialled} at {destination}, " +
  "{peerPod} ({peerIdentity}), {bytesSent} bytes sent, {bytesReceived} received, " +
  "{milliseconds} ms, TLS {tls}, ended {ended}";
