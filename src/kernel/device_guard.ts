import type { BpfMap } from "../native/bpf_map.ts";
import type { NetworkNamespace } from "../native/namespace.ts";
import { type Device, TrafficControl } from "../native/traffic_control.ts";
import type { Fault } from "./fault.ts";
import {
  decodeId,
  decodeNumber,
  encodeGuardedDevice,
  encodeNumber,
  type Strictness,
} from "./maps.ts";
import type { Program } from "./pinned_links.ts";

/** A pod whose devices are guarded. */
export interface GuardedPod {
  /** Its cgroup's ID, as the counts name it. */
  readonly id: bigint;
  readonly namespace: NetworkNamespace;
  /** 16 bytes each: the devices that hold one of them are guarded. */
  readonly addresses: readonly Uint8Array[];
  /** Strict drops what goes to a peer outside the tunnel; else that is counted. */
  readonly egress: Strictness;
  /** Strict drops what answers a connection that has met no tunnel and is not the node's. */
  readonly inbound: Strictness;
}

/** First among the filters of a device, and found again by this handle. */
const PLACE = { priority: 1, handle: 0x6b67 } as const;

/** The map's size (bpf/maps.h, guarded_devices). */
const MAX_PODS = 4096;

/**
 * The guard on pods' devices. Unlike the programs on their cgroups it sees what another kernel, a
 * process from outside or a forwarded packet sends; but whoever may administer the pod's network
 * can remove it, so it is to be inspected.
 */
export class DeviceGuard {
  readonly #program: Program;
  readonly #map: BpfMap;
  /** A pod's cgroup ID to the number that its filters carry. */
  readonly #numbers = new Map<bigint, number>();

  /** Takes over the numbers that an earlier agent has given. */
  constructor(program: Program, map: BpfMap) {
    this.#program = program;
    this.#map = map;
    for (const key of map.keys()) {
      const value = map.get(key);
      if (value !== undefined) this.#numbers.set(decodeId(value), decodeNumber(key));
    }
  }

  /**
   * Guards a pod's devices from now on; mends what {@link inspect} names. Throws an Error: then
   * some may not be guarded.
   */
  attach(pod: GuardedPod): void {
    const number = this.#numberOf(pod.id);
    this.#map.set(encodeNumber(number), encodeGuardedDevice(pod));
    using control = pod.namespace.run(() => new TrafficControl());
    const devices = devicesOf(pod, control);
    if (devices.length === 0) throw new Error("no device of the pod's holds one of its addresses");
    for (const { index } of devices) {
      control.attach(index, this.#program.descriptor, this.#program.name, {
        ...PLACE,
        classId: number,
      });
    }
  }

  /** What is not guarded as it should be, as the kernel says now. Throws a SystemError. */
  inspect(pod: GuardedPod): Fault[] {
    const number = this.#numbers.get(pod.id);
    const settings = number === undefined ? undefined : this.#map.get(encodeNumber(number));
    const wanted = encodeGuardedDevice(pod);
    if (settings === undefined || wanted.some((byte, index) => byte !== settings[index])) {
      return [{ kind: "guard", what: "guarded_devices does not say what the pod's settings do" }];
    }
    using control = pod.namespace.run(() => new TrafficControl());
    const devices = devicesOf(pod, control);
    if (devices.length === 0) {
      return [{ kind: "guard", what: "no device of the pod's holds one of its addresses" }];
    }
    return devices
      .filter(({ index }) =>
        !control.filters(index).some(({ priority, handle, programId, classId }) =>
          priority === PLACE.priority && handle === PLACE.handle &&
          programId === this.#program.id && classId === number
        )
      )
      .map(({ index }) => ({
        kind: "guard",
        what: `${this.#program.name} is not attached to the pod's device ${index}`,
      }));
  }

  /** Whether a pod's devices are guarded, also by an earlier agent. */
  has(pod: bigint): boolean {
    return this.#numbers.has(pod);
  }

  /** Guards a pod's devices no more. Throws a SystemError. */
  detach(pod: Pick<GuardedPod, "id" | "namespace">): void {
    using control = pod.namespace.run(() => new TrafficControl());
    for (const { index } of control.devices()) control.detach(index, PLACE);
    this.forget(pod.id);
  }

  /** For a pod whose namespace is gone, and its devices with it. */
  forget(pod: bigint): void {
    const number = this.#numbers.get(pod);
    if (number === undefined) return;
    this.#numbers.delete(pod);
    this.#map.delete(encodeNumber(number));
  }

  /** Makes room: these are all the pods that there are, by their cgroups' IDs. */
  forgetAllBut(pods: ReadonlySet<bigint>): void {
    for (const pod of [...this.#numbers.keys()]) {
      if (!pods.has(pod)) this.forget(pod);
    }
  }

  #numberOf(pod: bigint): number {
    const known = this.#numbers.get(pod);
    if (known !== undefined) return known;
    const taken = new Set(this.#numbers.values());
    for (let number = 1; number <= MAX_PODS; number++) {
      if (taken.has(number)) continue;
      this.#numbers.set(pod, number);
      return number;
    }
    throw new Error(`more than ${MAX_PODS} pods with a guard on their devices`);
  }
}

function devicesOf({ addresses }: GuardedPod, control: TrafficControl): Device[] {
  const isOwn = (address: Uint8Array) =>
    addresses.some((own) => own.every((byte, index) => byte === address[index]));
  return control.devices().filter(({ addresses }) => addresses.some(isOwn));
}
