/** Asks the policies of daemonset/ about one write, as it reaches an API server. */
import assert from "node:assert/strict";
import { GATEWAY_NAMESPACE } from "../../src/constants.ts";
import { NODE_CLAIM } from "../../src/identity/signing_names.ts";
import type { AdmissionRequest } from "./api_server/admission.ts";
import admit from "./api_server/policies.ts";

/** @param write what differs from {@link WRITE}. */
export function check(name: string, write: object, refused: RegExp | undefined): void {
  const request: object = { ...WRITE, ...write };
  const why = admit(request as AdmissionRequest);
  if (refused === undefined) assert.equal(why, undefined, name);
  else assert.match(why?.message ?? "(allowed)", refused, name);
}

/** Whoever has the token of an agent; in its claims are these nodes. */
export function agent(...nodes: string[]): AdmissionRequest["user"] {
  return {
    username: "system:serviceaccount:kube-gateway:kube-gateway-agent",
    groups: [],
    ...(nodes.length === 0 ? {} : { extra: { [NODE_CLAIM]: nodes } }),
  };
}

export const ADMINISTRATOR = { username: "kubernetes-admin", groups: ["system:masters"] };

export const WRITE = {
  operation: "UPDATE",
  user: agent("node-a"),
  group: "",
  subresource: "",
  namespace: GATEWAY_NAMESPACE,
  name: "s",
} as const;
