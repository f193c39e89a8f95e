import { Lists } from "./lists.ts";
import { textAt } from "./objects.ts";
import type { DeleteOptions, Operations, Target } from "./operations.ts";
import { APPLY } from "./patch.ts";
import type { Authorizer } from "./rbac.ts";
import { isTrue, readRequest, type ResourceRequest } from "./requests.ts";
import { discovery } from "./resources.ts";
import { selectorOf } from "./selectors.ts";
import { boundedText } from "./sizes.ts";
import { badRequest, noSuchPath, notFound, StatusError } from "./status.ts";
import type { Stored } from "./store.ts";
import type { UserInfo } from "./users.ts";
import { Watch } from "./watch.ts";

/** The Kubernetes API over a store, for requests whose sender is known. */
export class Api {
  readonly lists: Lists;
  readonly watches = new Map<Watch, { path: string; user: string }>();

  constructor(
    private readonly operations: Operations,
    private readonly authorizer: Authorizer,
    private readonly bookmarkEveryMs: number,
  ) {
    this.lists = new Lists(operations.store);
  }

  /** @throws {StatusError} for whatever the answer is not a success. */
  async handle(request: Request, user: UserInfo): Promise<Response> {
    const url = new URL(request.url);
    const wanted = readRequest(request.method, url);
    if (wanted === undefined) return this.#document(url, user);
    this.#authorize(user, wanted, url);
    if (isTrue(url.searchParams.get("dryRun")) || url.searchParams.get("dryRun") === "All") {
      throw badRequest("the API server for tests knows no dryRun");
    }
    const target: Target = { ...wanted, user };
    switch (wanted.verb) {
      case "get":
        return json(this.operations.get(target).text);
      case "list":
        return this.#list(wanted, url.searchParams);
      case "watch":
        return this.#watch(wanted, url, user);
      case "create":
        return this.#create(target, await bodyOf(request));
      case "update":
        return this.#update(target, await bodyOf(request));
      case "patch":
        return this.#patch(target, request, await bodyOf(request));
      case "delete": {
        const options = await deleteOptions(request, url);
        const { stored, isGone } = this.operations.delete(target, options);
        return json(isGone && wanted.resource.plural !== "pods" ? success(stored) : stored.text);
      }
      case "deletecollection":
        return this.#deleteCollection(target, url, await deleteOptions(request, url));
    }
  }

  #document(url: URL, user: UserInfo): Response {
    const path = url.pathname.replace(/(.)\/$/, "$1");
    this.authorizer.checkPath(user, path);
    if (["/healthz", "/livez", "/readyz"].includes(path)) return new Response("ok");
    if (path === "/version") return json(JSON.stringify(VERSION));
    const document = discovery(path);
    if (document === undefined) throw noSuchPath();
    return json(JSON.stringify(document));
  }

  /** @throws {StatusError} 403 */
  #authorize(user: UserInfo, wanted: ResourceRequest, url: URL): void {
    const { verb, resource, subresource, namespace } = wanted;
    const { group, plural } = resource;
    const field = url.searchParams.get("fieldSelector") ?? "";
    // "get" of one name may also be a list or watch that selects it.
    const [, selected = ""] = /(?:^|,)metadata\.name==?([^,]+)/.exec(field) ?? [];
    const name = wanted.name || selected;
    const full = subresource === "" ? plural : `${plural}/${subresource}`;
    const attributes = { verb, group, resource: full, namespace, name };
    this.authorizer.check(user, attributes);
    if (plural !== "certificatesigningrequests" || !WRITES.includes(verb)) return;
    const action = SIGNER_VERBS[subresource];
    if (action !== undefined) this.#authorizeSigner(user, action, wanted);
  }

  /** Deciding and signing need a second right, on the signer that the request names. */
  #authorizeSigner(user: UserInfo, verb: string, wanted: ResourceRequest): void {
    const { object } = this.operations.get({ ...wanted, user });
    const signer = textAt(object, "spec.signerName");
    const domain = `${signer.split("/")[0]}/*`;
    const attributes = { verb, group: "certificates.k8s.io", resource: "signers", namespace: "" };
    if (this.authorizer.allows(user, { ...attributes, name: domain })) return;
    this.authorizer.check(user, { ...attributes, name: signer });
  }

  #list({ resource, namespace }: ResourceRequest, query: URLSearchParams): Response {
    const body = this.lists.list({
      resource,
      namespace,
      selector: selectorOf(resource, query),
      limit: Number(query.get("limit") ?? 0),
      continueFrom: query.get("continue") ?? "",
    });
    return new Response(body, { headers: HEADERS });
  }

  #watch({ resource, namespace, name }: ResourceRequest, url: URL, user: UserInfo): Response {
    const query = new URLSearchParams(url.searchParams);
    if (name !== "") query.set("fieldSelector", `metadata.name=${name}`);
    const version = query.get("resourceVersion") ?? "";
    const wantsBookmarks = isTrue(query.get("allowWatchBookmarks"));
    const asked = query.get("sendInitialEvents");
    if (asked !== null && query.get("resourceVersionMatch") !== "NotOlderThan") {
      throw invalidOptions(
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
      );
    }
    if (!/^\d*$/.test(version)) throw badRequest(`Invalid value: "${version}": strconv.ParseUint`);
    const { store } = this.operations;
    const watch = new Watch({
      resource,
      collection: store.collection(resource),
      namespace,
      selector: selectorOf(resource, query),
      from: version === "" || version === "0" ? store.version : Number(version),
      initial: asked === null ? version === "" || version === "0" : isTrue(asked),
      // An empty version with bookmarks acts as a watch-list on a real server, too.
      marksInitialEnd: wantsBookmarks && (isTrue(asked) || (asked === null && version === "")),
      bookmarkEveryMs: wantsBookmarks ? this.bookmarkEveryMs : undefined,
      timeoutMs: 1000 * (Number(query.get("timeoutSeconds")) || DEFAULT_TIMEOUT_SECONDS),
      version: () => store.version,
    });
    this.watches.set(watch, { path: url.pathname + url.search, user: user.username });
    watch.ended.then(() => this.watches.delete(watch));
    return new Response(watch.body, { headers: HEADERS });
  }

  #create(target: Target, body: unknown): Response {
    if (target.subresource === "binding") {
      this.operations.bind(target, body);
      return json(
        JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Success", code: 201 }),
        201,
      );
    }
    if (target.subresource !== "" || target.name !== "") throw methodNotAllowed();
    return json(this.operations.create(target, body).text, 201);
  }

  #update(target: Target, body: unknown): Response {
    if (target.name === "") throw methodNotAllowed();
    return json(this.operations.update(target, body).text);
  }

  #patch(target: Target, request: Request, body: unknown): Response {
    const contentType = request.headers.get("content-type") ?? "";
    const { resource, namespace, name, subresource, user } = target;
    const isThere = this.operations.store.get(resource, namespace, name) !== undefined;
    if (isThere || !contentType.startsWith(APPLY)) {
      return json(this.operations.patch(target, contentType, body).text);
    }
    if (subresource !== "") throw notFound(resource, name);
    const { group, plural } = resource;
    this.authorizer.check(user, { verb: "create", group, resource: plural, namespace, name });
    return json(this.operations.create(target, body).text, 201);
  }

  #deleteCollection(target: Target, url: URL, options: DeleteOptions): Response {
    const { resource, namespace } = target;
    const selector = selectorOf(resource, url.searchParams) ?? (() => true);
    const { store } = this.operations;
    for (const { object } of store.collection(resource).sorted(namespace)) {
      const { name, namespace = "" } = object.metadata;
      if (!selector(object) || !store.get(resource, namespace, name)) continue;
      this.operations.delete({ ...target, name, namespace }, options);
    }
    return json(
      JSON.stringify({ kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" }),
    );
  }
}

/** The answer for whatever was thrown. */
export function failure(error: unknown): Response {
  const known = error instanceof StatusError
    ? error
    : new StatusError(500, "InternalError", `Internal error occurred: ${error}`);
  if (known !== error) console.error(error);
  return new Response(JSON.stringify(known.status), {
    status: known.code,
    headers: { ...HEADERS, ...known.headers },
  });
}

export function json(text: string, status = 200): Response {
  return new Response(text, { status, headers: HEADERS });
}

const HEADERS = {
  "content-type": "application/json",
  "cache-control": "no-cache, private, no-transform",
};
const VERSION = {
  major: "1",
  minor: "36",
  gitVersion: "v1.36.0",
  gitCommit: "lab",
  gitTreeState: "clean",
  buildDate: "2026-01-01T00:00:00Z",
  goVersion: "none",
  compiler: "none",
  platform: "linux/amd64",
};
const DEFAULT_TIMEOUT_SECONDS = 1800;
const WRITES = ["update", "patch"];
const SIGNER_VERBS: Record<string, string> = { approval: "approve", status: "sign" };

async function bodyOf(request: Request): Promise<unknown> {
  const text = await boundedText(request);
  try {
    return text === "" ? {} : JSON.parse(text);
  } catch (error) {
    throw badRequest(`the object provided is unrecognized (only JSON is read here): ${error}`);
  }
}

async function deleteOptions(request: Request, url: URL): Promise<DeleteOptions> {
  const options = await bodyOf(request) as DeleteOptions;
  const grace = url.searchParams.get("gracePeriodSeconds");
  const policy = url.searchParams.get("propagationPolicy");
  return {
    ...options,
    ...(grace === null ? {} : { gracePeriodSeconds: Number(grace) }),
    ...(policy === null ? {} : { propagationPolicy: policy }),
  };
}

function success({ object: { kind, metadata: { name, uid } } }: Stored): string {
  const details = { name, kind, uid };
  return JSON.stringify({
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Success",
    details,
  });
}

function methodNotAllowed(): StatusError {
  const message = "the server does not allow this method on the requested resource";
  return new StatusError(405, "MethodNotAllowed", message);
}

function invalidOptions(message: string): StatusError {
  return new StatusError(422, "Invalid", `ListOptions.meta.k8s.io "" is invalid: ${message}`);
}
