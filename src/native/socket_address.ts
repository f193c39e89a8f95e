/**
 * An address and a port as 16 + 2 bytes in network byte order, IPv4 as ::ffff:a.b.c.d, which is
 * also how the eBPF maps hold them (bpf/maps.h, struct endpoint).
 */
export interface Endpoint {
  /** 16 bytes. */
  readonly address: Uint8Array;
  /** Host byte order. */
  readonly port: number;
}

/** Address families (bits/socket.h). */
export const AF_INET = 2;
export const AF_INET6 = 10;

/**
 * The size of a buffer that holds either form of socket address: struct sockaddr_in6, netinet/in.h.
 */
export const SOCKADDR_SIZE = 28;

/** The first bytes of ::ffff:a.b.c.d. */
export const IPV4_MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** Whether 16 address bytes hold an IPv4 address. */
export function isIpv4(address: Uint8Array): boolean {
  return IPV4_MAPPED.every((byte, index) => address[index] === byte);
}

/** Whether 16 address bytes are of 127.0.0.0/8 or ::1. */
export function isLoopback(address: Uint8Array): boolean {
  if (isIpv4(address)) return address[12] === 127;
  return address.every((byte, index) => byte === (index === 15 ? 1 : 0));
}

/**
 * `struct sockaddr_in` (16 bytes: family, port, 4 address bytes) or `struct sockaddr_in6` (28
 * bytes: family, port, flow, 16 address bytes, scope); family in host order, port in network order
 * (netinet/in.h).
 */
export function encodeSocketAddress({ address, port }: Endpoint): Uint8Array<ArrayBuffer> {
  const ipv4 = isIpv4(address);
  const bytes = new Uint8Array(ipv4 ? 16 : SOCKADDR_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, ipv4 ? AF_INET : AF_INET6, true);
  view.setUint16(2, port);
  if (ipv4) bytes.set(address.subarray(12, 16), 4);
  else bytes.set(address, 8);
  return bytes;
}

/** The reverse of {@link encodeSocketAddress}. Throws a TypeError for another family. */
export function decodeSocketAddress(bytes: Uint8Array): Endpoint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const family = view.getUint16(0, true);
  const address = new Uint8Array(16);
  if (family === AF_INET) {
    address.set(IPV4_MAPPED);
    address.set(bytes.subarray(4, 8), 12);
  } else if (family === AF_INET6) {
    address.set(bytes.subarray(8, 24));
  } else {
    throw new TypeError(
      `cannot read a socket address of family ${family}: it is not an IP address`,
    );
  }
  return { address, port: view.getUint16(2) };
}
