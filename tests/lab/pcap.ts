/** One TCP segment as captured. */
export interface TcpPacket {
  /** Milliseconds since 1970. */
  time: number;
  sourceAddress: string;
  destinationAddress: string;
  sourcePort: number;
  destinationPort: number;
  sequence: number;
  syn: boolean;
  ack: boolean;
  fin: boolean;
  rst: boolean;
  payload: Uint8Array;
}

/**
 * Reads a pcap stream as tcpdump writes it on an Ethernet link (microseconds, little-endian), piece
 * by piece. Packets that are not TCP over IPv4 or IPv6 are skipped. Payloads are views of the
 * pieces.
 */
export class PcapReader {
  #rest = new Uint8Array(0);
  #started = false;

  push(chunk: Uint8Array): TcpPacket[] {
    const data = join([this.#rest, chunk]);
    const view = new DataView(data.buffer);
    const packets: TcpPacket[] = [];
    let at = 0;
    if (!this.#started) {
      if (data.length < FILE_HEADER) {
        this.#rest = data;
        return packets;
      }
      checkFileHeader(view);
      this.#started = true;
      at = FILE_HEADER;
    }
    while (at + RECORD_HEADER <= data.length) {
      const captured = view.getUint32(at + 8, true);
      const end = at + RECORD_HEADER + captured;
      if (end > data.length) break;
      const time = view.getUint32(at, true) * 1000 + view.getUint32(at + 4, true) / 1000;
      const packet = decodeEthernet(data.subarray(at + RECORD_HEADER, end), time);
      if (packet) packets.push(packet);
      at = end;
    }
    this.#rest = data.slice(at);
    return packets;
  }
}

/** Appends byte arrays to one. */
export function join(parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const LINKTYPE_ETHERNET = 1;
const TCP = 6;

function checkFileHeader(view: DataView): void {
  const magic = view.getUint32(0, true);
  const link = view.getUint32(20, true) & 0xffff;
  if (magic !== MAGIC_MICROSECONDS || link !== LINKTYPE_ETHERNET) {
    throw new Error(`Cannot read the capture: magic ${magic.toString(16)}, link type ${link}`);
  }
}

function decodeEthernet(frame: Uint8Array, time: number): TcpPacket | undefined {
  if (frame.length < 34) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  switch (view.getUint16(12)) {
    case 0x0800: {
      const header = (view.getUint8(14) & 0x0f) * 4;
      const end = 14 + view.getUint16(16); // Short frames are padded: the IP length counts.
      const isLaterFragment = (view.getUint16(20) & 0x1fff) !== 0;
      if (view.getUint8(23) !== TCP || isLaterFragment) return undefined;
      const source = frame.subarray(26, 30).join(".");
      const destination = frame.subarray(30, 34).join(".");
      return decodeTcp(view, 14 + header, end, time, source, destination);
    }
    case 0x86dd: {
      if (frame.length < 54) return undefined;
      const end = 54 + view.getUint16(18);
      let next = view.getUint8(20);
      let at = 54;
      // Hop-by-hop, routing and destination options: next header, then the length in 8 bytes less
      // 1.
      while ((next === 0 || next === 43 || next === 60) && at + 8 <= frame.length) {
        next = view.getUint8(at);
        at += 8 + view.getUint8(at + 1) * 8;
      }
      if (next !== TCP) return undefined;
      return decodeTcp(view, at, end, time, ipv6Text(view, 22), ipv6Text(view, 38));
    }
  }
}

function decodeTcp(
  view: DataView,
  at: number,
  end: number,
  time: number,
  sourceAddress: string,
  destinationAddress: string,
): TcpPacket | undefined {
  if (at + 20 > view.byteLength) return undefined;
  const flags = view.getUint8(at + 13);
  const start = at + (view.getUint8(at + 12) >> 4) * 4;
  const stop = Math.min(end, view.byteLength);
  return {
    time,
    sourceAddress,
    destinationAddress,
    sourcePort: view.getUint16(at),
    destinationPort: view.getUint16(at + 2),
    sequence: view.getUint32(at + 4),
    fin: (flags & 1) !== 0,
    syn: (flags & 2) !== 0,
    rst: (flags & 4) !== 0,
    ack: (flags & 16) !== 0,
    payload: new Uint8Array(view.buffer, view.byteOffset + start, Math.max(0, stop - start)),
  };
}

/** The text that the kernel prints for an address (RFC 5952): the longest run of zeros is "::". */
function ipv6Text(view: DataView, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(at + i * 2).toString(16));
  const runs = groups.join(":").match(/\b0(?::0)+\b/g) ?? [];
  const longest = runs.reduce((best, run) => run.length > best.length ? run : best, "");
  if (longest === "") return groups.join(":");
  const text = `:${groups.join(":")}:`.replace(`:${longest}:`, "::");
  return text.replace(/^:(?!:)/, "").replace(/(?<!:):$/, "");
}
