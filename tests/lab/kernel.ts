/**
 * What the kernel holds of the gateway, asked by the system's own tools: no code of the gateway's
 * but to write maps.
 */
import { type MapName, openMap } from "../../src/kernel/maps.ts";
import type { BpfMap } from "../../src/native/bpf_map.ts";
import { libbpf } from "../../src/native/libbpf.ts";
import { libc } from "../../src/native/libc.ts";
import type { Place } from "./place.ts";

/**
 * One TCP socket of a namespace, as `ss` shows it. Its answers come from no hook of any program.
 */
export interface TcpSocket {
  /** "ESTAB", "LISTEN", … */
  state: string;
  /** "address:port"; IPv4 in its own form also for an IPv6 socket, IPv6 in brackets. */
  local: string;
  peer: string;
}

export async function tcpSockets(place: Place): Promise<TcpSocket[]> {
  const { code, stdout, stderr } = await place.run(["ss", "-Htna"]);
  if (code !== 0) throw new Error(`ss ended with ${code}: ${stderr}`);
  return stdout.split("\n").filter(Boolean).map((line) => {
    const [state = "", , , local = "", peer = ""] = line.split(/\s+/);
    return { state, local: unmapped(local), peer: unmapped(peer) };
  });
}

/** "address:port" as {@link tcpSockets} writes it. */
export function endpoint(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The names of the eBPF programs that are attached to a cgroup. */
export async function attachedPrograms(cgroup: string): Promise<string[]> {
  const programs = await bpftool<{ name: string }[]>("cgroup", "show", cgroup);
  return programs.map(({ name }) => name).sort();
}

/** The keys of a pinned map, each as hexadecimal text. */
export async function mapKeys(stateDirectory: string, map: string): Promise<string[]> {
  const path = `${stateDirectory}/maps/${map}`;
  const entries = await bpftool<{ key: string[] }[]>("map", "dump", "pinned", path);
  return entries.map(({ key }) => key.map((byte) => byte.replace("0x", "")).join(""));
}

/** Whether a pinned map has a key, given as bytes. */
export async function mapHas(
  stateDirectory: string,
  map: string,
  key: Uint8Array,
): Promise<boolean> {
  const path = `${stateDirectory}/maps/${map}`;
  const { code } = await new Deno.Command("bpftool", {
    args: ["map", "lookup", "pinned", path, "key", ...[...key].map(String)],
    stdout: "null",
    stderr: "null",
  }).output();
  return code === 0;
}

/** A pinned map, to write what no agent would. */
export function pinnedMap(stateDirectory: string, name: MapName): BpfMap & Disposable {
  const path = new TextEncoder().encode(`${stateDirectory}/maps/${name}\0`);
  const descriptor = libbpf.bpf_obj_get(path);
  if (descriptor < 0) throw new Error(`bpf_obj_get(${name}): errno ${-descriptor}`);
  return Object.assign(openMap(name, descriptor), {
    [Symbol.dispose]: () => void libc.close(descriptor),
  });
}

/** Every path below a directory, in order; none when it does not exist. */
export async function pathsBelow(directory: string): Promise<string[]> {
  const paths: string[] = [];
  try {
    for await (const { name, isDirectory } of Deno.readDir(directory)) {
      paths.push(`${directory}/${name}`);
      if (isDirectory) paths.push(...await pathsBelow(`${directory}/${name}`));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return paths.sort();
}

/**
 * What bpftool lists. It may complain in between and succeed all the same (on a kernel without BTF
 * it cannot name types): as an element `{"error": …}` of the list, or on a line before it.
 */
async function bpftool<T extends object[]>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await new Deno.Command("bpftool", { args: ["-j", ...args] })
    .output();
  const text = new TextDecoder().decode(stdout);
  if (code !== 0) {
    throw new Error(`bpftool ${args.join(" ")}: ${text}${new TextDecoder().decode(stderr)}`);
  }
  return listed(text) as T;
}

/** Exported for its test. */
export function listed(text: string): object[] {
  const list = /^(?:\{"error":"(?:[^"\\]|\\.)*"\}\s*)*(.*)$/s.exec(text.trim())?.[1] ?? "";
  const values = JSON.parse(list === "" ? "[]" : list) as object[];
  return values.filter((value) => !("error" in value));
}

function unmapped(text: string): string {
  return text.replace(/^\[::ffff:([0-9.]+)\]/, "$1");
}
