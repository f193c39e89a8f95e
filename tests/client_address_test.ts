/**
 * The promise: both applications see the addresses that they would see without a gateway between
 * them.
 */
import assert from "node:assert/strict";
import { TUNNEL_PORT } from "../src/constants.ts";
import { openScene, WEB_AND_API } from "./lab/scene.ts";
import type { ClientResult } from "./lab/place.ts";
import type { LabProcess } from "./lab/process.ts";

const PORT = 9000;

Deno.test("client and server see each other's own addresses, whatever the socket", async (t) => {
  await using lab = await openScene([...WEB_AND_API, { name: "plain", node: "node-b" }]);
  const [web, api, plain] = [lab.pod("web"), lab.pod("api"), lab.pod("plain")];
  const server = await api.serve("hello", PORT);
  const bystander = await plain.serve("hello", PORT);
  const own = { [api.ipv4!]: web.ipv4!, [api.ipv6!]: web.ipv6!, [plain.ipv4!]: web.ipv4! };
  let number = 0;

  /** What both ends saw of one connection to `host`, as it must be. */
  async function check(client: ClientResult, host: string, by: LabProcess, isMapped = false) {
    const text = `line ${number}`;
    assert.equal(client.code, 0, client.stdout + client.stderr);
    const { getpeername, soPeername, getsockname } = client.result;
    const [address, port] = getsockname as [string, number];
    const shown = (ip: string) => isMapped ? `::ffff:${ip}` : ip;
    assert.deepEqual(getpeername, [shown(host), PORT], "the client's getpeername()");
    assert.deepEqual(soPeername, [shown(host), PORT], "the client's SO_PEERNAME");
    assert.equal(address, shown(own[host]!), "the client's getsockname()");
    const seen = await by.waitForEvent((event) => event.text === text);
    const client4or6 = host.includes(":") ? own[host]! : `::ffff:${own[host]}`; // of a v6 listener
    assert.deepEqual(seen.accept, [client4or6, port], "the server's accept()");
    assert.deepEqual(seen.getpeername, [client4or6, port], "the server's getpeername()");
  }

  const dial = (host: string, ...more: string[]) =>
    web.connect("who", host, PORT, "--text", `line ${++number}`, ...more);

  for (const host of api.addresses) {
    const any = host.includes(":") ? "::" : "0.0.0.0";
    const ways: Record<string, string[]> = {
      "an ordinary socket": [],
      "a non-blocking connect()": ["--how", "nonblocking"],
      "a socket bound to the pod's address": ["--bind", own[host]!],
      "a socket bound to any address": ["--bind", any],
      "a socket bound to a device": ["--how", "device"],
      "TCP Fast Open by sendto()": ["--how", "fastopen"],
      "TCP Fast Open by TCP_FASTOPEN_CONNECT": ["--how", "fastopen-connect"],
    };
    for (const [way, args] of Object.entries(ways)) {
      await t.step(
        `${way}, to ${host}`,
        async () => await check(await dial(host, ...args), host, server),
      );
    }
  }

  await t.step("an IPv6 socket that dials IPv4, as a JVM does", async () => {
    await check(await dial(api.ipv4!, "--mapped"), api.ipv4!, server, true);
    await check(await dial(api.ipv4!, "--mapped", "--bind", web.ipv4!), api.ipv4!, server, true);
  });

  await t.step("TCP Fast Open with data in the SYN", async () => {
    // linux/tcp.h: client and server, without cookies, on every listener.
    await web.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=0x607"]);
    for (const host of api.addresses) {
      await check(await dial(host, "--how", "fastopen"), host, server);
      await check(await dial(host, "--how", "fastopen-connect"), host, server);
    }
  });

  await t.step("a socket that a peer has refused dials another pod: nothing stale", async () => {
    const then = ["--then", `${plain.ipv4}:${PORT}`];
    const text = `line ${++number}`;
    const client = await web.connect("who", api.ipv4!, 1, "--text", text, ...then);
    await check(client, plain.ipv4!, bystander);
  });

  await t.step("a socket that another pod has refused dials a peer", async () => {
    const text = `line ${++number}`;
    const then = ["--then", `${api.ipv4}:${PORT}`];
    const client = await web.connect("who", plain.ipv4!, 1, "--text", text, ...then);
    await check(client, api.ipv4!, server);
  });

  await t.step("a server that listens with MPTCP, as programs in Go do by default", async () => {
    await using multipath = await api.serve("hello", PORT + 1, "--mptcp");
    for (const host of api.addresses) {
      const text = `line ${++number}`;
      const { result } = await web.connect("who", host, PORT + 1, "--text", text);
      const seen = await multipath.waitForEvent((event) => event.text === text);
      assert.deepEqual(seen.accept, seen.getpeername);
      const [address, port] = seen.accept as [string, number];
      assert.deepEqual([address.replace("::ffff:", ""), port], result.getsockname);
    }
  });

  // Its own getpeername() shows the relay: the kernel runs the hook for the MPTCP socket, but
  // connect()'s for the TCP socket below it.
  await t.step("a client that dials with MPTCP is encrypted, and the server sees it", async () => {
    await using capture = await lab.captureVeth(web);
    const text = "canary-mptcp";
    const { code, stdout } = await web.connect(
      "who",
      api.ipv4!,
      PORT,
      ...["--how", "mptcp", "--text", text],
    );
    assert.equal(code, 0, stdout);
    const seen = await server.waitForEvent((event) => event.text === text);
    assert.equal((seen.accept as [string, number])[0], `::ffff:${web.ipv4}`);
    const { isOnlyPort, contains } = await capture.stop();
    assert.equal(contains(text), 0);
    assert.ok(isOnlyPort(TUNNEL_PORT));
  });
});
