import { EEXIST, SystemError } from "./errno.ts";
import { cString } from "./libc.ts";
import {
  attribute,
  attributes,
  Netlink,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
} from "./netlink.ts";
import { requireFew } from "./namespace.ts";
import { AF_INET, AF_INET6, IPV4_MAPPED } from "./socket_address.ts";

/**
 * A program on a device's way out, by which number it knows the device, and its place among others.
 */
export interface EgressFilter {
  readonly priority: number;
  readonly handle: number;
  /** The kernel's number of the program. */
  readonly programId: number;
  /** 16 bits: `tc_classid` of every packet that the program sees. */
  readonly classId: number;
}

/** A device of a network namespace. */
export interface Device {
  readonly index: number;
  /** 16 bytes each. */
  readonly addresses: readonly Uint8Array[];
}

/**
 * Devices and the programs on their way out (tc(8), clsact), in the network namespace in which the
 * thread stands when this is made. Such a program is no link: nobody owns it, and it goes unnoticed
 * with its device or its qdisc.
 */
export class TrafficControl implements Disposable {
  /** Throws a SystemError. */
  readonly #netlink = new Netlink(NETLINK_ROUTE);

  /**
   * The devices that hold an address, without those that are loopback. Throws a SystemError, and an
   * Error for a namespace with too many addresses: whoever may give himself some may make any
   * number.
   */
  devices(): Device[] {
    const addresses = new Map<number, Uint8Array[]>();
    let count = 0;
    this.#netlink.ask("RTM_GETADDR", RTM_GETADDR, NLM_F_DUMP, new Uint8Array(8), ({ payload }) => {
      const found = decodeAddress(payload);
      if (found === undefined || found.index === LOOPBACK_INDEX) return;
      const address = requireFew(found.address, count++);
      const held = addresses.get(found.index);
      if (held === undefined) addresses.set(found.index, [address]);
      else held.push(address);
    });
    return [...addresses].map(([index, addresses]) => ({ index, addresses }));
  }

  /**
   * By index: what kind of device it is, "bridge" or "veth"; none for hardware and loopback. Throws
   * a SystemError.
   */
  kinds(): Map<number, string> {
    const kinds = new Map<number, string>();
    const request = new Uint8Array(LINK_MESSAGE_SIZE);
    this.#netlink.ask("RTM_GETLINK", RTM_GETLINK, NLM_F_DUMP, request, ({ payload }) => {
      const found = decodeKind(payload);
      if (found !== undefined) kinds.set(found.index, found.kind);
    });
    return kinds;
  }

  /**
   * Puts a program on a device's way out, or in the place of the one with this priority and handle.
   * Throws a SystemError.
   */
  attach(device: number, program: number, name: string, filter: Omit<EgressFilter, "programId">) {
    this.#makeQueue(device);
    const options = [
      attribute(TCA_BPF_FD, word(program)),
      attribute(TCA_BPF_NAME, cString(name)),
      attribute(TCA_BPF_FLAGS, word(TCA_BPF_FLAG_ACT_DIRECT)),
      attribute(TCA_BPF_CLASSID, word(filter.classId)),
    ];
    this.#netlink.ask(
      "RTM_NEWTFILTER",
      RTM_NEWTFILTER,
      NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK,
      concat(
        encodeTcMessage(
          device,
          filter.handle,
          CLSACT_EGRESS,
          filter.priority << 16 | ALL_PROTOCOLS,
        ),
        attribute(TCA_KIND, cString("bpf")),
        attribute(TCA_OPTIONS, ...options),
      ),
    );
  }

  /**
   * The programs on a device's way out; none when it has no clsact queue, or is gone. Throws a
   * SystemError.
   */
  filters(device: number): EgressFilter[] {
    const filters: EgressFilter[] = [];
    const request = encodeTcMessage(device, 0, CLSACT_EGRESS, 0);
    this.#netlink.ask("RTM_GETTFILTER", RTM_GETTFILTER, NLM_F_DUMP, request, ({ payload }) => {
      const filter = decodeFilter(payload, device);
      if (filter !== undefined) filters.push(filter);
    });
    return filters;
  }

  /**
   * Takes a program from a device's way out, if it is there, and the queue with the last program of
   * anybody's. Throws a SystemError.
   */
  detach(device: number, { priority, handle }: Pick<EgressFilter, "priority" | "handle">): void {
    const isThere = this.filters(device).some((filter) =>
      filter.priority === priority && filter.handle === handle
    );
    if (!isThere) return;
    const request = concat(
      encodeTcMessage(device, handle, CLSACT_EGRESS, priority << 16 | ALL_PROTOCOLS),
      attribute(TCA_KIND, cString("bpf")),
    );
    this.#netlink.ask("RTM_DELTFILTER", RTM_DELTFILTER, NLM_F_ACK, request);
    if ([CLSACT_EGRESS, CLSACT_INGRESS].some((way) => this.#hasFilter(device, way))) return;
    const queue = encodeTcMessage(device, CLSACT_HANDLE, TC_H_CLSACT, 0);
    this.#netlink.ask("RTM_DELQDISC", RTM_DELQDISC, NLM_F_ACK, queue);
  }

  [Symbol.dispose](): void {
    this.#netlink[Symbol.dispose]();
  }

  #hasFilter(device: number, way: number): boolean {
    let count = 0;
    const request = encodeTcMessage(device, 0, way, 0);
    this.#netlink.ask("RTM_GETTFILTER", RTM_GETTFILTER, NLM_F_DUMP, request, () => count++);
    return count > 0;
  }

  /** Without this pseudo-queue no program finds a place. */
  #makeQueue(device: number): void {
    const request = concat(
      encodeTcMessage(device, CLSACT_HANDLE, TC_H_CLSACT, 0),
      attribute(TCA_KIND, cString("clsact")),
    );
    try {
      this.#netlink.ask(
        "RTM_NEWQDISC",
        RTM_NEWQDISC,
        NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK,
        request,
      );
    } catch (error) {
      if (!(error instanceof SystemError && error.errno === EEXIST)) throw error;
    }
  }
}

/** `struct tcmsg`: family, padding, device, handle, parent, info. */
function encodeTcMessage(
  device: number,
  handle: number,
  parent: number,
  info: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TC_MESSAGE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setInt32(4, device, true);
  view.setUint32(8, handle, true);
  view.setUint32(12, parent, true);
  view.setInt32(16, info, true);
  return bytes;
}

/**
 * A program among the filters of `device`; undefined for another device's, and for what is none.
 */
function decodeFilter(bytes: Uint8Array<ArrayBuffer>, device: number): EgressFilter | undefined {
  if (bytes.length < TC_MESSAGE_SIZE) return undefined;
  const view = new DataView(bytes.buffer);
  const found = attributes(bytes.slice(TC_MESSAGE_SIZE));
  const kind = found.get(TCA_KIND);
  const options = found.get(TCA_OPTIONS);
  if (view.getInt32(4, true) !== device || kind === undefined || options === undefined) {
    return undefined;
  }
  if (new TextDecoder().decode(kind) !== "bpf\0") return undefined; // somebody else's
  const program = attributes(options);
  return {
    priority: view.getUint32(16, true) >>> 16,
    handle: view.getUint32(8, true),
    programId: unsigned(program.get(TCA_BPF_ID)),
    classId: unsigned(program.get(TCA_BPF_CLASSID)),
  };
}

/** `struct ifaddrmsg` (family, prefix length, flags, scope, device) and its attributes. */
function decodeAddress(
  bytes: Uint8Array<ArrayBuffer>,
): { readonly index: number; readonly address: Uint8Array } | undefined {
  if (bytes.length < ADDRESS_MESSAGE_SIZE) return undefined;
  const family = bytes[0];
  const found = attributes(bytes.slice(ADDRESS_MESSAGE_SIZE));
  // On a cable with two ends of its own IFA_ADDRESS is the other end's.
  const own = found.get(IFA_LOCAL) ?? found.get(IFA_ADDRESS);
  const index = new DataView(bytes.buffer).getUint32(4, true);
  if (family === AF_INET6 && own?.length === 16) return { index, address: own };
  if (family !== AF_INET || own?.length !== 4) return undefined;
  return { index, address: Uint8Array.from([...IPV4_MAPPED, ...own]) };
}

/**
 * `struct ifinfomsg` (family, padding, type, device, flags, changes) and its attributes; undefined
 * without a kind.
 */
function decodeKind(
  bytes: Uint8Array<ArrayBuffer>,
): { readonly index: number; readonly kind: string } | undefined {
  if (bytes.length < LINK_MESSAGE_SIZE) return undefined;
  const information = attributes(bytes.slice(LINK_MESSAGE_SIZE)).get(IFLA_LINKINFO);
  const kind = information === undefined ? undefined : attributes(information).get(IFLA_INFO_KIND);
  if (kind === undefined) return undefined;
  const index = new DataView(bytes.buffer).getInt32(4, true);
  return { index, kind: new TextDecoder().decode(kind).replace(/\0.*$/, "") };
}

function word(number: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.of(number).buffer);
}

/** 0 where there is none. */
function unsigned(bytes: Uint8Array<ArrayBuffer> | undefined): number {
  return bytes?.length === 4 ? new DataView(bytes.buffer).getUint32(0, true) : 0;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

// linux/rtnetlink.h
const RTM_GETADDR = 22;
const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_NEWTFILTER = 44;
const RTM_DELTFILTER = 45;
const RTM_GETTFILTER = 46;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TC_MESSAGE_SIZE = 20;

// linux/if_link.h, linux/rtnetlink.h
const RTM_GETLINK = 18;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const LINK_MESSAGE_SIZE = 16;

// linux/if_addr.h
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const ADDRESS_MESSAGE_SIZE = 8;

// linux/pkt_sched.h; include/net/flow.h
const TC_H_CLSACT = 0xfffffff1;
const CLSACT_HANDLE = 0xffff0000;
const CLSACT_INGRESS = 0xfffffff2;
const CLSACT_EGRESS = 0xfffffff3;
const LOOPBACK_INDEX = 1;

// linux/pkt_cls.h, linux/if_ether.h
const TCA_BPF_CLASSID = 3;
const TCA_BPF_FD = 6;
const TCA_BPF_NAME = 7;
const TCA_BPF_FLAGS = 8;
const TCA_BPF_ID = 11;
const TCA_BPF_FLAG_ACT_DIRECT = 1;
const ALL_PROTOCOLS = 0x0300;
