import { REGISTRY_LABEL } from "../../../src/constants.ts";
import type { AdmissionRequest } from "./admission.ts";
import { NODE_NAME_CLAIM } from "./users.ts";

/** An agent may write only the registry slices that are labelled with its own node. */
export default function admit(request: AdmissionRequest): string | undefined {
  const { user, resource, object, oldObject } = request;
  if (resource !== "endpointslices" || user.groups.includes("system:masters")) return undefined;
  const labels = [object, oldObject].flatMap((slice) =>
    slice === undefined ? [] : [slice.metadata.labels?.[REGISTRY_LABEL]]
  );
  const node = user.extra?.[NODE_NAME_CLAIM]?.[0];
  if (node === undefined) return "the token has no node claim";
  return labels.every((label) => label === node)
    ? undefined
    : `only slices of node ${node} may be written`;
}
