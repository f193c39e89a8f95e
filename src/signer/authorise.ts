import { addressFamily, canonicalAddress, parseAddress, specialAddress } from "../addresses.ts";
import { MIRROR_ANNOTATION, type Pod } from "../cluster/objects.ts";
import type { PodIdentity } from "../identity/issuer.ts";
import {
  NODE_CLAIM,
  POD_ADDRESSES_ANNOTATION,
  POD_NAME_ANNOTATION,
  POD_NAMESPACE_ANNOTATION,
  POD_UID_ANNOTATION,
  USAGES,
} from "../identity/signing_names.ts";
import { isDnsLabel, isDnsSubdomain, isPodUid, quoted } from "../names.ts";
import { isPodAddressOf } from "../pod_ranges.ts";
import type { Surroundings } from "./address_book.ts";
import { type CsrFacts, MAX_REQUEST_LENGTH } from "./facts.ts";

/**
 * Why a request is denied: code → what it means. The code is the condition's reason and a log
 * field.
 */
export const DENIALS = {
  WrongSigner: "the request is for another signer",
  WrongRequester: "only the agents' service account may ask",
  NoNodeClaim:
    "the requester's token names no node: not bound to a scheduled pod, or an API server before 1.30",
  BadUsages: "a usage is asked for that pods' certificates do not have",
  BadExpiration: "the lifetime asked for is no positive number of seconds",
  NoPod: "the annotations do not name a pod",
  BadAddresses: "the annotations do not name one or two addresses that a pod can have",
  PodNotFound: "there is no such pod",
  PodUidMismatch: "the pod of that name has another UID",
  PodOnOtherNode: "the pod does not run on the requester's node",
  PodFinished: "the pod is neither pending nor running",
  PodDeleted: "the pod is being deleted",
  NoServiceAccount:
    "the pod has no service account: a static pod's mirror is written by its node, so nobody can say who it is",
  HostNetwork: "the pod is in its node's network and has no address of its own",
  AddressMismatch: "the addresses asked for are not the pod's",
  AddressTaken: "an address asked for is another's",
  AddressNotOfNode: "an address asked for is none that the node gives to pods",
  RangeContested: "an address asked for is in the podCIDRs of two Nodes, so it is nobody's",
  OnDenyList: "the cluster's deny list names the pod or its identity",
  BadRequest: "there is no PKCS#10 request, or it is too large",
  BadKey: "the key is not ECDSA P-256",
  BadProof: "the request is not signed with the key it asks a certificate for",
} as const;

/** A denial's code. */
export type Denial = keyof typeof DENIALS;

/** For whom a certificate may be made, and for how long. */
export interface Allowed {
  readonly allow: PodIdentity;
  readonly ttlSeconds: number;
}

export type Verdict =
  | Allowed
  | { readonly deny: Denial; readonly message: string }
  | {
    readonly wait: string;
    /**
     * The denial when waiting has not helped; undefined when the request may wait for as long as it
     * likes.
     */
    readonly orDeny?: Denial;
  };

export interface AuthoriseSettings {
  readonly signerName: string;
  /** `system:serviceaccount:<namespace>:<name>`. */
  readonly requester: string;
  /** The longest, and the usual, lifetime of a certificate. */
  readonly ttlSeconds: number;
}

/** Which pod a request is for, and whose node it comes from: what must be looked up to judge it. */
export interface Claim {
  readonly node: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly addresses: readonly string[];
}

/**
 * authorise decides about a request from what the API server knows: the requester and the
 * requester's node, which it fills in itself, and the pod's object. The request's own subject and
 * extensions are never looked at. `pod` is the object that {@link claimOf} names, undefined when
 * there is none; `around` is what the API server's other objects say of its addresses, since a
 * kubelet, which may be a thief's, writes those into the pod's status.
 *
 * The rules are those that the API server's NodeRestriction applies to a kubelet's
 * PodCertificateRequest (KEP-4317); a node's agent takes the kubelet's place here.
 */
export function authorise(
  request: CsrFacts,
  pod: Pod | undefined,
  around: Surroundings,
  settings: AuthoriseSettings,
): Verdict {
  const claim = claimOf(request, settings);
  if ("deny" in claim) return claim;
  const where = `pod ${claim.namespace}/${claim.name}`;
  const namesIt = pod?.namespace === claim.namespace && pod.name === claim.name;
  if (pod === undefined || !namesIt) return deny("PodNotFound", where);
  if (pod.uid !== claim.uid) {
    return deny("PodUidMismatch", `${quoted(pod.uid, 253)}, not ${quoted(claim.uid, 253)}`);
  }
  if (pod.nodeName !== claim.node) {
    const on = pod.nodeName === "" ? "no node yet" : quoted(pod.nodeName, 253);
    return deny("PodOnOtherNode", `it is on ${on}, the requester on ${quoted(claim.node, 253)}`);
  }
  if (pod.deleting) return deny("PodDeleted", where);
  if (pod.phase !== "Pending" && pod.phase !== "Running") {
    return deny("PodFinished", `it is ${quoted(pod.phase)}`);
  }
  if (pod.hostNetwork) return deny("HostNetwork", where);
  if (pod.serviceAccount === "" || Object.hasOwn(pod.annotations, MIRROR_ANNOTATION)) {
    return deny("NoServiceAccount", where);
  }
  return addressVerdict(claim, pod, around) ?? {
    allow: {
      uid: pod.uid,
      namespace: pod.namespace,
      name: pod.name,
      serviceAccount: pod.serviceAccount,
      addresses: claim.addresses,
    },
    ttlSeconds: Math.min(settings.ttlSeconds, request.expirationSeconds ?? settings.ttlSeconds),
  };
}

/** What the request claims, or its denial for what can be judged without looking anything up. */
export function claimOf(
  request: CsrFacts,
  settings: AuthoriseSettings,
): Claim | { deny: Denial; message: string } {
  if (request.signerName !== settings.signerName) {
    return deny("WrongSigner", quoted(request.signerName));
  }
  if (request.username !== settings.requester) {
    return deny("WrongRequester", quoted(request.username, 253));
  }
  const [node, ...more] = Object.hasOwn(request.extra, NODE_CLAIM)
    ? request.extra[NODE_CLAIM] ?? []
    : [];
  if (node === undefined || more.length > 0 || !isDnsSubdomain(node)) return deny("NoNodeClaim");
  const usage = request.usages.find((usage) => !USAGES.some((allowed) => allowed === usage));
  if (usage !== undefined) return deny("BadUsages", quoted(usage));
  const seconds = request.expirationSeconds;
  if (seconds !== undefined && !(Number.isSafeInteger(seconds) && seconds > 0)) {
    return deny("BadExpiration", String(seconds));
  }
  if (request.requestLength > MAX_REQUEST_LENGTH) {
    const most = `${request.requestLength} characters, at most ${MAX_REQUEST_LENGTH} are read`;
    return deny("BadRequest", `spec.request has ${most}`);
  }
  const text = (key: string) =>
    Object.hasOwn(request.annotations, key) ? request.annotations[key] ?? "" : "";
  const namespace = text(POD_NAMESPACE_ANNOTATION);
  const name = text(POD_NAME_ANNOTATION);
  const uid = text(POD_UID_ANNOTATION);
  if (!isDnsLabel(namespace)) return deny("NoPod", `${POD_NAMESPACE_ANNOTATION} is no namespace`);
  if (!isDnsSubdomain(name)) return deny("NoPod", `${POD_NAME_ANNOTATION} is no name`);
  if (!isPodUid(uid)) return deny("NoPod", `${POD_UID_ANNOTATION} is no UID`);
  const addresses = addressesOf(text(POD_ADDRESSES_ANNOTATION));
  if (addresses === undefined) {
    return deny("BadAddresses", quoted(text(POD_ADDRESSES_ANNOTATION)));
  }
  return { node, namespace, name, uid, addresses };
}

/** A denial as the requester reads it. `detail` must be bounded and printable. */
export function deny(code: Denial, detail?: string): { deny: Denial; message: string } {
  return { deny: code, message: DENIALS[code] + (detail === undefined ? "" : `: ${detail}`) };
}

/** One or two ordinary addresses, at most one of a family, canonical. */
function addressesOf(text: string): string[] | undefined {
  const texts = text.split(",", 3);
  const addresses = texts.map(canonicalAddress).filter((address) => address !== undefined);
  if (text.length > 128 || addresses.length !== texts.length || texts.length > 2) return undefined;
  const bytes = addresses.map(parseAddress);
  if (bytes.some((address) => specialAddress(address) !== undefined)) return undefined;
  return new Set(bytes.map(addressFamily)).size === bytes.length ? addresses : undefined;
}

/**
 * Compares the addresses asked for with the pod's, and with others'; undefined when they are the
 * pod's own. Nobody may speak for an address that is not theirs.
 */
function addressVerdict(
  claim: Claim,
  pod: Pod,
  { node, ownersOf, usesRanges, rivalsOf }: Surroundings,
): Verdict | undefined {
  const isInStatus = pod.addresses.length > 0;
  if (isInStatus) {
    const same = pod.addresses.length === claim.addresses.length &&
      pod.addresses.every((address) => claim.addresses.includes(address));
    const [asked, has] = [claim.addresses.join(", "), pod.addresses.join(", ")];
    if (!same) return deny("AddressMismatch", `${asked} asked for, ${has} in its status`);
  }
  const isInRange = (address: string) =>
    node?.podCidrs.some((cidr) => isPodAddressOf(cidr, address)) ?? false;
  const contest = claim.addresses.flatMap((address) => {
    const [rival] = isInRange(address) ? rivalsOf(address) : [];
    return rival === undefined ? [] : `${address} is in those of ${claim.node} and of ${rival}`;
  })[0];
  // A kubelet whose Node is gone makes it anew with any podCIDRs. Then nobody can tell whose pods
  // have these addresses.
  if (contest !== undefined && usesRanges) {
    return deny("RangeContested", `${contest}; find out which Node should not have them`);
  }
  for (const address of claim.addresses) {
    // What other nodes say of this node's own range is no reason to deny its pods anything.
    const isOwn = usesRanges && isInRange(address);
    const owner = ownersOf(address).find(({ node }) => !isOwn || node === claim.node);
    if (owner === undefined) continue;
    const why = `${address} is also that of ${owner.name}`;
    // A pod that has just ended may be seen for a moment longer than it has its address.
    return owner.isNode ? deny("AddressTaken", why) : { wait: why, orDeny: "AddressTaken" };
  }
  // Where IPAMs (Calico's, Cilium's) leave podCIDRs unused, the pod's status decides.
  if (isInStatus && !usesRanges) return undefined;
  if (node === undefined || node.podCidrs.length === 0) {
    if (!isInStatus) {
      return { wait: `node ${claim.node} has no podCIDRs: waiting for the pod's status.podIPs` };
    }
    const others = claim.addresses.find((address) => rivalsOf(address).length > 0);
    return others === undefined ? undefined : {
      wait: `${others} is in the podCIDRs of ${rivalsOf(others)[0]}, and ${claim.node} has none`,
      orDeny: "AddressNotOfNode",
    };
  }
  if (contest !== undefined) {
    return { wait: `of podCIDRs, ${contest}: waiting for the pod's status.podIPs` };
  }
  const foreign = claim.addresses.find((address) => !isInRange(address));
  return foreign === undefined ? undefined : {
    wait: `${foreign} is not in ${node.podCidrs.join(", ").slice(0, 200)} of node ${claim.node}`,
    orDeny: "AddressNotOfNode",
  };
}
