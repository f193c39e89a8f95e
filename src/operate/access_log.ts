import { logger } from "../log.ts";
import type { StreamReport } from "../relay/messages.ts";

const log = logger("access");

/** One line for each stream that has ended. `podAt`: the peer's `namespace/name`, as the registry has it. */
export function logStreams(
  streams: readonly StreamReport[],
  left: number,
  podAt: (address: string | undefined) => string | undefined,
): void {
  for (const { state: _state, milliseconds, tls, failure, ...stream } of streams) {
    const fields = {
      ...stream,
      peerPod: podAt(stream.peer),
      milliseconds: Math.round(milliseconds * 10) / 10,
      tls: tls === undefined ? "none" : `${tls.version} ${tls.cipher} ${tls.group}`,
      ended: failure ?? "by both sides",
    };
    log[failure === undefined ? "info" : "warn"](
      failure === undefined
        ? "{direction} {client} to {dialled}"
        : "{direction} {client} to {dialled} failed: {ended}",
      fields,
    );
  }
  if (left > 0) log.warn("{left} more streams have ended", { left });
}
