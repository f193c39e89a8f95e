/**
 * What the API server refuses of a pod's status: ValidatePodStatusUpdate in
 * kubernetes/pkg/apis/core/validation.
 */
import { addressFamily, parseAddress } from "../../../src/addresses.ts";
import { isQualifiedName, type Violation } from "./metadata_rules.ts";
import { type KubeObject, listAt, textAt } from "./objects.ts";

export function podStatusViolations(pod: KubeObject, old: KubeObject | undefined): Violation[] {
  const before = textAt(old, "status.qosClass");
  return [
    ...addressViolations(pod),
    ...listAt(pod, "status.conditions").flatMap((condition) => {
      const type = textAt(condition, "type");
      const why = isQualifiedName(type);
      return why === undefined
        ? []
        : [{ field: "status.conditions.type", why: invalid(type, why) }];
    }),
    ...(before === "" || textAt(pod, "status.qosClass") === before
      ? []
      : [{ field: "status.qosClass", why: "Invalid value: field is immutable" }]),
  ];
}

/**
 * validatePodIPs: each an address, none twice, at most one of each family, and podIP the first of
 * them.
 */
function addressViolations(pod: KubeObject): Violation[] {
  const first = textAt(pod, "status.podIP");
  const all = listAt(pod, "status.podIPs").map((one) => textAt(one, "ip"));
  const field = "status.podIPs";
  const violations: Violation[] = [];
  const families: number[] = [];
  for (const address of all.length === 0 && first !== "" ? [first] : all) {
    try {
      families.push(addressFamily(parseAddress(address)));
    } catch {
      violations.push({ field, why: invalid(address, "must be a valid IP address") });
    }
  }
  if (new Set(families).size !== families.length) {
    violations.push({
      field,
      why: invalid(all.join(), "may specify no more than one IP for each IP family"),
    });
  }
  if (first !== "" && all[0] !== undefined && first !== all[0]) {
    violations.push({ field, why: invalid(all.join(), "podIP must be the first of them") });
  }
  return violations;
}

function invalid(value: string, why: string): string {
  return `Invalid value: "${value.slice(0, 300)}": ${why}`;
}
