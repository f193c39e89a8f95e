import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { awaitEvents, connectedSockets } from "./connected_sockets.ts";
import { EPOLLIN } from "./epoll.ts";
import { EAGAIN, ECONNRESET, EPIPE } from "./errno.ts";
import { GRAIN, ScatterBuffer } from "./scatter.ts";
import { sendBytes } from "./socket.ts";

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const EMSGSIZE = 90;

/** Bytes 1, 2, 3, …, never 0, so that what nobody wrote can be told. */
function counting(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, index) => 1 + index % 251);
}

function bufferOf(bytes: Uint8Array): ScatterBuffer {
  const buffer = new ScatterBuffer(bytes.length);
  buffer.bytes.set(bytes);
  return buffer;
}

Deno.test("several ranges, in any order and at any offset, are sent as one", () => {
  using sockets = connectedSockets();
  const buffer = bufferOf(counting(200));
  for (const [start, length] of [[100, 3], [0, 1], [199, 1], [7, 0], [101, 5]] as const) {
    buffer.add(start, length);
  }
  strictEqual(buffer.length, 10);
  strictEqual(buffer.send(sockets.client.descriptor), 10);
  deepStrictEqual([...received(sockets.server.descriptor, 10)], [
    ...[101, 102, 103],
    1,
    200,
    ...[102, 103, 104, 105, 106],
  ]);
});

Deno.test("what is received fills the ranges in their order and nothing between them", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const buffer = new ScatterBuffer(32);
  buffer.add(20, 4);
  buffer.add(3, 2);
  buffer.add(8, 8);
  sendBytes(client.descriptor, counting(9));
  awaitEvents(server, EPOLLIN);
  strictEqual(buffer.receive(server.descriptor), 9);
  const expected = new Array<number>(32).fill(0);
  expected.splice(20, 4, 1, 2, 3, 4);
  expected.splice(3, 2, 5, 6);
  expected.splice(8, 3, 7, 8, 9);
  deepStrictEqual([...buffer.bytes], expected);
});

Deno.test("no more is received than the ranges hold; the rest waits", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const buffer = new ScatterBuffer(8);
  buffer.add(0, 4);
  sendBytes(client.descriptor, counting(6));
  awaitEvents(server, EPOLLIN);
  strictEqual(buffer.receive(server.descriptor), 4);
  strictEqual(buffer.receive(server.descriptor), 2);
  deepStrictEqual([...buffer.bytes], [5, 6, 3, 4, 0, 0, 0, 0]);
});

Deno.test("an empty socket and the end of a stream are told apart", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const buffer = new ScatterBuffer(8);
  buffer.add(0, 8);
  strictEqual(buffer.receive(server.descriptor), -EAGAIN);
  client.finish();
  awaitEvents(server, EPOLLIN);
  strictEqual(buffer.receive(server.descriptor), 0);
});

Deno.test("a connection that the other side has reset is an errno", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const buffer = new ScatterBuffer(8);
  buffer.add(0, 8);
  client.reset();
  awaitEvents(server, EPOLLIN);
  strictEqual(buffer.receive(server.descriptor), -ECONNRESET);
});

Deno.test("sending to a connection that is gone is an errno", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  client.finish();
  const buffer = bufferOf(counting(8));
  buffer.add(0, 8);
  strictEqual(buffer.send(client.descriptor), -EPIPE);
  strictEqual(sendBytes(client.descriptor, counting(8)), -EPIPE);
  strictEqual(buffer.send(server.descriptor), 8);
});

Deno.test("what a socket did not take is all there in copyRest, and nothing twice", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  client.setOption(SOL_SOCKET, SO_SNDBUF, 4096);
  const source = counting(8 * 2 ** 20);
  const buffer = bufferOf(source);
  // Ranges of uneven lengths that cover all of the source.
  const step = 9001;
  for (let at = 0; at < source.length; at += step) {
    buffer.add(at, Math.min(step, source.length - at));
  }
  strictEqual(buffer.full, false);
  const count = buffer.send(client.descriptor);
  strictEqual(count > 0 && count < source.length, true, `${count} bytes taken`);
  const rest = new Uint8Array(source.length);
  const copied = buffer.copyRest(count, rest, 0);
  strictEqual(copied, source.length - count);
  strictEqual(equal(rest.subarray(0, copied), source.subarray(count)), true);
  strictEqual(equal(received(server.descriptor, count), source.subarray(0, count)), true);
});

Deno.test("copyRest skips as many bytes as were taken, wherever that is in the ranges", () => {
  const buffer = bufferOf(counting(64));
  for (const [start, length] of [[40, 3], [0, 0], [10, 1], [20, 4]] as const) {
    buffer.add(start, length);
  }
  const whole = [41, 42, 43, 11, 21, 22, 23, 24];
  for (let skip = 0; skip <= whole.length; skip++) {
    const target = new Uint8Array(12);
    strictEqual(buffer.copyRest(skip, target, 2), whole.length - skip);
    deepStrictEqual(
      [...target],
      [0, 0, ...whole.slice(skip), ...new Array<number>(2 + skip).fill(0)],
      `without the first ${skip}`,
    );
  }
});

Deno.test("a buffer says when it is full, and the kernel takes that many ranges and no more", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const buffer = bufferOf(counting(2048));
  for (let range = 0; range < 1024; range++) {
    strictEqual(buffer.full, false, `after ${range} ranges`);
    buffer.add(range * 2, 1);
  }
  strictEqual(buffer.full, true);
  strictEqual(buffer.send(client.descriptor), 1024);
  deepStrictEqual(
    received(server.descriptor, 1024),
    counting(2048).filter((_, index) => index % 2 === 0),
  );
  buffer.add(0, 1);
  strictEqual(buffer.send(client.descriptor), -EMSGSIZE);

  buffer.clear();
  strictEqual(buffer.full, false);
  strictEqual(buffer.length, 0);
  buffer.add(5, 2);
  strictEqual(buffer.length, 2);
  strictEqual(buffer.send(client.descriptor), 2);
  deepStrictEqual([...received(server.descriptor, 2)], [6, 7]);
});

Deno.test("pointers are the addresses of every grain of the buffer, and of nothing else", () => {
  const buffer = bufferOf(counting(4 * GRAIN + 1));
  for (let offset = 0; offset < buffer.bytes.length; offset += GRAIN) {
    const view = new Deno.UnsafePointerView(buffer.pointer(offset));
    strictEqual(view.getUint8(0), buffer.bytes[offset], `at ${offset}`);
    buffer.bytes[offset] = 0xee;
    strictEqual(view.getUint8(0), 0xee, "the same memory");
  }
  for (const offset of [-GRAIN, 1, GRAIN - 1, GRAIN + 1, 5 * GRAIN, NaN, Infinity]) {
    throws(() => buffer.pointer(offset), RangeError, `at ${offset}`);
  }
});

/** Reads until there are `length` bytes. */
function received(descriptor: number, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  for (let have = 0; have < length;) {
    const buffer = new ScatterBuffer(length - have);
    buffer.add(0, length - have);
    awaitEvents({ descriptor }, EPOLLIN);
    const count = buffer.receive(descriptor);
    if (count <= 0) throw new Error(`${count} instead of the other ${length - have} bytes`);
    whole.set(buffer.bytes.subarray(0, count), have);
    have += count;
  }
  return whole;
}

/** Without the megabytes of text that a failing deepStrictEqual would make. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
