/**
 * The promise: however short connections are, and however many in a minute, no port is missing for
 * the next one.
 */
import assert from "node:assert/strict";
import { openScene } from "./lab/scene.ts";

const PORT = 9000;
/** More than an address has ports (28,232), which stay taken for a minute after the end. */
const COUNTS = { ipv4: 3_000, ipv6: 32_000 } as const;
const CLIENTS = 2;

/**
 * Whoever ends first keeps the port: the client here, and so the inbound relay towards the server.
 */
const CLIENT = (host: string, count: number) => `
import socket
for number in range(${count}):
    with socket.create_connection(("${host}", ${PORT}), timeout=20) as conn:
        conn.sendall(b"hello")
        conn.shutdown(socket.SHUT_WR)
        answer = b""
        while data := conn.recv(100):
            answer += data
    assert answer == b"hello", (number, answer)
`;

Deno.test("more short connections in a minute than there are ports", async (t) => {
  await using lab = await openScene();
  const [web, api] = [lab.pod("web"), lab.pod("api")];
  // Few, so that thousands say as much as tens of thousands would.
  await api.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40399"]);
  await api.serve("echo", PORT);
  for (const [family, host] of [["ipv4", api.ipv4!], ["ipv6", api.ipv6!]] as const) {
    await t.step(family, async () => {
      const source = CLIENT(host, COUNTS[family] / CLIENTS);
      const clients = Array.from(
        { length: CLIENTS },
        () => web.run(["python3", "-S", "-c", source], { timeoutMs: 120_000 }),
      );
      for (const { code, stderr } of await Promise.all(clients)) assert.equal(code, 0, stderr);
    });
  }
});
