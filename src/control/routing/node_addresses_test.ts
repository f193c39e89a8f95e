import { deepStrictEqual } from "node:assert/strict";
import { formatAddress } from "../../addresses.ts";
import { localAddresses } from "./node_addresses.ts";

const FIB_TRIE = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.76.0.0/24 2 0 2
        |-- 10.76.0.0
           /24 link UNICAST
        |-- 10.76.0.1
           /32 host LOCAL
        |-- 10.76.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
`;
const IF_INET6 = `fd770001000000000000000000000001 03 40 00 80     cni0
fe800000000000000000000000000001 03 40 20 80     cni0
00000000000000000000000000000001 01 80 10 80       lo
`;

Deno.test("a node's addresses are those its kernel says are local", () => {
  deepStrictEqual(localAddresses(FIB_TRIE, IF_INET6).map(formatAddress), [
    "10.76.0.1",
    "fd77:1::1",
  ]);
  deepStrictEqual(localAddresses("", ""), []);
});
