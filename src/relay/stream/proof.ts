import { errorText } from "../../error_text.ts";
import { parseAddress } from "../../addresses.ts";
import type { Socket } from "../../native/socket.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { ProofResult } from "../messages.ts";
import { Dial } from "../tunnel/dial.ts";
import { StreamlessOwner } from "../tunnel/idle_tunnel.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { TunnelPod } from "../tunnel/tunnel_pod.ts";
import type { RelayPod } from "./pod.ts";

/** For all addresses of the pod together. */
const PROOF_MILLISECONDS = 5_000;

/**
 * Proves that a pod can be reached: makes a mutual TLS handshake from the pod's own namespace with its own tunnel port,
 * at one of its addresses after the other, as a peer would. `done` is called once.
 */
export function prove(pod: RelayPod, done: (result: ProofResult) => void): void {
  new Proof(pod, done).next();
}

/**
 * One proof. A client of TLS 1.3 has finished before the server has judged it, so each handshake is followed by an OPEN
 * for port 0, which the server refuses when all else is right: no stream is opened, and neither side counts anything.
 *
 *     dialling ─ handshake ─► asked ─ REFUSE ─► dialling the next address, or done
 */
class Proof extends StreamlessOwner implements Expiring {
  #state:
    | { readonly name: "dialling"; readonly dial: Dial }
    | { readonly name: "asked"; readonly tunnel: Tunnel }
    | { readonly name: "between" | "done" } = { name: "between" };
  readonly #pod: TunnelPod;
  readonly #began: number;
  readonly #addresses: string[];
  /** The earliest end of what the pod's listeners have shown. */
  #notAfter = Infinity;

  constructor(readonly pod: RelayPod, readonly finished: (result: ProofResult) => void) {
    super();
    const { worker, context, notAfter, epoch, description } = pod;
    this.#began = worker.now();
    this.#addresses = [...description.addresses];
    this.#pod = {
      worker,
      context,
      notAfter,
      epoch,
      counters: { tunnelsOpen: 0 },
      socketFor: (address) => boundSocket(pod, address),
      secured: (tunnel, secondsLeft) => {
        pod.secured(tunnel, secondsLeft, false);
        this.#notAfter = Math.min(this.#notAfter, worker.wallClock() + 1000 * secondsLeft);
      },
    };
    worker.loop.deadlines.arm(this, PROOF_MILLISECONDS);
  }

  next(): void {
    const name = this.#addresses.shift();
    if (name === undefined) {
      const milliseconds = this.pod.worker.now() - this.#began;
      return this.#finish({ ok: true, notAfter: this.#notAfter, milliseconds });
    }
    const address = new Uint8Array(parseAddress(name));
    const { identity } = this.pod.description;
    const own = { address, name, identity, generation: 0, ready: true, version: 0 };
    const dial = new Dial(this.#pod, own, {
      done: (tunnel) => this.#ask(tunnel, address),
      failed: ({ message }) => this.#fail(message),
    });
    this.#state = { name: "dialling", dial };
    dial.start();
  }

  #ask(tunnel: Tunnel, address: Uint8Array): void {
    this.#state = { name: "asked", tunnel };
    tunnel.owner = this;
    const own = { address, port: 0 };
    tunnel.sendOpen({ port: 0, client: own, dialled: own });
  }

  override refuse(): void {
    if (this.#state.name !== "asked") return super.refuse();
    this.#state.tunnel.close();
    this.#state = { name: "between" };
    this.next();
  }

  lost(reason: string): void {
    this.#fail(`the pod's own relay ended the tunnel: ${reason}`);
  }

  secured(): void {
    throw new Error("a second handshake");
  }

  expired(): void {
    const what = this.#state.name === "asked" ? "answer to OPEN" : "handshake";
    this.#fail(`no ${what} within ${PROOF_MILLISECONDS / 1000} s`);
  }

  failed(error: unknown): void {
    this.#fail(`internal error: ${errorText(error)}`);
  }

  #fail(reason: string): void {
    this.#finish({ ok: false, reason: `${this.pod.description.name}: ${reason}` });
  }

  #finish(result: ProofResult): void {
    const state = this.#state;
    if (state.name === "done") return;
    this.#state = { name: "done" };
    this.pod.worker.loop.deadlines.disarm(this);
    if (state.name === "dialling") state.dial.abort();
    if (state.name === "asked") state.tunnel.close();
    this.finished(result);
  }
}

/** From the address that is dialled: the inbound side knows a proof by that. */
function boundSocket(pod: RelayPod, address: Uint8Array): Socket {
  const socket = pod.socketFor(address);
  try {
    socket.bind({ address, port: 0 });
    return socket;
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}
