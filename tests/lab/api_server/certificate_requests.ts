import {
  type Fields,
  fieldsAt,
  isFields,
  type KubeObject,
  listAt,
  same,
  textAt,
} from "./objects.ts";
import type { Rules } from "./rules.ts";
import { invalid } from "./status.ts";

/** CertificateSigningRequests: who asked is for the server to say, and what was decided stays. */
export const certificateRules: Rules = {
  create(object, { user }) {
    const { username: _u, uid: _i, groups: _g, extra: _e, ...spec } = fieldsAt(object, "spec");
    object.spec = { ...spec, ...user };
    object.status = {};
  },
  update(object, old, { resource, subresource }) {
    const { name } = object.metadata;
    const refuse = (field: string, why: string) => invalid(resource, name, field, why);
    const [now, before] = [object, old].map(conditionsOf);
    if (subresource === "") {
      if (!same(object.spec, old.spec)) throw refuse("spec", "field is immutable");
      return;
    }
    const decided = (conditions: Fields[] = []) => conditions.filter(isDecision);
    const kept = decided(before).every((condition) => decided(now).some(sameType(condition)));
    const untouched = kept && decided(now).length === decided(before).length;
    if (subresource === "approval") {
      if (!kept) throw refuse("status.conditions", "updates may not remove a condition");
      // The approver decides and does not sign.
      object.status = { ...fieldsAt(object, "status"), ...certificateOf(old) };
      if (certificateOf(old).certificate === undefined) {
        delete fieldsAt(object, "status").certificate;
      }
    } else if (!untouched) {
      // The signer signs and does not decide.
      throw refuse(
        "status.conditions",
        "updates may not add or remove a condition of type Approved or Denied",
      );
    }
    const certificate = textAt(old, "status.certificate");
    if (certificate !== "" && textAt(object, "status.certificate") !== certificate) {
      throw refuse("status.certificate", "updates may not change a certificate that is set");
    }
    stampConditions(object);
  },
  validate(object, { resource }) {
    const { name } = object.metadata;
    const refuse = (field: string, why: string) => invalid(resource, name, field, why);
    if (!/^[a-z0-9.-]+\/[A-Za-z0-9._-]+$/.test(textAt(object, "spec.signerName"))) {
      throw refuse("spec.signerName", "must be a fully qualified domain and path");
    }
    if (listAt(object, "spec.usages").length === 0) throw refuse("spec.usages", "Required value");
    if (!isPem(textAt(object, "spec.request"), "CERTIFICATE REQUEST")) {
      throw refuse("spec.request", "PEM block type must be CERTIFICATE REQUEST");
    }
    const certificate = textAt(object, "status.certificate");
    if (certificate !== "" && !isPem(certificate, "CERTIFICATE")) {
      throw refuse("status.certificate", "must contain PEM blocks of type CERTIFICATE");
    }
    const types = (conditionsOf(object)).map(({ type }) => type);
    if (types.includes("Approved") && types.includes("Denied")) {
      throw refuse("status.conditions", "Approved and Denied conditions are mutually exclusive");
    }
    if (new Set(types).size !== types.length) {
      throw refuse("status.conditions", "Duplicate value");
    }
    for (const { type, status } of conditionsOf(object)) {
      if (status === "True" || !isDecision({ type })) continue;
      throw refuse("status.conditions", `status of ${type} must be "True"`);
    }
  },
};

function conditionsOf(object: KubeObject): Fields[] {
  return listAt(object, "status.conditions").filter(isFields);
}

const isDecision = ({ type }: Fields) => type === "Approved" || type === "Denied";
const sameType = ({ type }: Fields) => (other: Fields) => other.type === type;

function certificateOf(object: KubeObject): Fields {
  const { certificate } = fieldsAt(object, "status");
  return certificate === undefined ? {} : { certificate };
}

function stampConditions(object: KubeObject): void {
  if (conditionsOf(object).length === 0) return;
  const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
  const conditions = conditionsOf(object).map((condition) => ({
    lastUpdateTime: now,
    lastTransitionTime: now,
    ...condition,
  }));
  object.status = { ...fieldsAt(object, "status"), conditions };
}

/** Whether `base64` holds PEM text, all of its blocks of this label. */
function isPem(base64: string, label: string): boolean {
  try {
    const text = new TextDecoder().decode(Uint8Array.fromBase64(base64));
    const labels = [...text.matchAll(/^-----BEGIN ([^-]+)-----$/gm)].map(([, found]) => found);
    return labels.length > 0 && labels.every((found) => found === label);
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}
