import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { awaitEvents, connectedSockets } from "../../native/connected_sockets.ts";
import { EPOLLIN, EPOLLOUT } from "../../native/epoll.ts";
import { EPIPE } from "../../native/errno.ts";
import { ScatterBuffer } from "../../native/scatter.ts";
import { isCrowded, Pending } from "./pending.ts";

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SIZE = 131072;

/** A buffer of one range, filled with bytes that follow from `first`. */
function scatter(length: number, first = 0): ScatterBuffer {
  const buffer = new ScatterBuffer(length);
  for (let index = 0; index < length; index++) buffer.bytes[index] = (first + index) % 251;
  buffer.add(0, length);
  return buffer;
}

Deno.test("what is kept is sent once, in order, and then nothing is left", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const pending = new Pending();
  strictEqual(pending.empty, true);
  strictEqual(pending.flush(client.descriptor), 0, "nothing to do");
  pending.keep(scatter(10), 4);
  pending.keep(scatter(5, 100), 0);
  strictEqual(pending.empty, false);
  strictEqual(pending.flush(client.descriptor), 0);
  strictEqual(pending.empty, true);
  strictEqual(pending.flush(client.descriptor), 0);
  deepStrictEqual([...available(server.descriptor)], [4, 5, 6, 7, 8, 9, 100, 101, 102, 103, 104]);

  pending.keep(scatter(3, 200), 1);
  strictEqual(pending.flush(client.descriptor), 0);
  strictEqual(pending.empty, true);
  deepStrictEqual([...available(server.descriptor)], [201, 202], "and it can be used again");
});

Deno.test("a reader that is slow gets every byte in the end, however little each flush can send", () => {
  using sockets = connectedSockets("127.0.0.1", 16_384);
  const { client, server } = sockets;
  client.setOption(SOL_SOCKET, SO_SNDBUF, 4096);
  const sent = new Checksum();
  // Fills the connection itself first.
  const filler = scatter(4096);
  for (let count = 1; count > 0;) {
    count = filler.send(client.descriptor);
    sent.add(filler.bytes.subarray(0, Math.max(0, count)));
  }
  const pending = new Pending();
  pending.keep(scatter(SIZE, 7), 1);
  sent.add(scatter(SIZE, 7).bytes.subarray(1));
  strictEqual(pending.flush(client.descriptor), 0, "a full socket is no error");
  strictEqual(pending.empty, false);

  const received = new Checksum();
  let flushes = 0;
  for (; !pending.empty; flushes++) {
    received.add(available(server.descriptor));
    awaitEvents(client, EPOLLOUT);
    strictEqual(pending.flush(client.descriptor), 0);
  }
  client.finish();
  while (received.length < sent.length) {
    received.add(available(server.descriptor));
  }
  strictEqual(flushes > 1, true, "the test means nothing if one flush was enough");
  deepStrictEqual(received, sent);
  strictEqual(available(server.descriptor).length, 0, "and nothing after it");
});

Deno.test("a broken connection is told by its errno, and what was kept can be dropped", () => {
  using sockets = connectedSockets();
  const { client } = sockets;
  const pending = new Pending();
  pending.keep(scatter(10), 0);
  client.finish();
  strictEqual(pending.flush(client.descriptor), -EPIPE);
  strictEqual(pending.empty, false);
  pending.drop();
  strictEqual(pending.empty, true);
  pending.drop();
  strictEqual(pending.flush(-1), 0, "nothing is left to be sent anywhere");
});

Deno.test("more than one read can turn into is refused, not cut", () => {
  const pending = new Pending();
  pending.keep(scatter(SIZE), 0);
  throws(() => pending.keep(scatter(1), 0), RangeError);
  pending.drop();
});

Deno.test("a buffer that is used again shows nothing of the connection before", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const first = new Pending();
  first.keep(scatter(1000, 50), 0);
  first.drop();
  const [second, third] = [new Pending(), new Pending()];
  second.keep(scatter(3, 1), 0);
  third.keep(scatter(3, 9), 0);
  strictEqual(second.flush(client.descriptor), 0);
  strictEqual(third.flush(client.descriptor), 0);
  deepStrictEqual([...available(server.descriptor)], [1, 2, 3, 9, 10, 11]);
});

Deno.test("when many wait, what fits gets a small buffer, which grows when it must", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const crowd = Array.from({ length: 256 }, () => new Pending());
  strictEqual(isCrowded(), false);
  for (const each of crowd) each.keep(scatter(10), 0);
  strictEqual(isCrowded(), true);
  const pending = new Pending();
  pending.keep(scatter(20_000, 1), 0);
  pending.keep(scatter(20_000, 2), 0);
  for (const each of crowd) each.drop();
  strictEqual(isCrowded(), false);
  strictEqual(pending.flush(client.descriptor), 0);
  const expected = new Checksum();
  for (const seed of [1, 2]) expected.add(scatter(20_000, seed).bytes.subarray(0, 20_000));
  const received = new Checksum();
  while (received.length < 40_000) received.add(available(server.descriptor));
  deepStrictEqual(received, expected);
});

/** What waits at a socket, at least one byte unless its stream has ended. */
function available(descriptor: number): Uint8Array {
  const buffer = new ScatterBuffer(SIZE);
  buffer.add(0, SIZE);
  awaitEvents({ descriptor }, EPOLLIN);
  return buffer.bytes.subarray(0, Math.max(0, buffer.receive(descriptor)));
}

/** Stands for bytes, and their order, in a comparison whose failure can be read. */
class Checksum {
  length = 0;
  sum = 0;

  add(bytes: Uint8Array): void {
    this.length += bytes.length;
    for (const byte of bytes) this.sum = (Math.imul(this.sum, 31) + byte) | 0;
  }
}
