/** What the API server refuses of Events. kubernetes/pkg/apis/core/validation/events.go */
import { type Fields, fieldsAt, type KubeObject, textAt } from "./objects.ts";
import { isQualifiedName, type Violation } from "./metadata_rules.ts";

/** ValidateEventCreate for events.k8s.io/v1, the strict one. */
export function eventViolations(event: KubeObject): Violation[] {
  return [
    ...legacyViolations({ ...event, involvedObject: event.regarding, message: event.note }),
    ...(textAt(event, "eventTime") === "" ? [required("eventTime")] : []),
    ...(["Normal", "Warning"].includes(textAt(event, "type"))
      ? []
      : [invalid("type", `has invalid value: ${textAt(event, "type")}`)]),
    ...[
      "deprecatedFirstTimestamp",
      "deprecatedLastTimestamp",
      "deprecatedCount",
      "deprecatedSource",
    ]
      .filter((field) => event[field] !== undefined && event[field] !== null)
      .map((field) => invalid(field, "needs to be unset")),
  ];
}

/** legacyValidateEvent, which every Event must pass, those of core/v1 too. */
export function legacyViolations(event: KubeObject): Violation[] {
  const { namespace = "" } = event.metadata;
  const involved = textAt(event, "involvedObject.namespace");
  const noMatch = [invalid("involvedObject.namespace", "does not match event.namespace")];
  if (textAt(event, "eventTime") === "") {
    const isMatch = involved === "" ? ["", "default"].includes(namespace) : involved === namespace;
    return isMatch ? [] : noMatch;
  }
  const isClusterWide = involved === "" && !["default", "kube-system"].includes(namespace);
  const controller = textAt(event, "reportingController");
  const unqualified = controller === "" ? "" : isQualifiedName(controller) ?? "";
  return [
    ...(isClusterWide ? noMatch : []), // another namespace than its own is taken
    ...(controller === "" ? [required("reportingController")] : []),
    ...(unqualified === "" ? [] : [invalid("reportingController", unqualified)]),
    ...["reportingInstance", "action", "reason"].flatMap((field) => [
      ...(textAt(event, field) === "" ? [required(field)] : []),
      ...tooLong(field, textAt(event, field), 128),
    ]),
    ...tooLong("message", textAt(event, "message"), 1024),
  ];
}

/** The same Event as core/v1 shows it: a real server keeps one object for both. */
export function asCoreEvent(event: KubeObject): KubeObject {
  const { regarding, note, ...others } = event as KubeObject & Fields;
  return {
    ...others,
    apiVersion: "v1",
    kind: "Event",
    metadata: event.metadata,
    involvedObject: fieldsAt({ regarding }, "regarding"),
    message: String(note ?? ""),
    reportingComponent: textAt(event, "reportingController"),
    source: {},
    firstTimestamp: null,
    lastTimestamp: null,
  };
}

/** Limits count bytes. */
function tooLong(field: string, text: string, most: number): Violation[] {
  const { length } = new TextEncoder().encode(text);
  return length <= most ? [] : [invalid(field, `can have at most ${most} characters`)];
}

function required(field: string): Violation {
  return { field, why: "Required value" };
}

function invalid(field: string, why: string): Violation {
  return { field, why: `Invalid value: "": ${why}` };
}
