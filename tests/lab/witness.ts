import type { Lab } from "./lab.ts";
import type { TcpPacket } from "./pcap.ts";
import type { Pod } from "./pod.ts";
import type { AppEvent, LabProcess } from "./process.ts";

/** A packet with payload on its way from one pod to the other. */
export interface Captured {
  readonly port: number;
  readonly bytes: Uint8Array;
  readonly text: string;
}

/** The capture on the link between the nodes. */
export class Wire {
  readonly packets: Captured[] = [];

  static async watch(lab: Lab, from: Pod, to: Pod): Promise<Wire> {
    const wire = new Wire();
    await lab.watchLink(from.node.name, (packet: TcpPacket) => {
      const { sourceAddress, destinationAddress, destinationPort: port, payload: bytes } = packet;
      if (sourceAddress !== from.ipv4 || destinationAddress !== to.ipv4 || bytes.length === 0) {
        return;
      }
      wire.packets.push({ port, bytes, text: new TextDecoder().decode(bytes) });
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
