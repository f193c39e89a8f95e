import assert from "node:assert/strict";
import type { Capture, CaptureOptions, CaptureResult } from "./capture.ts";
import type { Lab } from "./lab.ts";
import { OUTSIDE } from "./network.ts";
import type { TcpPacket } from "./pcap.ts";
import type { Pod } from "./pod.ts";
import type { LabProcess } from "./process.ts";

/** Where the pods say what every link on the way must have shown. */
const PROOF_PORT = 9998;

/**
 * Enough of each packet for a canary; the API server's conversations are encrypted by themselves.
 */
const OPTIONS: CaptureOptions = { filter: "tcp and not port 6443", snapLength: 2_048 };

export interface LeakDetectorOptions {
  /** Captures at the pods' own links, too; without it, only at nodes' links and bridges. */
  veths?: boolean;
}

interface Tap {
  readonly link: string;
  /** The pods whose conversations with the outside pass here. */
  readonly pods: readonly Pod[];
  readonly capture: Capture;
}

/**
 * Captures at every link that pods' bytes can take: their own, their nodes' bridges and uplinks.
 * That it would have seen a leak it proves itself, at its start and at its end: each pod says
 * something in clear to a host that is no peer, in each of its families, and every link on the way
 * must have it.
 */
export class LeakDetector implements AsyncDisposable {
  readonly #proofs: { readonly pod: Pod; readonly text: string }[] = [];
  #stopped = false;

  static async start(
    lab: Lab,
    pods: readonly Pod[],
    { veths = true }: LeakDetectorOptions = {},
  ): Promise<LeakDetector> {
    const nodes = lab.nodes.map((node) => ({
      name: node.name,
      pods: pods.filter((pod) => pod.node === node),
    })).filter((node) => node.pods.length > 0);
    const taps = await Promise.all([
      ...nodes.flatMap(({ name, pods }) => [
        lab.captureNodeLink(name, OPTIONS).then((capture) => ({ link: name, pods, capture })),
        lab.captureBridge(name, OPTIONS).then((capture) => ({
          link: `the bridge of ${name}`,
          pods,
          capture,
        })),
      ]),
      ...(veths ? pods : []).map((pod) =>
        lab.captureVeth(pod, OPTIONS).then((capture) => ({ link: pod.key, pods: [pod], capture }))
      ),
    ]);
    const listener = await lab.outside.serve("hello", PROOF_PORT);
    const detector = new LeakDetector(pods, taps, listener);
    await detector.#prove();
    return detector;
  }

  private constructor(
    readonly pods: readonly Pod[],
    readonly taps: readonly Tap[],
    readonly listener: LabProcess,
  ) {}

  /** Each packet that had `canary` in clear. Fails if it might have missed one. */
  async stop(canary: string): Promise<readonly Leak[]> {
    const taps = await this.#stop();
    return taps.flatMap(({ link, result }) => leaksIn(link, result, canary));
  }

  /** Every packet of every link. Fails if it might have missed one. */
  async packets(): Promise<readonly TcpPacket[]> {
    return (await this.#stop()).flatMap(({ result }) => result.packets);
  }

  async #stop(): Promise<{ link: string; result: CaptureResult }[]> {
    await this.#prove();
    this.#stopped = true;
    await this.listener.stop("SIGKILL");
    return await Promise.all(this.taps.map(async ({ link, pods, capture }) => {
      const result = await capture.stop();
      assert.equal(result.dropped, 0, `${link}: packets were missed`);
      for (const { pod, text } of this.#proofs) {
        if (!pods.includes(pod)) continue;
        assert(result.contains(text) > 0, `${link} does not show what ${pod.key} said in clear`);
      }
      return { link, result };
    }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stopped) return;
    await this.listener.stop("SIGKILL");
    for (const { capture } of this.taps) await capture[Symbol.asyncDispose]();
  }

  async #prove(): Promise<void> {
    await Promise.all(
      this.pods.flatMap((pod) =>
        [...(pod.ipv4 ? [OUTSIDE.ipv4] : []), ...(pod.ipv6 ? [OUTSIDE.ipv6] : [])].map(
          async (host) => {
            const text = `proof-${crypto.randomUUID()}`;
            const { code, stderr } = await pod.run(["bash", "-c", SAY, "bash", host, text]);
            assert.equal(code, 0, `${pod.key} cannot talk to ${host}: ${stderr}`);
            this.#proofs.push({ pod, text });
          },
        )
      ),
    );
  }
}

/** What passed a link in clear. */
export interface Leak {
  readonly link: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** When its connection was opened; -Infinity: before the capture. */
  readonly opened: number;
  readonly from: string;
  readonly to: string;
  readonly text: string;
}

const SAY = `exec 3<>/dev/tcp/$1/${PROOF_PORT} && echo "$2" >&3 && read -r answer <&3`;

function leaksIn(link: string, { packets, contains }: CaptureResult, canary: string): Leak[] {
  if (contains(canary) === 0) return [];
  const opened = new Map<string, number>();
  const leaks = packets.flatMap((packet): Leak[] => {
    const { time, payload, syn, ack } = packet;
    const from = `${packet.sourceAddress}:${packet.sourcePort}`;
    const to = `${packet.destinationAddress}:${packet.destinationPort}`;
    const connection = [from, to].sort().join();
    if (syn && !ack) opened.set(connection, time);
    const text = textOf(payload);
    if (!text.includes(canary)) return [];
    return [{
      link,
      time,
      opened: opened.get(connection) ?? -Infinity,
      from,
      to,
      text: text.slice(0, 80),
    }];
  });
  if (leaks.length > 0) return leaks;
  // Split between packets: no less of a leak.
  return [{ link, time: 0, opened: 0, from: "", to: "", text: canary }];
}

function textOf(payload: TcpPacket["payload"]): string {
  return new TextDecoder("latin1").decode(payload);
}
