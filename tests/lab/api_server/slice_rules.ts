/**
 * What the API server refuses of EndpointSlices.
 * kubernetes/pkg/apis/discovery/validation/validation.go
 */
import { addressFamily, parseAddress, specialAddress } from "../../../src/addresses.ts";
import { fieldAt, type KubeObject, listAt, textAt } from "./objects.ts";
import { isDNS1123Label, isDNS1123Subdomain, type Violation } from "./metadata_rules.ts";

/** ValidateEndpointSliceCreate */
export function sliceViolations(slice: KubeObject): Violation[] {
  const type = textAt(slice, "addressType");
  const [endpoints, ports] = [listAt(slice, "endpoints"), listAt(slice, "ports")];
  const names = ports.map((port) => textAt(port, "name"));
  return [
    ...(["IPv4", "IPv6", "FQDN"].includes(type)
      ? []
      : [{ field: "addressType", why: `Unsupported value: "${type}"` }]),
    ...tooMany("endpoints", endpoints.length, 1000),
    ...tooMany("ports", ports.length, 100),
    ...endpoints.slice(0, 1000).flatMap((endpoint, index) =>
      endpointViolations(`endpoints[${index}]`, type, endpoint)
    ),
    ...ports.flatMap((port, index) => portViolations(`ports[${index}]`, port)),
    ...(new Set(names).size === names.length ? [] : [{ field: "ports", why: "Duplicate value" }]),
  ];
}

function endpointViolations(field: string, type: string, endpoint: unknown): Violation[] {
  const addresses = listAt(endpoint, "addresses").map(String);
  const nodeName = textAt(endpoint, "nodeName");
  return [
    ...(addresses.length === 0
      ? [{ field: `${field}.addresses`, why: "Required value: must contain at least 1 address" }]
      : []),
    ...tooMany(`${field}.addresses`, addresses.length, 100),
    ...addresses.flatMap((address, index) => {
      const why = /^IPv[46]$/.test(type) ? addressFault(type, address) : undefined;
      const where = `${field}.addresses[${index}]`;
      return why === undefined
        ? []
        : [{ field: where, why: `Invalid value: "${address}": ${why}` }];
    }),
    ...(nodeName === "" || isDNS1123Subdomain(nodeName) === undefined
      ? []
      : [{ field: `${field}.nodeName`, why: `Invalid value: "${nodeName}"` }]),
  ];
}

/** IsValidIPv4Address, IsValidIPv6Address, ValidateNonSpecialIP */
function addressFault(type: string, text: string): string | undefined {
  try {
    const address = parseAddress(text);
    if (`IPv${addressFamily(address)}` !== type) return `must be a valid ${type} address`;
    const kind = specialAddress(address);
    const isLocalMulticast = kind === "multicast" && /^(224\.0\.0\.|ff.2:)/.test(text);
    return kind === "loopback" || kind === "link-local" || isLocalMulticast ||
        text === "0.0.0.0" || text === "::"
      ? "may not be unspecified, loopback, link-local or link-local multicast"
      : undefined;
  } catch {
    return `must be a valid ${type} address`;
  }
}

function portViolations(field: string, port: unknown): Violation[] {
  const name = textAt(port, "name");
  const protocol = fieldAt(port, "protocol") ?? "TCP"; // the default
  const number = Number(fieldAt(port, "port") ?? 1);
  return [
    ...(name === "" || isDNS1123Label(name) === undefined
      ? []
      : [{ field: `${field}.name`, why: `Invalid value: "${name}": ${isDNS1123Label(name)}` }]),
    ...(["TCP", "UDP", "SCTP"].includes(String(protocol))
      ? []
      : [{ field: `${field}.protocol`, why: `Unsupported value: "${protocol}"` }]),
    ...(Number.isInteger(number) && number >= 1 && number <= 65535
      ? []
      : [{ field: `${field}.port`, why: `Invalid value: ${number}` }]),
  ];
}

function tooMany(field: string, count: number, most: number): Violation[] {
  return count <= most
    ? []
    : [{ field, why: `Too many: ${count}: must have at most ${most} items` }];
}
