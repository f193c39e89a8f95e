import { errorText } from "../../error_text.ts";
import { formatAddress, parseAddress } from "../../addresses.ts";
import type { Socket } from "../../native/socket.ts";
import type { Endpoint } from "../../native/socket_address.ts";
import type { Expiring } from "../loop/deadlines.ts";
import type { ProofResult } from "../messages.ts";
import { Dial } from "../tunnel/dial.ts";
import { StreamlessOwner } from "../tunnel/idle_tunnel.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { TunnelPod } from "../tunnel/tunnel_pod.ts";
import type { RelayPod } from "./pod.ts";

const PROOF_MILLISECONDS = 5_000;

/**
 * Proves that a pod can be reached at one of its addresses, canonical text: makes a mutual TLS
 * handshake from the pod's own namespace with its own tunnel port, as a peer would. `done` is
 * called once.
 */
export function prove(
  pod: RelayPod,
  address: string,
  done: (result: ProofResult) => void,
): void {
  new Proof(pod, address, done).begin();
}

/**
 * Whether it is such a handshake that comes from `source`: by its address, and by the identity that
 * it has shown.
 */
export function isOwnProof(
  pod: RelayPod,
  source: Endpoint,
  identity = pod.description.identity,
): boolean {
  return identity === pod.description.identity && pod.isOwn(formatAddress(source.address));
}

/**
 * One proof. A client of TLS 1.3 has finished before the server has judged it, so each handshake is
 * followed by an OPEN for port 0, which the server refuses when all else is right: no stream is
 * opened, and neither side counts anything.
 *
 *     begun ─► dialling ─ handshake ─► asked ─ REFUSE ─► done
 */
class Proof extends StreamlessOwner implements Expiring {
  #state:
    | { readonly name: "dialling"; readonly dial: Dial }
    | { readonly name: "asked"; readonly tunnel: Tunnel }
    | { readonly name: "begun" | "done" } = { name: "begun" };
  readonly #pod: TunnelPod;
  readonly #began: number;
  /** The end of what the pod's listener has shown. */
  #notAfter = Infinity;

  constructor(
    readonly pod: RelayPod,
    readonly address: string,
    readonly finished: (result: ProofResult) => void,
  ) {
    super();
    const { worker, context, notAfter, epoch } = pod;
    this.#began = worker.now();
    this.#pod = {
      worker,
      context,
      notAfter,
      epoch,
      counters: { tunnelsOpen: 0 },
      turns: pod.turns,
      socketFor: (address) => boundSocket(pod, address),
      secured: (tunnel, secondsLeft) => {
        pod.secured(tunnel, secondsLeft, false);
        this.#notAfter = worker.wallClock() + 1000 * secondsLeft;
      },
    };
    worker.loop.deadlines.arm(this, PROOF_MILLISECONDS);
  }

  begin(): void {
    const address = new Uint8Array(parseAddress(this.address));
    const { identity } = this.pod.description;
    const own = { address, name: this.address, identity, generation: 0, ready: true, version: 0 };
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
    const milliseconds = this.pod.worker.now() - this.#began;
    this.#finish({ ok: true, notAfter: this.#notAfter, milliseconds });
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
