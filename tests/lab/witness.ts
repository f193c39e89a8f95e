import type { Lab } from "./lab.ts";
import type { TcpPacket } from "./pcap.ts";
import type { Pod } from "./pod.ts";
import type { AppEvent, LabProcess } from "./process.ts";

/** A packet with payload between the two pods. */
export interface Captured {
  /** The listener's port: the destination's, of an answer the source's. */
  readonly port: number;
  readonly isAnswer: boolean;
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** The capture on the link between the nodes. */
export class Wire {
  readonly packets: Captured[] = [];

  static async watch(lab: Lab, from: Pod, to: Pod): Promise<Wire> {
    const wire = new Wire();
    await lab.watchLink(from.node.name, (packet: TcpPacket) => {
      const { sourceAddress: source, destinationAddress: destination, payload: bytes } = packet;
      const isAnswer = source === to.ipv4 && destination === from.ipv4;
      const isQuestion = source === from.ipv4 && destination === to.ipv4;
      if (bytes.length === 0 || !(isAnswer || isQuestion)) return;
      const port = isAnswer ? packet.sourcePort : packet.destinationPort;
      wire.packets.push({ port, isAnswer, bytes, text: new TextDecoder().decode(bytes) });
    });
    return wire;
  }
}

/** What an application of mode `hello` hears of the messages that begin with `text`. */
export class Ear {
  constructor(readonly listener: LabProcess, readonly text: string) {}

  /** The sender's address as accept() gave it, for each message. */
  get heard(): string[] {
    return this.#messages.map(({ accept }) =>
      String(Array.isArray(accept) ? accept[0] : "").replace("::ffff:", "")
    );
  }

  get texts(): string[] {
    return this.#messages.map(({ text }) => String(text));
  }

  get #messages(): AppEvent[] {
    return this.listener.events.filter(({ event, text }) =>
      event === "message" && String(text).startsWith(this.text)
    );
  }
}
