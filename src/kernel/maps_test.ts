/**
 * The layouts and names of maps.ts and redirector.ts against the compiled object
 * (scripts/build-bpf).
 */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { parseAddress } from "../addresses.ts";
import {
  CAPACITY,
  cookieOf,
  decodeEndpoint,
  decodePeer,
  decodeText,
  encodeEndpoint,
  encodeId,
  encodeIdentity,
  encodePeer,
  encodePod,
  encodeSocketKey,
  LAYOUT,
  type MapName,
  MAPS,
  openMap,
  SOCKET_STORAGES,
} from "./maps.ts";
import { PROGRAMS } from "./redirector.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const OBJECT = `${ROOT}build/redirect.bpf.o`;

/** The kernel cuts longer names off (BPF_OBJ_NAME_LEN, linux/bpf.h, with its NUL). */
const MAX_NAME = 15;

Deno.test("every struct has the size and the field offsets of the object's BTF", async () => {
  const structs = await structsOf();
  for (const [name, { size, ...offsets }] of Object.entries(LAYOUT)) {
    const struct = structs.get(name);
    strictEqual(size, struct?.size, `size of struct ${name}`);
    for (const [field, offset] of Object.entries(offsets)) {
      strictEqual(offset, struct?.offsets.get(field), `${name}.${field}`);
    }
  }
});

Deno.test("no field of a struct is left out", async () => {
  const structs = await structsOf();
  const { address: _, ...layouts } = LAYOUT; // its one field is an array of words
  for (const name of Object.keys(layouts) as (keyof typeof layouts)[]) {
    const fields = [...structs.get(name)?.offsets.keys() ?? []].filter((field) =>
      field !== "padding"
    );
    deepStrictEqual(Object.keys(LAYOUT[name]).filter((key) => key !== "size"), fields, name);
  }
});

Deno.test("the maps are the object's, with its key and value sizes", async () => {
  const { maps } = await inspect();
  deepStrictEqual(
    [...Object.keys(MAPS), ...SOCKET_STORAGES].sort(),
    maps.map(({ name }) => name).sort(),
  );
  for (const { name, keySize, valueSize } of maps) {
    strictEqual(name.length <= MAX_NAME, true, `${name} would be cut off in the kernel`);
    if (!isMapName(name)) continue;
    const map = openMap(name, 3);
    deepStrictEqual([map.name, map.keySize, map.valueSize], [name, keySize, valueSize]);
  }
});

Deno.test("the bounds that are checked before the maps are the maps' own", async () => {
  const { maps } = await inspect();
  const entries = new Map(maps.map(({ name, entries }) => [name, entries]));
  for (const [name, most] of Object.entries(CAPACITY)) strictEqual(entries.get(name), most, name);
});

Deno.test("the programs are the object's, each with the attach type of its section", async () => {
  const { programs } = await inspect();
  deepStrictEqual(
    { ...PROGRAMS },
    Object.fromEntries(programs.map(({ name, attachType }) => [name, attachType])),
  );
  for (const { name } of programs) {
    strictEqual(name.length <= MAX_NAME, true, `${name} would be cut off in the kernel`);
  }
});

Deno.test("a socket key is the cookie, the address and the port in network order, padding zero", () => {
  const key = encodeSocketKey(0x1122334455667788n, endpoint("10.1.2.3", 0x1f90));
  deepStrictEqual(
    [...key],
    [
      ...[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
      ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3],
      ...[0x1f, 0x90, 0, 0],
      ...[0, 0, 0, 0],
    ],
  );
  for (const cookie of [0n, 1n, 2n ** 32n, 2n ** 64n - 1n]) {
    strictEqual(cookieOf(encodeSocketKey(cookie, endpoint("::1", 1))), cookie);
  }
});

Deno.test("an endpoint comes back from its bytes, both families, every port", () => {
  deepStrictEqual(
    [...encodeEndpoint(endpoint("fd00::1:2", 443))],
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0x01, 0xbb, 0, 0],
  );
  for (const address of ["0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "fd00::1", "ff02::1"]) {
    for (const port of [0, 1, 255, 256, 65535]) {
      const there = endpoint(address, port);
      deepStrictEqual(decodeEndpoint(encodeEndpoint(there)), there);
    }
  }
  const bytes = encodeEndpoint(endpoint("10.0.0.1", 80));
  const { address } = decodeEndpoint(bytes);
  bytes.fill(0xee);
  deepStrictEqual(address, parseAddress("10.0.0.1"), "the decoded address is a copy");
});

Deno.test("a key of the pods map is the cookie in the processor's order", () => {
  deepStrictEqual([...encodeId(0x0102030405060708n)], [8, 7, 6, 5, 4, 3, 2, 1]);
  strictEqual(encodeId(1n).length, MAPS.pods.key);
});

Deno.test("a pod is its two addresses, zero where it has none, and the outbound port", () => {
  const ipv4 = parseAddress("10.0.0.7");
  const ipv6 = parseAddress("fd00::7");
  const none = new Array<number>(16).fill(0);
  const port = [0x46, 0x50, 0, 0];
  for (
    const [pod, expected] of [
      [{ ipv4, ipv6 }, [...ipv4, ...ipv6, ...port]],
      [{ ipv4, ipv6: undefined }, [...ipv4, ...none, ...port]],
      [{ ipv4: undefined, ipv6 }, [...none, ...ipv6, ...port]],
      [{ ipv4: undefined, ipv6: undefined }, [...none, ...none, ...port]],
    ] as const
  ) {
    deepStrictEqual([...encodePod({ ...pod, outboundPort: 18000 })], expected);
  }
});

Deno.test("a peer and an identity come back from their bytes", () => {
  deepStrictEqual([
    ...encodePeer({ identity: 0x01020304, generation: 5, ready: true, slice: 0x0607 }),
  ], [
    ...[4, 3, 2, 1],
    ...[5, 0, 0, 0],
    ...[1, 0],
    ...[7, 6],
  ]);
  for (const ready of [false, true]) {
    const largest = { identity: 2 ** 32 - 1, generation: 2 ** 32 - 1, ready, slice: 2 ** 16 - 1 };
    deepStrictEqual(decodePeer(encodePeer(largest)), largest);
  }
  const longest = `spiffe://${"t".repeat(255)}/ns/${"n".repeat(63)}/sa/${"s".repeat(253)}`;
  for (const id of ["", "spiffe://td/ns/shop/sa/web", longest]) {
    strictEqual(decodeText(encodeIdentity(id)), id);
  }
  throws(() => encodeIdentity(`${longest}${"x".repeat(10)}`), RangeError);
});

function endpoint(address: string, port: number): { address: Uint8Array; port: number } {
  return { address: parseAddress(address), port };
}

function isMapName(name: string): name is MapName {
  return name in MAPS;
}

interface BtfType {
  readonly kind: string;
  readonly name: string;
  readonly size?: number;
  readonly members?: readonly { readonly name: string; readonly bits_offset: number }[];
}

/** The named structs of the object's BTF: size and field offsets in bytes. */
async function structsOf(): Promise<Map<string, { size: number; offsets: Map<string, number> }>> {
  const { types }: { types: BtfType[] } = JSON.parse(
    await output("bpftool", "btf", "dump", "file", OBJECT, "--json"),
  );
  return new Map(
    types.filter(({ kind }) => kind === "STRUCT").map(({ name, size = 0, members = [] }) => [
      name,
      { size, offsets: new Map(members.map((field) => [field.name, field.bits_offset / 8])) },
    ]),
  );
}

/** What libbpf makes of the object: the sections' names decide the attach types. */
const INSPECTOR = `
#include <bpf/libbpf.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct bpf_object *object = argc == 2 ? bpf_object__open_file(argv[1], NULL) : NULL;
	struct bpf_program *program;
	struct bpf_map *map;
	if (!object)
		return 1;
	bpf_object__for_each_program(program, object)
		printf("program %s %d\\n", bpf_program__name(program), bpf_program__expected_attach_type(program));
	bpf_object__for_each_map(map, object)
		printf("map %s %u %u %u\\n", bpf_map__name(map), bpf_map__key_size(map), bpf_map__value_size(map),
		       bpf_map__max_entries(map));
	bpf_object__close(object);
	return 0;
}
`;

async function inspect(): Promise<{
  programs: { name: string; attachType: number }[];
  maps: { name: string; keySize: number; valueSize: number; entries: number }[];
}> {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/inspect.c`, INSPECTOR);
    await output("clang", "-Wall", "-o", `${directory}/inspect`, `${directory}/inspect.c`, "-lbpf");
    const lines = (await output(`${directory}/inspect`, OBJECT)).trim().split("\n")
      .map((line) => line.split(" "));
    const number = (text: string | undefined) => Number(text ?? NaN);
    return {
      programs: lines.filter(([kind]) => kind === "program")
        .map(([, name = "", attachType]) => ({ name, attachType: number(attachType) })),
      maps: lines.filter(([kind]) => kind === "map")
        .map(([, name = "", keySize, valueSize, entries]) => ({
          name,
          keySize: number(keySize),
          valueSize: number(valueSize),
          entries: number(entries),
        })),
    };
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function output(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const decoder = new TextDecoder();
  strictEqual(success, true, decoder.decode(stderr));
  return decoder.decode(stdout);
}
