/**
 * Kubernetes' objects as client-node types them, for the compiler alone: what is written is held
 * against the API's own fields, and nothing of client-node is loaded for that.
 */
export type { V1CertificateSigningRequest } from "@kubernetes/client-node/dist/gen/models/V1CertificateSigningRequest.js";
export type { V1ConfigMap } from "@kubernetes/client-node/dist/gen/models/V1ConfigMap.js";
export type { V1Lease } from "@kubernetes/client-node/dist/gen/models/V1Lease.js";
export type { V1Secret } from "@kubernetes/client-node/dist/gen/models/V1Secret.js";

/** An object as JSON has it, where a time is text. Nobody changes it on its way out. */
export type Wire<T> = T extends Date ? string
  : T extends readonly (infer Item)[] ? readonly Wire<Item>[]
  : T extends object ? { readonly [Key in keyof T]: Wire<T[Key]> }
  : T;
