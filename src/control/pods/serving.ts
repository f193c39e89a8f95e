import { formatAddress, parseAddress } from "../../addresses.ts";
import { TUNNEL_PORT } from "../../constants.ts";
import { cookieOf, encodeId, encodeNumber, encodePod } from "../../kernel/maps.ts";
import type { GuardedPod } from "../../kernel/device_guard.ts";
import { cgroupId } from "../../native/file_system.ts";
import type { Fault } from "../../kernel/fault.ts";
import {
  endConnections,
  endWaiting,
  listeners,
  plainConnections,
} from "../../kernel/plain_connections.ts";
import { errorText } from "../../error_text.ts";
import { logger } from "../../log.ts";
import type { Redirector } from "../../kernel/redirector.ts";
import { text } from "../../native/socket.ts";
import { isIpv4 } from "../../native/socket_address.ts";
import type { ProofResult, RelayCredentials, RelaySettings } from "../../relay/messages.ts";
import type { RelayWorkers } from "../../relay/workers.ts";
import {
  closeListeners,
  openListeners,
  type PodListeners,
  socketsOf,
  unlock,
} from "./listeners.ts";
import { heldOf, type PodNamespace, reachableAt, stillInUse } from "./namespace.ts";
import { processesOf } from "./processes.ts";
import type { OpenConnections, PodServing, Restrictions } from "./pod_kernel.ts";
import type { PodCertificate, PodCredentials } from "./pod_certificate.ts";
import { sameBytes } from "../../same.ts";
import type { WantedEnrolment } from "../rules/desired.ts";

const log = logger("enrolment");

export interface ServingServices {
  readonly redirector: Redirector;
  readonly workers: RelayWorkers;
  readonly procRoot: string;
  /** The SPIFFE ID that the registry names for an address in canonical text. */
  readonly identityAt: (address: string) => string | undefined;
}

/**
 * What is open for a pod in one of its network namespaces: the listeners, the entry in the `pods`
 * map that sends the pod's connections to them, and what the workers have. A pod that gets a new
 * sandbox gets another one.
 */
export class Serving implements PodServing {
  readonly #cgroup: string;
  /** By which the kernel's counts name the pod. */
  readonly #cgroupId: bigint;
  readonly #redirector: Redirector;
  readonly #workers: RelayWorkers;
  readonly #procRoot: string;
  readonly #identityAt: ServingServices["identityAt"];
  readonly #listeners: PodListeners;
  /** What stands in the `pods` map. */
  readonly #key: Uint8Array<ArrayBuffer>;
  readonly #entry: Uint8Array<ArrayBuffer>;
  /** The workers have it under this name; undefined before they do. */
  #relay: number | undefined;
  #closed = false;
  #proofs = 0;

  /**
   * Opens the listeners and lets the pod's connections through to them, where they wait for
   * {@link serve}.
   */
  constructor(
    readonly wanted: WantedEnrolment,
    cgroup: string,
    readonly found: PodNamespace,
    { redirector, workers, procRoot, identityAt }: ServingServices,
  ) {
    this.#cgroup = cgroup;
    this.#cgroupId = cgroupId(cgroup);
    this.#procRoot = procRoot;
    this.#identityAt = identityAt;
    this.#redirector = redirector;
    this.#workers = workers;
    this.#listeners = openListeners(found.namespace, found.held, workers.count);
    this.#key = encodeId(this.#listeners.cookie);
    this.#entry = entryOf(found.addresses, this.#listeners.outboundPort);
    try {
      this.#claim();
      this.letThrough();
    } catch (error) {
      closeListeners(this.#listeners);
      throw error;
    }
  }

  /**
   * Tells the kernel whose the outbound listeners are: connections are sent to nobody else. Throws
   * a SystemError.
   */
  #claim(): void {
    for (const { outbound } of this.#listeners.sets) {
      for (const { descriptor } of outbound) {
        this.#redirector.listeners.set(encodeNumber(descriptor), encodeNumber(1));
      }
    }
  }

  /** The pod's connections to peers go to the listeners from now on. Throws a SystemError. */
  letThrough(): void {
    this.#redirector.pods.set(this.#key, this.#entry);
  }

  /** Whether the kernel's map says so. */
  isLetThrough(): boolean {
    const entry = this.#redirector.pods.get(this.#key);
    return entry !== undefined && sameBytes(entry, this.#entry);
  }

  /**
   * The workers answer from now on. Rejects when one cannot, and nothing of the pod is left with
   * them then.
   */
  async serve(credentials: PodCredentials, settings: RelaySettings): Promise<void> {
    const { uid, namespace, name, identity } = this.wanted;
    const { cookie, outboundPort, sets } = this.#listeners;
    this.#relay = this.#workers.newRelay();
    await this.#workers.enrol({
      pod: {
        relay: this.#relay,
        uid,
        name: `${namespace}/${name}`,
        addresses: this.found.held,
        cookie,
        namespace: this.found.namespace.descriptor,
        outboundPort,
        identity,
        settings,
      },
      sockets: sets.map(({ outbound, inbound }) => ({
        outbound: outbound.map(({ descriptor }) => descriptor),
        inbound: inbound.map(({ descriptor }) => descriptor),
      })),
    }, relayCredentials(credentials));
  }

  /** Shows the workers each new certificate, and the trust bundle's changes. */
  follow(certificate: PodCertificate): void {
    certificate.keepFresh((fresh) => {
      if (this.#relay !== undefined) this.#workers.renew(this.#relay, relayCredentials(fresh));
    });
  }

  restrict(restrictions: Restrictions): void {
    const { descriptor } = this.found.namespace;
    const { deviceGuard } = this.#redirector;
    this.#redirector.setStrictInbound(
      this.wanted.uid,
      descriptor,
      restrictions.inbound === "strict",
    );
    if (isGuarded(restrictions)) deviceGuard.attach(this.#guarded(restrictions));
    else if (deviceGuard.has(this.#cgroupId)) deviceGuard.detach(this.#guarded(restrictions));
  }

  inspectRestrictions(restrictions: Restrictions): Fault[] {
    const { uid } = this.wanted;
    const { descriptor } = this.found.namespace;
    const isStrict = restrictions.inbound === "strict";
    return [
      ...this.#redirector.inspectStrictInbound(uid, descriptor, isStrict),
      ...isGuarded(restrictions)
        ? this.#redirector.deviceGuard.inspect(this.#guarded(restrictions))
        : [],
    ];
  }

  count(): void {
    this.#redirector.guardCounts.count(this.#cgroupId);
  }

  countAnew(): void {
    this.#redirector.guardCounts.forget(this.#cgroupId);
    this.count();
  }

  isCounted(): boolean {
    return this.#redirector.guardCounts.counts(this.#cgroupId);
  }

  isInUse(): boolean {
    return stillInUse(this.found, () => processesOf(this.#cgroup), this.#procRoot);
  }

  reachableAt(): readonly string[] {
    return reachableAt(this.found.namespace);
  }

  inspectListeners(thorough: boolean): string[] {
    const deaf = socketsOf(this.#listeners).filter((socket) => !socket.isListening).length;
    if (deaf > 0) return [`${deaf} of its sockets do not listen any more`];
    return thorough ? this.#compareListeners() : [];
  }

  #compareListeners(): string[] {
    const { namespace, addresses, held } = this.found;
    const wrong = heldOf(namespace, addresses).filter((address) => !held.includes(address))
      .map((address) => `nobody listens on ${address}`);
    const families = new Set(held.map((address) => isIpv4(parseAddress(address))));
    const { outboundPort, sets } = this.#listeners;
    const listening = listeners(namespace, [TUNNEL_PORT, outboundPort]);
    for (
      const [port, wanted] of [
        [TUNNEL_PORT, held.length * sets.length],
        [outboundPort, families.size * sets.length],
      ] as const
    ) {
      const there = listening.filter(({ local }) => local.port === port).length;
      if (there === wanted) continue;
      wrong.push(`${there} sockets listen on port ${port} instead of ${wanted}`);
    }
    return wrong;
  }

  prove(): Promise<ProofResult> {
    const { held } = this.found;
    const address = held[this.#proofs++ % held.length];
    if (this.#relay === undefined || address === undefined) {
      return Promise.resolve({ ok: false, reason: "it is not served" });
    }
    return this.#workers.prove(this.#relay, address);
  }

  olderConnections(): OpenConnections {
    const { namespace } = this.found;
    const isPeer = (address: Uint8Array<ArrayBuffer>) => this.#redirector.peers.has(address);
    const { sockets, isComplete } = plainConnections(namespace, isPeer, TUNNEL_PORT);
    const own = [...new Set(sockets.map(({ local }) => local.port))];
    const ports = new Set(
      own.length === 0 ? [] : listeners(namespace, own).map(({ local }) => local.port),
    );
    return {
      list: sockets.map(({ local, remote }) => ({
        isInbound: ports.has(local.port),
        port: local.port,
        peerIdentity: this.#identityAt(formatAddress(remote.address)),
        name: `${text(local)} - ${text(remote)}`,
      })),
      isComplete,
      end: (indexes) => {
        const ended = sockets.filter((_, index) => indexes.includes(index));
        return endConnections(namespace, ended).unsupported === 0;
      },
    };
  }

  adjust(settings: RelaySettings): void {
    if (this.#relay !== undefined) this.#workers.adjust(this.#relay, settings);
  }

  /**
   * Closes the listeners at once, and what goes through them after `drainMilliseconds` at most. New
   * connections of the pod to peers are refused then, unless its programs are detached, or another
   * one lets them through.
   */
  async close(drainMilliseconds: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.isLetThrough()) {
      this.#redirector.pods.delete(this.#key);
      this.#endWaiting();
    }
    if (this.#relay === undefined) closeListeners(this.#listeners);
    else {
      unlock(this.#listeners);
      await this.#workers.withdraw(this.#relay, drainMilliseconds);
    }
    // Another one may let the namespace's connections through by now.
    if (!this.#redirector.pods.has(this.#key)) this.#forgetFlows();
    // The namespace was lent to the workers until now.
    this.found.namespace[Symbol.dispose]();
  }

  /**
   * What the listeners have not answered would be sent again, to whoever has their port once the
   * programs are detached.
   */
  #endWaiting(): void {
    try {
      endWaiting(this.found.namespace, this.#listeners.outboundPort);
    } catch (error) {
      log.warn("connections of {pod} that wait for the relay cannot be ended: {error}", {
        pod: `${this.wanted.namespace}/${this.wanted.name}`,
        error: errorText(error),
      });
    }
  }

  #guarded({ egress, inbound }: Restrictions): GuardedPod {
    const { namespace, held } = this.found;
    const addresses = held.map((address) => parseAddress(address));
    return { id: this.#cgroupId, namespace, addresses, egress, inbound };
  }

  /** Notes of connections that nobody has accepted: without listeners nobody will. */
  #forgetFlows(): void {
    const { cookie } = this.#listeners;
    const { flows } = this.#redirector;
    for (const key of flows.keys()) if (cookieOf(key) === cookie) flows.delete(key);
  }
}

function entryOf(text: readonly string[], outboundPort: number): Uint8Array<ArrayBuffer> {
  const addresses = text.map(parseAddress);
  const ipv4 = addresses.find(isIpv4);
  const ipv6 = addresses.find((address) => !isIpv4(address));
  return encodePod({ ipv4, ipv6, outboundPort });
}

/**
 * A strict pod's devices are looked at, too: packets need no connect(), and DNAT leads past the
 * listeners.
 */
function isGuarded({ inbound, egress, isGuarded }: Restrictions): boolean {
  return inbound !== "permissive" || egress !== "permissive" || isGuarded;
}

function relayCredentials(
  { chain, privateKey, roots, certificate }: PodCredentials,
): RelayCredentials {
  return { chain, privateKey, roots, notAfter: certificate.notAfter.getTime() };
}
