/** What is found in network namespaces: needs root. */
import { deepStrictEqual, throws } from "node:assert/strict";
import { run, withNamespaces } from "../../kernel/places_for_tests.ts";
import { reachableAt } from "./namespace.ts";
import { ROOT } from "../../root_for_tests.ts";

Deno.test(
  "a namespace is reached at each global address, but for what is inside of it",
  ROOT,
  () =>
    withNamespaces(async ({ name, namespace, ipv4, ipv6 }) => {
      const ip = (...args: string[]) => run("ip", "-netns", name, ...args);
      deepStrictEqual(reachableAt(namespace).sort(), [ipv4, ipv6]);
      await ip("address", "add", "10.97.0.9/24", "dev", "eth0");
      await ip("link", "add", "docker0", "type", "bridge");
      await ip("address", "add", "172.17.0.1/16", "dev", "docker0");
      deepStrictEqual(reachableAt(namespace).sort(), [ipv4, "10.97.0.9", ipv6]);
      await ip("link", "add", "net1", "type", "veth", "peer", "name", "net2");
      await ip("address", "add", "192.168.7.1/24", "dev", "net1");
      deepStrictEqual(reachableAt(namespace).sort(), [ipv4, "10.97.0.9", "192.168.7.1", ipv6]);
    }),
);

Deno.test(
  "a namespace with more addresses than anybody needs is looked at no further",
  ROOT,
  () =>
    withNamespaces(async ({ name, namespace }) => {
      const batch = await Deno.makeTempFile();
      const lines = Array.from({ length: 1_030 }, (_, index) =>
        `address add 10.98.${index >> 8}.${index & 255}/32 dev eth0`);
      await Deno.writeTextFile(batch, lines.join("\n"));
      await run("ip", "-netns", name, "-batch", batch);
      await Deno.remove(batch);
      const many = /its network namespace has more than 1024 addresses/;
      throws(() =>
        reachableAt(namespace), many);
      throws(() => namespace.addresses(), many);
    }),
);
