/** For tests: a relay on the other side that does what the test says. */
import { ScatterBuffer } from "../native/scatter.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { FRAME, type Open } from "../relay/tunnel/frame.ts";
import type { Tunnel, TunnelOwner } from "../relay/tunnel/tunnel.ts";
import { endpoint } from "./applications_for_tests.ts";

/** One tunnel of it; `seen` is what has come. */
export class Script implements TunnelOwner {
  readonly seen: string[] = [];
  opened: Open | undefined;
  accepting = true;
  /** Bytes of DATA; the first thousand are told. */
  received = 0;
  #tunnel: Tunnel | undefined;

  get tunnel(): Tunnel {
    if (this.#tunnel === undefined) throw new Error("the script has no tunnel");
    return this.#tunnel;
  }

  set tunnel(tunnel: Tunnel) {
    this.#tunnel = tunnel;
  }

  secured(tunnel: Tunnel): void {
    this.seen.push("secured");
    tunnel.agreed(3_600, Date.now() + 3_600_000);
  }

  open(open: Open): void {
    this.opened = open;
    this.seen.push(`open ${open.port}`);
  }

  accept(): void {
    this.seen.push("accept");
  }

  refuse(errno: number): void {
    this.seen.push(`refuse ${errno}`);
  }

  data(start: number, length: number): void {
    this.received += length;
    if (this.received > MAX_TOLD) return;
    const { bytes } = this.tunnel.worker.plain;
    const part = new TextDecoder().decode(bytes.subarray(start, start + length));
    const last = this.seen.at(-1);
    if (last?.startsWith("data ")) this.seen[this.seen.length - 1] = last + part;
    else this.seen.push(`data ${part}`);
  }

  end(): void {
    this.seen.push("end");
  }

  reset(): void {
    this.seen.push("reset");
  }

  batchEnd(): void {}

  drained(): void {}

  lost(reason: string): void {
    this.seen.push(`lost: ${reason}`);
  }

  get last(): string {
    return this.seen.at(-1) ?? "";
  }

  get isLost(): boolean {
    return this.last.startsWith("lost");
  }

  /** Sends a frame without payload. */
  send(name: "ACCEPT" | "END" | "RESET"): void {
    this.tunnel.send(FRAME[name]);
  }

  sendData(payload: string): void {
    const encoded = new TextEncoder().encode(payload);
    const buffer = new ScatterBuffer(64 + encoded.length);
    buffer.bytes.set(encoded, 4);
    this.tunnel.sealData(buffer, 0, encoded.length);
    this.tunnel.flush();
  }
}

/** All that dial it. */
export class ScriptedServer {
  readonly tunnels: Script[] = [];
  listener: Disposable | undefined;

  constructor(readonly address: string) {}

  at(port: number): Endpoint {
    return endpoint(this.address, port);
  }

  /** The last tunnel. */
  get tunnel(): Script {
    return this.tunnels.at(-1) ?? new Script();
  }
}

const MAX_TOLD = 1_000;
