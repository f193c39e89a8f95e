/** The listeners of a pod in a network namespace: needs root. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { OUTBOUND_PORT, TUNNEL_PORT } from "../../constants.ts";
import { listeners } from "../../kernel/plain_connections.ts";
import { withNamespaces } from "../../kernel/places_for_tests.ts";
import { closeListeners, openListeners } from "./listeners.ts";
import { ROOT } from "../../root_for_tests.ts";

Deno.test(
  "what is open for a given-up enrolment is no stranger's",
  ROOT,
  () =>
    withNamespaces(({ namespace, ipv4, ipv6 }) => {
      const one = openListeners(namespace, [ipv4, ipv6], 2);
      strictEqual(one.outboundPort, OUTBOUND_PORT);
      for (const socket of one.locks) socket[Symbol.dispose]();
      const two = openListeners(namespace, [ipv4, ipv6], 2);
      closeListeners(one);
      closeListeners(two);
      deepStrictEqual(listeners(namespace), []);
    }),
);

Deno.test(
  "who listens at the tunnel port, and shares it, keeps a pod from being enrolled",
  ROOT,
  () =>
    withNamespaces(async ({ name, namespace, ipv4 }) => {
      const script = `
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, 15, 1)
s.bind(("${ipv4}", ${TUNNEL_PORT}))
s.listen(1)
print("ready", flush=True)
sys.stdin.read()
`;
      const thief = new Deno.Command("ip", {
        args: ["netns", "exec", name, "python3", "-c", script],
        stdin: "piped",
        stdout: "piped",
      }).spawn();
      try {
        await thief.stdout.getReader().read();
        throws(() => openListeners(namespace, [ipv4], 2), /shares port 18443/);
        strictEqual(listeners(namespace).length, 1, "nothing of ours is left");
      } finally {
        await thief.stdin.close();
        await thief.status;
      }
    }),
);
