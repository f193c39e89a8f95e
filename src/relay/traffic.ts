/** Counters and, ending in Open, what there is now. */
export interface Traffic {
  readonly streamsOpen: number;
  readonly streams: number;
  /** Of these, those in clear to Services' endpoints that are not enrolled. */
  readonly plainStreams: number;
  /** How often another endpoint of a Service was tried. */
  readonly retries: number;
  readonly tunnelsOpen: number;
  readonly handshakes: number;
  /** Handshakes by key exchange group. */
  readonly groups: Readonly<Record<string, number>>;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly refused: Readonly<Record<string, number>>;
  /** Streams that a policy would have refused, if it were no dry run. */
  readonly wouldRefuse: number;
}

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
  wouldRefuse: 0,
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
    wouldRefuse: a.wouldRefuse + b.wouldRefuse,
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
