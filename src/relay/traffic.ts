import type { Traffic } from "./messages.ts";

export const NO_TRAFFIC: Traffic = {
  streamsOpen: 0,
  streams: 0,
  plainStreams: 0,
  retries: 0,
  tunnelsOpen: 0,
  handshakes: 0,
  groups: {},
  bytesSent: 0,
  bytesReceived: 0,
  refused: {},
};

export function sumOf(a: Traffic, b: Traffic): Traffic {
  return {
    streamsOpen: a.streamsOpen + b.streamsOpen,
    streams: a.streams + b.streams,
    plainStreams: a.plainStreams + b.plainStreams,
    retries: a.retries + b.retries,
    tunnelsOpen: a.tunnelsOpen + b.tunnelsOpen,
    handshakes: a.handshakes + b.handshakes,
    groups: sumOfCounts(a.groups, b.groups),
    bytesSent: a.bytesSent + b.bytesSent,
    bytesReceived: a.bytesReceived + b.bytesReceived,
    refused: sumOfCounts(a.refused, b.refused),
  };
}

function sumOfCounts(
  a: Readonly<Record<string, number>>,
  b: Readonly<Record<string, number>>,
): Record<string, number> {
  const sum: Record<string, number> = { ...a };
  for (const [key, count] of Object.entries(b)) sum[key] = (sum[key] ?? 0) + count;
  return sum;
}
