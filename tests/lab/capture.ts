import { Buffer } from "node:buffer";
import { delay } from "./delay.ts";
import { join, PcapReader, type TcpPacket } from "./pcap.ts";
import type { Place } from "./place.ts";
import type { LabProcess } from "./process.ts";

export interface CaptureOptions {
  /** A pcap filter, in tcpdump's language; "tcp" when not given. */
  filter?: string;
  /**
   * How much of each packet is kept; when not given, all of it, for which the ring takes 64 MiB.
   */
  snapLength?: number;
}

export interface CaptureResult {
  /** The pcap file; it goes with the lab. */
  file: string;
  packets: TcpPacket[];
  /** The destination port of every packet; of answers that is the client's own port. */
  tcpDestinationPorts: Set<number>;
  /** The ports to which connections were opened (SYN without ACK) during the capture. */
  openedPorts: Set<number>;
  /** Whether something was captured, and every packet of it was to or from this port. */
  isOnlyPort(port: number): boolean;
  /** Packets that passed the filter but are not in the file; a proof needs 0. */
  dropped: number;
  /**
   * How often the bytes occur in clear: within a packet, or across the packets of one direction of
   * one connection in the order of their sequence numbers. Text is sought as UTF-8.
   */
  contains(sought: string | Uint8Array): number;
}

/** A running tcpdump on one link that writes a file. */
export class Capture implements AsyncDisposable {
  /** Resolves when tcpdump is listening: every later packet is captured. */
  static async start(
    tcpdumpPlace: Place,
    link: string,
    file: string,
    options: CaptureOptions = {},
  ): Promise<Capture> {
    const tcpdump = startTcpdump(tcpdumpPlace, link, file, options);
    await tcpdump.stderr.wait((line) => line.includes("listening on"), 10_000);
    return new Capture(tcpdump, file);
  }

  private constructor(private readonly tcpdump: LabProcess, readonly file: string) {}

  /** Ends the capture once everything seen so far is in the file, and reads it. */
  async stop(): Promise<CaptureResult> {
    const { captured, received, dropped } = await this.#settle();
    await this.tcpdump.stop("SIGINT");
    const packets: TcpPacket[] = [];
    const reader = new PcapReader();
    using file = await Deno.open(this.file);
    const piece = new Uint8Array(1 << 20);
    for (let count; (count = await file.read(piece)) !== null;) {
      packets.push(...reader.push(piece.subarray(0, count)));
    }
    return {
      file: this.file,
      packets,
      tcpDestinationPorts: new Set(packets.map(({ destinationPort }) => destinationPort)),
      openedPorts: new Set(
        packets.filter(({ syn, ack }) => syn && !ack).map(({ destinationPort }) => destinationPort),
      ),
      isOnlyPort: (port) =>
        packets.length > 0 &&
        packets.every((packet) => packet.sourcePort === port || packet.destinationPort === port),
      dropped: Math.max(dropped, received - captured),
      contains: (sought) => count(packets, sought),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tcpdump.stop("SIGKILL");
  }

  // A signal makes tcpdump leave what is still in its ring, uncounted. So first ask it, by SIGUSR1,
  // until it has written as many packets as had passed the filter when it was asked first.
  async #settle(): Promise<Statistics> {
    const deadline = Date.now() + 30_000;
    const { received } = await this.#ask();
    for (;;) {
      const { captured, dropped } = await this.#ask();
      // The kernel counts what it dropped as received, too.
      if (captured + dropped >= received || Date.now() > deadline) {
        return { captured, received, dropped };
      }
      await delay(20);
    }
  }

  async #ask(): Promise<Statistics> {
    const from = this.tcpdump.stderr.all.length;
    this.tcpdump.kill("SIGUSR1");
    const line = await this.tcpdump.stderr.wait((text) => STATISTICS.test(text), 30_000, from);
    const [captured = 0, received = 0, dropped = 0] = line.match(STATISTICS)!.slice(1).map(Number);
    return { captured, received, dropped };
  }
}

/** Calls `onPacket` for each TCP packet on a link as it passes, until disposed. */
export async function watchLink(
  tcpdumpPlace: Place,
  link: string,
  onPacket: (packet: TcpPacket) => void,
  options: CaptureOptions = {},
): Promise<LabProcess> {
  const reader = new PcapReader();
  const onBytes = (chunk: Uint8Array) => reader.push(chunk).forEach(onPacket);
  const tcpdump = startTcpdump(tcpdumpPlace, link, "-", options, onBytes);
  await tcpdump.stderr.wait((line) => line.includes("listening on"), 10_000);
  return tcpdump;
}

interface Statistics {
  captured: number;
  received: number;
  dropped: number;
}

const STATISTICS =
  /(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped/;

function startTcpdump(
  place: Place,
  link: string,
  file: string,
  { filter = "tcp", snapLength = WHOLE_PACKET }: CaptureOptions,
  onBytes?: (chunk: Uint8Array) => void,
): LabProcess {
  // -Z root: as its own user tcpdump could not write the file. Every slot of the ring has the
  // length that is kept. A ring beyond 64 MiB takes a second to make.
  const ring = snapLength === WHOLE_PACKET ? 65_536 : 8_192;
  const flags = ["-Z", "root", "-n", "-U", "--immediate-mode", "-B", `${ring}`];
  const kept = ["-s", `${snapLength}`];
  return place.spawn(["tcpdump", "-i", link, ...flags, ...kept, "-w", file, filter], { onBytes });
}

/** A segment of 64 KiB. */
const WHOLE_PACKET = 65_700;

function count(packets: TcpPacket[], sought: string | Uint8Array): number {
  const bytes = Buffer.from(sought);
  if (bytes.length === 0) throw new Error("Cannot search a capture for nothing");
  const withinPackets = packets.reduce((sum, { payload }) => sum + occurrences(payload, bytes), 0);
  const acrossPackets = streams(packets).reduce((sum, all) => sum + occurrences(all, bytes), 0);
  return Math.max(withinPackets, acrossPackets);
}

function occurrences(bytes: Uint8Array, sought: Buffer): number {
  const haystack = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let found = 0;
  for (let at = haystack.indexOf(sought); at >= 0; at = haystack.indexOf(sought, at + 1)) found++;
  return found;
}

/** The bytes of each direction of each connection, in order, without what was sent twice. */
function streams(packets: TcpPacket[]): Uint8Array[] {
  const open = new Map<string, TcpPacket[]>();
  const all: TcpPacket[][] = [];
  for (const packet of packets) {
    const { sourceAddress, sourcePort, destinationAddress, destinationPort } = packet;
    const key = `${sourceAddress} ${sourcePort} ${destinationAddress} ${destinationPort}`;
    let stream = open.get(key);
    if (!stream || packet.syn) { // A port used again starts a stream of its own.
      stream = [];
      open.set(key, stream);
      all.push(stream);
    }
    if (packet.payload.length > 0) stream.push(packet);
  }
  return all.map(assemble);
}

function assemble(packets: TcpPacket[]): Uint8Array {
  let last = packets[0]?.sequence ?? 0;
  let position = 0;
  const placed = packets.map(({ sequence, payload }) => {
    position += (sequence - last) | 0; // Sequence numbers wrap at 2^32; neighbours are close.
    last = sequence;
    return { position, payload };
  });
  placed.sort((a, b) => a.position - b.position);
  const parts: Uint8Array[] = [];
  let end = -Infinity;
  for (const { position, payload } of placed) {
    const known = Math.max(0, end - position);
    if (known >= payload.length) continue;
    parts.push(payload.subarray(known));
    end = position + payload.length;
  }
  return join(parts);
}
