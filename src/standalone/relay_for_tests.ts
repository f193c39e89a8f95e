/**
 * The relay in one process, for an ordinary user: pods are addresses of 127.0.0.0/8, a kernel map
 * is a Map, the clock stands still until a test turns it; sockets, epoll and TLS are the real ones.
 */
import { formatAddress } from "../addresses.ts";
import { TUNNEL_PORT } from "../constants.ts";
import {
  encodeBackendKey,
  encodeEndpoint,
  encodeFrontend,
  encodeIdentity,
  encodeNumber,
  encodePeer,
  encodeSocketKey,
} from "../kernel/maps.ts";
import { Bell } from "../native/epoll.ts";
import { Socket, text } from "../native/socket.ts";
import type { Endpoint } from "../native/socket_address.ts";
import { AlpnProtocol, TlsContext } from "../native/tls_context.ts";
import { TlsEngine } from "../native/tls_session.ts";
import { EventLoop } from "../relay/loop/event_loop.ts";
import { Load } from "../relay/loop/load.ts";
import { TurnShare } from "../relay/loop/turn_share.ts";
import { WorkerContext, type WorkerMap, type WorkerMaps } from "../relay/loop/worker_context.ts";
import type {
  PodDescription,
  RelaySettings,
  StreamReport,
  WorkerDescription,
  WorkerEvent,
} from "../relay/messages.ts";
import { acceptInbound } from "../relay/stream/accept_inbound.ts";
import { acceptOutbound } from "../relay/stream/accept_outbound.ts";
import { RelayPod } from "../relay/stream/pod.ts";
import { ALPN } from "../relay/tunnel/frame.ts";
import { Tunnel } from "../relay/tunnel/tunnel.ts";
import {
  Application,
  bytes,
  ListeningApplication,
  PATIENCE_MILLISECONDS,
  shrink,
} from "./applications_for_tests.ts";
import { shopCredentials, TRUST_DOMAIN } from "./authority_for_tests.ts";
import { Script, ScriptedServer } from "./scripted_relay_for_tests.ts";

/** One of the kernel's maps. */
export class MemoryMap implements WorkerMap {
  readonly entries = new Map<string, Uint8Array<ArrayBuffer>>();

  get(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    return this.entries.get(key.toHex())?.slice();
  }

  set(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): void {
    this.entries.set(key.toHex(), value.slice());
  }

  add(key: Uint8Array<ArrayBuffer>, value: Uint8Array<ArrayBuffer>): boolean {
    const isNew = !this.entries.has(key.toHex());
    if (isNew) this.set(key, value);
    return isNew;
  }

  take(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
    const value = this.get(key);
    this.entries.delete(key.toHex());
    return value;
  }

  delete(key: Uint8Array<ArrayBuffer>): void {
    this.entries.delete(key.toHex());
  }
}

/** Two relays, one of which dials the other. */
export interface Facing {
  readonly pod: RelayPod;
  /** The server's. */
  readonly far: WorkerContext;
  readonly server: ScriptedServer;
}

/** Everything that a test has: certificates, maps, a clock, and the workers' loops. */
export class RelayBench implements Disposable {
  readonly maps = {
    peers: new MemoryMap(),
    identities: new MemoryMap(),
    flows: new MemoryMap(),
    origins: new MemoryMap(),
    frontends: new MemoryMap(),
    backends: new MemoryMap(),
    affinities: new MemoryMap(),
  } satisfies WorkerMaps;
  readonly events: WorkerEvent[] = [];
  /** Milliseconds, of the deadlines. */
  now = 1_000;
  /** How far the wall clock is from the real one. */
  wallOffset = 0;
  /** Connections from loopback's own range go nowhere, as where a pod forwards a port (DNAT). */
  dropsLoopback = false;
  /** Tunnels that are made from now on are soon congested. */
  hasSmallBuffers = false;
  readonly #workers: WorkerContext[] = [];
  readonly #applications: Application[] = [];
  readonly #closing: Disposable[] = [];
  #generation = 0;

  /** A relay worker without its thread: the first of so many. */
  worker(settings: Partial<Omit<WorkerDescription, "maps">> = {}, workers = 1): WorkerContext {
    const loop = new EventLoop(new Bell(), () => Promise.resolve(), () => this.now);
    const context = new WorkerContext(
      {
        trustDomain: TRUST_DOMAIN,
        tunnelIdleMilliseconds: 10_000,
        maxConnections: 1_000,
        accessLogEvery: 1,
        ...settings,
      },
      this.maps,
      loop,
      new TlsEngine(new AlpnProtocol(ALPN)),
      new Load(Load.memoryFor(workers), 0, () => this.now),
      (event) => this.events.push(event),
      () => this.wall(),
    );
    this.#workers.push(context);
    this.#closing.push(loop, loop.bell);
    return context;
  }

  /** A pod, and a peer's relay, by another worker, that does what the test says. */
  async facing(): Promise<Facing> {
    const pod = await this.pod(this.worker(), "client");
    const far = this.worker();
    return { pod, far, server: await this.script(far) };
  }

  wall(): number {
    return Date.now() + this.wallOffset;
  }

  /** An enrolled pod with an address of its own, of whose namespace this is the one. */
  async pod(
    worker: WorkerContext,
    serviceAccount = "web",
    settings: Partial<RelaySettings> = {},
    namespace = "shop",
  ): Promise<RelayPod> {
    const address = newAddress();
    const identity = identityOf(serviceAccount);
    const description: PodDescription = {
      relay: this.#generation,
      uid: `uid-${address}`,
      name: `${namespace}/${serviceAccount}`,
      identity,
      addresses: [address],
      settings: { policy: undefined, strictEgress: false, ...settings },
      cookie: BigInt(++this.#generation),
      namespace: -1,
      outbound: [],
      inbound: [],
      outboundPort: 18_000,
    };
    const credentials = await shopCredentials([address], serviceAccount);
    const pod = new RelayPod(worker, description, credentials, {
      run: (action) => {
        const made = action();
        if (this.dropsLoopback && made instanceof Socket) this.#drop(made);
        if (this.hasSmallBuffers && made instanceof Socket) shrink(made);
        return made;
      },
    });
    this.#closing.unshift(pod);
    return pod;
  }

  /** One that nobody else has. */
  newAddress(): string {
    return newAddress();
  }

  /** What the registry says of an address. */
  setPeer(address: string, serviceAccount = "web", { ready = true, generation = 1 } = {}): void {
    const identity = serviceAccounts.add(serviceAccount);
    this.maps.identities.set(encodeNumber(identity), encodeIdentity(identityOf(serviceAccount)));
    this.maps.peers.set(bytes(address), encodePeer({ identity, generation, ready, slice: 0 }));
    this.peersChanged();
  }

  removePeer(address: string): void {
    this.maps.peers.delete(bytes(address));
    this.peersChanged();
  }

  /** As worker.ts handles the command of that name. */
  peersChanged(): void {
    for (const { peers, postponed } of this.#workers) {
      peers.changed();
      for (const connection of [...postponed]) connection.peersChanged();
    }
  }

  setService(
    service: Endpoint,
    backends: readonly Endpoint[],
    { set = 1, affinity = 0 } = {},
  ): void {
    for (const [index, backend] of backends.entries()) {
      this.maps.backends.set(encodeBackendKey(set, index), encodeEndpoint(backend));
    }
    const frontend = encodeFrontend({ set, count: backends.length, affinity });
    this.maps.frontends.set(encodeEndpoint(service), frontend);
  }

  /** Takes the connections to a pod's tunnel port, with the relay's inbound side. */
  serve(pod: RelayPod): Disposable {
    const local = bytes(pod.description.addresses[0] ?? "");
    return this.listen({ address: local, port: TUNNEL_PORT }, pod.worker, (socket, source) => {
      acceptInbound(pod, socket, source, local);
    });
  }

  /** Takes the connections to a peer's tunnel port, with a relay that does what the test says. */
  async script(
    worker: WorkerContext,
    serviceAccount = "web",
    address = newAddress(),
    shown: readonly string[] = [address],
  ): Promise<ScriptedServer> {
    const credentials = await shopCredentials(shown, serviceAccount);
    const context = new TlsContext(credentials, worker.engine.protocol);
    this.#closing.push(context);
    const server = new ScriptedServer(address);
    const endpoint = { address: bytes(address), port: TUNNEL_PORT };
    server.listener = this.listen(endpoint, worker, (socket) => {
      const session = worker.engine.session(context, "server");
      const script = new Script();
      script.tunnel = new Tunnel(
        worker,
        socket,
        session,
        "server",
        script,
        new TurnShare(worker.loop),
      );
      server.tunnels.push(script);
    });
    this.setPeer(address, serviceAccount);
    return server;
  }

  /** A client's tunnel to a peer's address that does what the test says. */
  dial(pod: RelayPod, address: string): Script {
    const { worker } = pod;
    const socket = Socket.forAddress(bytes(address));
    if (this.hasSmallBuffers) shrink(socket);
    socket.bind({ address: bytes(pod.description.addresses[0] ?? ""), port: 0 });
    socket.connect({ address: bytes(address), port: TUNNEL_PORT });
    const script = new Script();
    const session = worker.engine.session(pod.context, "client");
    script.tunnel = new Tunnel(worker, socket, session, "client", script, pod.turns);
    return script;
  }

  listen(
    endpoint: Endpoint,
    worker: WorkerContext,
    accepted: (socket: Socket, peer: Endpoint) => void,
  ): Disposable {
    const socket = Socket.forAddress(endpoint.address).reuseAddress();
    if (this.hasSmallBuffers) shrink(socket);
    socket.bind(endpoint);
    socket.listen();
    const listener = {
      [Symbol.dispose]: () => {
        worker.loop.forget(socket.descriptor);
        socket[Symbol.dispose]();
      },
    };
    worker.loop.register(socket.descriptor, 1, {
      ready: () => {
        const result = socket.accept();
        if (typeof result !== "number") accepted(result.socket, result.peer);
      },
      failed: (error) => {
        throw error;
      },
    });
    this.#closing.push(listener);
    return listener;
  }

  /** An application of the pod connects to `dialled`, as the programs redirect it. */
  connect(pod: RelayPod, dialled: Endpoint, { isNoted = true } = {}): Application {
    const listener = Socket.forAddress(LOOPBACK);
    listener.bind({ address: LOOPBACK, port: 0 });
    listener.listen();
    const application = new Application(Socket.forAddress(LOOPBACK));
    application.socket.connect(listener.localEndpoint());
    const source = application.socket.localEndpoint();
    if (isNoted) {
      const key = encodeSocketKey(pod.description.cookie, source);
      this.maps.flows.set(key, encodeEndpoint(dialled));
    }
    const accepted = listener.accept();
    if (typeof accepted === "number") throw new Error(`accept: errno ${accepted}`);
    listener[Symbol.dispose]();
    accepted.socket.resetsOnClose(true); // as the relay's listeners have it
    this.#applications.push(application);
    acceptOutbound(pod, accepted.socket, accepted.peer);
    return application;
  }

  /** A SYN from 127.128.0.0/16 is sent to where nobody answers. */
  #drop(socket: Socket): void {
    const connect = socket.connect.bind(socket);
    socket.connect = (to) => {
      const isLoopback = text(socket.localEndpoint()).startsWith("127.128.");
      return connect(isLoopback ? this.#full.endpoint : to);
    };
  }

  /** A listener whose queue is full, so that it does not answer. */
  full(endpoint: Endpoint): Disposable & { readonly endpoint: Endpoint } {
    const listener = Socket.forAddress(endpoint.address).reuseAddress();
    listener.bind(endpoint);
    listener.listen(0);
    const there = listener.localEndpoint();
    const clients = Array.from({ length: 3 }, () => Socket.forAddress(endpoint.address));
    for (const client of clients) client.connect(there);
    const full = {
      endpoint: there,
      [Symbol.dispose]: () => {
        for (const socket of [listener, ...clients]) socket[Symbol.dispose]();
      },
    };
    this.#closing.push(full);
    return full;
  }

  get #full(): { readonly endpoint: Endpoint } {
    return this.#silent ??= this.full({ address: LOOPBACK, port: 0 });
  }

  #silent: { readonly endpoint: Endpoint } | undefined;

  /** An application that listens; its connections as they come. */
  application(endpoint: Endpoint): ListeningApplication {
    const application = new ListeningApplication(endpoint);
    this.#closing.push(application);
    return application;
  }

  /** Until the condition holds. */
  async until(
    condition: () => boolean,
    what: () => string = () => String(condition),
  ): Promise<void> {
    const end = performance.now() + PATIENCE_MILLISECONDS;
    while (!condition()) {
      if (performance.now() > end) {
        throw new Error(`not within ${PATIENCE_MILLISECONDS} ms: ${what()}; ${this.log}`);
      }
      this.turn();
      await Promise.resolve();
    }
  }

  /** Everything that is under way inside this process. */
  turn(rounds = 3): void {
    for (let round = 0; round < rounds; round++) {
      for (const { loop } of this.#workers) loop.turn(0);
      for (const application of this.#applications) application.read();
    }
  }

  /** Turns the clock, and lets what is due happen. */
  later(milliseconds: number): void {
    this.now += milliseconds;
    this.turn();
  }

  get refused(): string[] {
    return this.events.flatMap((event) =>
      event.type === "log" ? [String(event.fields.reason)] : []
    );
  }

  /** By address: who has shown a certificate for it that the registry gives to another. */
  get shown(): Record<string, string> {
    const shown = this.events.flatMap((event) => event.type === "shown" ? [event.shown] : []);
    return Object.fromEntries(shown.map(({ address, identity }) => [address, identity]));
  }

  get log(): string {
    return JSON.stringify(this.events.filter(({ type }) => type === "log"));
  }

  /** The streams that have ended, as the access log has them. */
  get streams(): readonly StreamReport[] {
    this.later(100);
    return this.events.flatMap((event) => event.type === "streams" ? event.streams : []);
  }

  [Symbol.dispose](): void {
    for (const closing of this.#closing) closing[Symbol.dispose]();
    for (const application of this.#applications) application.socket[Symbol.dispose]();
  }
}

/** The sockets that a pod makes from now on. */
export function socketsOf(pod: RelayPod): readonly Socket[] {
  const made: Socket[] = [];
  const socketFor = pod.socketFor.bind(pod);
  pod.socketFor = (address) => {
    const socket = socketFor(address);
    made.push(socket);
    return socket;
  };
  return made;
}

export function addressOf({ description }: RelayPod): string {
  return formatAddress(bytes(description.addresses[0] ?? ""));
}

export function identityOf(serviceAccount: string): string {
  return `spiffe://${TRUST_DOMAIN}/ns/shop/sa/${serviceAccount}`;
}

/** Numbers of the `identities` map. */
const serviceAccounts = {
  known: ["none"],
  add(name: string): number {
    const index = this.known.indexOf(name);
    return index >= 0 ? index : this.known.push(name) - 1;
  },
};

/** One that no other test has, nor another run at the same time. */
function newAddress(): string {
  lastAddress++;
  return `127.${process}.${1 + (lastAddress >> 8)}.${lastAddress & 255}`;
}

const process = 1 + Deno.pid % 120;
let lastAddress = 1;
const LOOPBACK = bytes("127.0.0.1");
