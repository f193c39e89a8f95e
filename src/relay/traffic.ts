import type { Traffic } from "./messages.ts";

export const NO_TRAFFIC: Traffic = {
  streamsOpen: 0,
  streams: 0,
  plainStreams: 0,
  retries: 0,
  tunnelsOpen: 0,
  handshakes: 0,
  bytesSent: 0,
  bytesReceived: 0,
  refused: {},
};

export function sumOf(a: Traffic, b: Traffic): Traffic {
  const refused: Record<string, number> = { ...a.refused };
  for (const [reason, count] of Object.entries(b.refused)) {
    refused[reason] = (refused[reason] ?? 0) + count;
  }
  return {
    streamsOpen: a.streamsOpen + b.streamsOpen,
    streams: a.streams + b.streams,
    plainStreams: a.plainStreams + b.plainStreams,
    retries: a.retries + b.retries,
    tunnelsOpen: a.tunnelsOpen + b.tunnelsOpen,
    handshakes: a.handshakes + b.handshakes,
    bytesSent: a.bytesSent + b.bytesSent,
    bytesReceived: a.bytesReceived + b.bytesReceived,
    refused,
  };
}
