/** The kernel's answers by netlink, well-formed and not. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { readdirSync } from "node:fs";
import { attribute, attributes, decodeAnswer, Netlink, NETLINK_SOCK_DIAG } from "./netlink.ts";
import { decodeSocket, SocketDiagnosis } from "./sock_diag.ts";

/** `struct nlmsghdr` and a payload. */
function message(type: number, sequence: number, payload: number[], length?: number): number[] {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, length ?? 16 + payload.length, true);
  view.setUint16(4, type, true);
  view.setUint32(8, sequence, true);
  const padding = new Array<number>((4 - payload.length % 4) % 4).fill(0);
  return [...new Uint8Array(view.buffer), ...payload, ...padding];
}

Deno.test("an answer is its messages up to the one that ends it", () => {
  const bytes = Uint8Array.from([
    ...message(20, 7, [1, 2, 3]),
    ...message(20, 6, [9]), // to an earlier request
    ...message(20, 7, [4]),
    ...message(3, 7, [0, 0, 0, 0]),
    ...message(20, 7, [5]),
  ]);
  deepStrictEqual(decodeAnswer(bytes, 7), {
    messages: [
      { type: 20, payload: Uint8Array.of(1, 2, 3) },
      { type: 20, payload: Uint8Array.of(4) },
    ],
    code: 0,
  });
  strictEqual(decodeAnswer(Uint8Array.from(message(20, 7, [1])), 7).code, undefined);
  strictEqual(decodeAnswer(Uint8Array.from(message(2, 7, [0xfe, 0xff, 0xff, 0xff])), 7).code, 2);
  strictEqual(decodeAnswer(Uint8Array.from(message(3, 7, [])), 7).code, 0);
});

Deno.test("lengths that contradict each other are refused", () => {
  for (
    const bytes of [
      [1, 2, 3],
      message(20, 7, [1, 2, 3, 4], 15),
      message(20, 7, [1, 2, 3, 4], 0),
      message(20, 7, [1, 2, 3, 4], 21),
      message(20, 7, [1, 2, 3, 4], 0xffffffff),
      [...message(20, 7, []), 0],
    ]
  ) throws(() => decodeAnswer(Uint8Array.from(bytes), 7), /a netlink message of/);
  for (const bytes of [[4], [3, 0, 1, 0], [0, 0, 1, 0], [9, 0, 1, 0, 1, 1, 1, 1]]) {
    throws(() => attributes(Uint8Array.from(bytes)), /a netlink attribute of/);
  }
});

Deno.test("attributes come back, and their padding does not", () => {
  const bytes = Uint8Array.from([
    ...attribute(1, Uint8Array.of(1, 2, 3, 4, 5)),
    ...attribute(0x8002, attribute(3, Uint8Array.of(6))),
  ]);
  strictEqual(bytes.length, 12 + 12);
  const found = attributes(bytes);
  deepStrictEqual([...found.keys()], [1, 2]);
  deepStrictEqual(found.get(1), Uint8Array.of(1, 2, 3, 4, 5));
  deepStrictEqual(attributes(found.get(2) ?? bytes).get(3), Uint8Array.of(6));
});

Deno.test("what is no socket's description is none", () => {
  const whole = new Uint8Array(72);
  whole[0] = 2;
  whole[1] = 1;
  strictEqual(decodeSocket(whole)?.state, "established");
  strictEqual(decodeSocket(whole.slice(0, 71)), undefined);
  strictEqual(decodeSocket(Uint8Array.from([...whole].with(0, 1))), undefined);
  strictEqual(decodeSocket(Uint8Array.from([...whole].with(1, 13))), undefined);
  strictEqual(decodeSocket(new Uint8Array(0)), undefined);
});

Deno.test("what the kernel refuses is an error with its errno, and the socket goes on", () => {
  using netlink = new Netlink(NETLINK_SOCK_DIAG);
  for (let round = 0; round < 2; round++) {
    throws(() => netlink.ask("nonsense", 99, 4, new Uint8Array(0)), {
      name: "SystemError",
      call: "nonsense",
      errno: 22,
    });
  }
});

Deno.test("a list is as long as it may be, and says when it was cut", () => {
  const listeners = [1, 2].map(() => Deno.listen({ port: 0 }));
  try {
    using diagnosis = new SocketDiagnosis();
    const whole = diagnosis.tcpSockets(["listening"]);
    strictEqual(whole.isComplete, true);
    for (const { addr } of listeners) {
      const { port } = addr as Deno.NetAddr;
      strictEqual(whole.sockets.some(({ local }) => local.port === port), true);
    }
    const cut = diagnosis.tcpSockets(["listening"], undefined, whole.sockets.length - 1);
    strictEqual(cut.isComplete, false);
    strictEqual(cut.sockets.length, whole.sockets.length - 1);
  } finally {
    for (const listener of listeners) listener.close();
  }
});

Deno.test("asking leaves no descriptor open", () => {
  const open = () => readdirSync("/proc/self/fd").length;
  const before = open();
  for (let round = 0; round < 50; round++) {
    using diagnosis = new SocketDiagnosis();
    diagnosis.tcpSockets(["listening"]);
  }
  strictEqual(open(), before);
});
