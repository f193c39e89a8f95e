import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { awaitEvents, connectedSockets } from "./connected_sockets.ts";
import { Bell, Epoll, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "./epoll.ts";
import { sendBytes } from "./socket.ts";

/** What one wait brought: events, key and tag of each, in the order of the keys. */
function waited(epoll: Epoll, milliseconds = 0): [events: number, key: number, tag: number][] {
  const count = epoll.wait(milliseconds);
  return Array.from({ length: count }, (_, index): [number, number, number] => [
    epoll.events(index),
    epoll.key(index),
    epoll.tag(index),
  ]).sort(([, a], [, b]) => a - b);
}

Deno.test("each event carries the key and the tag that its descriptor was added with", () => {
  using epoll = new Epoll();
  const numbers = [[0, 0], [1, 0xffff_ffff], [0x7fff_ffff, 2], [0xffff_ffff, 0x8000_0000]] as const;
  const bells = numbers.map(([key, tag]) => {
    const bell = new Bell();
    epoll.add(bell.descriptor, EPOLLIN, key, tag);
    return bell;
  });
  deepStrictEqual(waited(epoll), []);
  bells[2]?.ring();
  deepStrictEqual(waited(epoll), [[EPOLLIN, 0x7fff_ffff, 2]]);
  for (const bell of bells) bell.ring();
  deepStrictEqual(waited(epoll), numbers.map(([key, tag]) => [EPOLLIN, key, tag]));
  epoll.modify(bells[1]?.descriptor ?? -1, EPOLLOUT, 1, 9);
  deepStrictEqual(
    waited(epoll),
    numbers.map(([key, tag]) => key === 1 ? [EPOLLOUT, 1, 9] : [EPOLLIN, key, tag]),
    "each with its own events",
  );
  for (const bell of bells) bell[Symbol.dispose]();
  deepStrictEqual(waited(epoll), [], "a closed descriptor is gone from the set");
});

Deno.test("a modified descriptor reports by its new events, key and tag", () => {
  using epoll = new Epoll();
  using bell = new Bell();
  epoll.add(bell.descriptor, EPOLLIN, 1, 2);
  epoll.modify(bell.descriptor, EPOLLIN | EPOLLOUT, 3, 4);
  deepStrictEqual(waited(epoll), [[EPOLLOUT, 3, 4]]);
  bell.ring();
  deepStrictEqual(waited(epoll), [[EPOLLIN | EPOLLOUT, 3, 4]]);
  epoll.modify(bell.descriptor, 0, 3, 4);
  deepStrictEqual(waited(epoll), []);
});

Deno.test("an edge is reported once, a level as long as it lasts", () => {
  using epoll = new Epoll();
  using edge = new Bell();
  using level = new Bell();
  epoll.add(edge.descriptor, EPOLLIN | EPOLLET, 1, 0);
  epoll.add(level.descriptor, EPOLLIN, 2, 0);
  edge.ring();
  level.ring();
  deepStrictEqual(waited(epoll), [[EPOLLIN, 1, 0], [EPOLLIN, 2, 0]]);
  deepStrictEqual(waited(epoll), [[EPOLLIN, 2, 0]]);
  edge.ring();
  deepStrictEqual(waited(epoll), [[EPOLLIN, 1, 0], [EPOLLIN, 2, 0]]);
});

Deno.test("data, half-close and the end of a connection are told apart", () => {
  using sockets = connectedSockets();
  const { client, server } = sockets;
  const events = EPOLLIN | EPOLLOUT | EPOLLRDHUP;
  using epoll = new Epoll();
  epoll.add(server.descriptor, events, 7, 8);
  deepStrictEqual(waited(epoll), [[EPOLLOUT, 7, 8]]);
  sendBytes(client.descriptor, Uint8Array.of(1));
  awaitEvents(server, EPOLLIN);
  deepStrictEqual(waited(epoll), [[EPOLLIN | EPOLLOUT, 7, 8]]);
  client.finish();
  awaitEvents(server, EPOLLRDHUP);
  deepStrictEqual(waited(epoll), [[EPOLLIN | EPOLLOUT | EPOLLRDHUP, 7, 8]]);
  server.finish();
  awaitEvents(server, EPOLLHUP);
  deepStrictEqual(waited(epoll), [[events | EPOLLHUP, 7, 8]]);
});

Deno.test("more events than one wait returns come with the next ones", () => {
  using epoll = new Epoll();
  const bells = Array.from({ length: 600 }, () => new Bell());
  try {
    for (const [index, bell] of bells.entries()) {
      epoll.add(bell.descriptor, EPOLLIN | EPOLLET, index, index);
      bell.ring();
    }
    const keys = [...waited(epoll), ...waited(epoll)].map(([, key, tag]) => {
      strictEqual(tag, key);
      return key;
    });
    deepStrictEqual(keys.sort((a, b) => a - b), bells.map((_, index) => index));
  } finally {
    for (const bell of bells) bell[Symbol.dispose]();
  }
});

Deno.test("a wait lasts as long as it was told to when nothing comes", () => {
  using epoll = new Epoll();
  const start = performance.now();
  strictEqual(epoll.wait(50), 0);
  const lasted = performance.now() - start;
  strictEqual(lasted >= 49 && lasted < 1000, true, `${lasted} ms`);
});

Deno.test("a descriptor that cannot be added is an error that names it", () => {
  using epoll = new Epoll();
  throws(() => epoll.add(-1, EPOLLIN, 0, 0), {
    name: "SystemError",
    message: "epoll_ctl failed with EBADF: descriptor -1",
  });
  using bell = new Bell();
  epoll.add(bell.descriptor, EPOLLIN, 0, 0);
  throws(() => epoll.add(bell.descriptor, EPOLLIN, 0, 0), /EEXIST/);
});

Deno.test("a bell counts its rings, and is silent after it was quieted", () => {
  using epoll = new Epoll();
  using bell = new Bell();
  epoll.add(bell.descriptor, EPOLLIN, 0, 0);
  for (const rings of [1, 3, 1, 300]) {
    for (let ring = 0; ring < rings; ring++) bell.ring();
    strictEqual(epoll.wait(0), 1);
    strictEqual(bell.quiet(), rings);
    strictEqual(epoll.wait(0), 0);
  }
  strictEqual(bell.quiet(), 0, "nobody has rung since");
});

Deno.test("a ring on another thread ends a wait", async () => {
  using epoll = new Epoll();
  using bell = new Bell();
  epoll.add(bell.descriptor, EPOLLIN, 0, 0);
  const module = JSON.stringify(new URL("./epoll.ts", import.meta.url).href);
  // A pause, so that the other thread is waiting by then.
  const source = `
    import { Bell } from ${module};
    onmessage = ({ data }) => setTimeout(() => new Bell(data).ring(), 50);
    postMessage("ready");`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  try {
    await new Promise((resolve) => worker.onmessage = resolve);
    worker.postMessage(bell.descriptor);
    const start = performance.now();
    strictEqual(epoll.wait(10_000), 1);
    strictEqual(performance.now() - start < 5000, true);
    strictEqual(bell.quiet(), 1);
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
});
