import { readFileSync } from "node:fs";
import { errorText } from "../../error_text.ts";
import { parseAddress, specialAddress } from "../../addresses.ts";
import { encodeNumber } from "../../kernel/maps.ts";
import { logger } from "../../log.ts";
import type { BpfMap } from "../../native/bpf_map.ts";
import { MirroredMap } from "./mirrored_map.ts";

const log = logger("node");

/** kubelet's probes come from one of these; bridges come and go with the CNI's configuration. */
const REFRESH_MILLISECONDS = 10_000;

/**
 * Keeps the kernel's map of the node's own addresses, from which strict pods may be connected:
 * those of the agent's network namespace and of process 1's, which is the node's own when the
 * agent's is not.
 */
export class NodeAddresses implements Disposable {
  readonly #map: MirroredMap;
  #content: string | undefined;
  readonly #directories: readonly string[];
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(map: BpfMap, procRoot: string) {
    this.#map = new MirroredMap(map);
    this.#directories = [`${procRoot}/self/net`, `${procRoot}/1/net`];
    this.refresh();
    this.#timer = setInterval(() => this.refresh(), REFRESH_MILLISECONDS);
  }

  refresh(): void {
    const addresses = new Set<string>();
    try {
      for (const directory of this.#directories) {
        const ipv4 = readFileSync(`${directory}/fib_trie`, "utf8");
        const ipv6 = readIfPresent(`${directory}/if_inet6`); // absent without IPv6
        for (const address of localAddresses(ipv4, ipv6)) addresses.add(address.toHex());
      }
    } catch (error) {
      // Kept as they are: an address that has gone does less harm than refusing kubelet's probes.
      log.warn("this node's addresses cannot be read: {error}", { error: errorText(error) });
      return;
    }
    const content = [...addresses].sort().join();
    if (content === this.#content) return;
    this.#content = content;
    this.#map.apply(new Map([...addresses].map((hex) => [hex, encodeNumber(1)])));
  }

  /** How many entries of the kernel's map were wrong. */
  audit(): number {
    return this.#map.audit();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}

/**
 * The addresses that /proc/PID/net/fib_trie (entries `/32 host LOCAL`, each below its address) and
 * if_inet6 (32 hexadecimal digits first) list, 16 bytes each; loopback's are left out, and
 * link-local ones, which anybody may have on another link.
 */
export function localAddresses(fibTrie: string, ifInet6: string): Uint8Array[] {
  const found: Uint8Array[] = [];
  let last = "";
  for (const line of fibTrie.split("\n")) {
    last = /\|-- (\S+)/.exec(line)?.[1] ?? last;
    if (line.includes("/32 host LOCAL") && !last.startsWith("127.")) found.push(parseAddress(last));
  }
  for (const line of ifInet6.split("\n")) {
    const hex = /^([0-9a-f]{32}) /.exec(line)?.[1];
    const address = hex === undefined ? undefined : Uint8Array.fromHex(hex);
    if (address !== undefined && specialAddress(address) === undefined) found.push(address);
  }
  return found;
}

function readIfPresent(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}
