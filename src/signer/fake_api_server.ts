/** For tests: as much of an API server as signer and issuer use, over plain HTTP on loopback. */
import { CA_SECRET } from "../identity/signing_names.ts";

/** A Kubernetes object, as deep as the tests and the server look into it. */
export interface FakeObject {
  [field: string]: unknown;
  metadata: {
    [field: string]: unknown;
    name: string;
    resourceVersion?: string;
    annotations?: Record<string, string>;
  };
  data?: Record<string, string>;
  spec?: Record<string, unknown>;
  status?: {
    [field: string]: unknown;
    certificate?: string;
    conditions?: { type: string; reason: string; message: string }[];
  };
}

/** Who a bearer token stands for. */
export interface FakeUser {
  username: string;
  extra?: Record<string, string[]>;
}

/** A running server; `objects` by their path, open to the test. */
export class FakeApiServer implements AsyncDisposable {
  readonly objects = new Map<string, FakeObject>();
  readonly users = new Map<string, FakeUser>();
  /** Every request as `METHOD path`, in order. */
  readonly requests: string[] = [];
  /** When it returns a response, that is the answer. */
  intercept: (request: Request, path: string, user: string) => Response | undefined = () =>
    undefined;
  #version = 100;
  #watchers = new Set<(path: string, type: string, object: FakeObject) => void>();
  #server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    (request) => this.#serve(request),
  );

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  /** Stores an object as `kubectl apply` would, status and all, and tells the watchers. */
  put(path: string, object: FakeObject): FakeObject {
    const old = this.objects.get(path);
    const stored = structuredClone(object);
    stored.metadata = {
      uid: old?.metadata.uid ?? crypto.randomUUID(),
      creationTimestamp: old?.metadata.creationTimestamp ?? new Date().toISOString(),
      ...stored.metadata,
      resourceVersion: String(++this.#version),
    };
    this.objects.set(path, stored);
    for (const tell of this.#watchers) tell(path, old === undefined ? "ADDED" : "MODIFIED", stored);
    return stored;
  }

  remove(path: string): void {
    const old = this.objects.get(path);
    if (old === undefined) throw new Error(`there is no ${path}`);
    this.objects.delete(path);
    old.metadata.resourceVersion = String(++this.#version);
    for (const tell of this.#watchers) tell(path, "DELETED", old);
  }

  /** The CA's certificate, PEM. */
  get caPem(): string {
    const secret = [...this.objects].find(([path]) => path.endsWith(`/secrets/${CA_SECRET}`))?.[1];
    return atob(secret?.data?.["tls.crt"] ?? "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #serve(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const token = request.headers.get("authorization")?.replace("Bearer ", "") ?? "";
    this.requests.push(`${request.method} ${url.pathname}`);
    const intercepted = this.intercept(request, url.pathname, token);
    if (intercepted !== undefined) return intercepted;
    const user = this.users.get(token);
    if (user === undefined) return failure(401, "Unauthorized");
    if (request.method === "GET") return this.#get(url, request.signal);
    const body = await request.json() as FakeObject;
    if (request.method === "POST") return this.#create(url.pathname, body, user);
    return this.#update(url.pathname, body);
  }

  #get(url: URL, signal: AbortSignal): Response {
    const object = this.objects.get(url.pathname);
    if (object !== undefined) return Response.json(object);
    if (!/s$/.test(url.pathname)) return failure(404, "NotFound");
    const matches = (path: string, object: FakeObject) => {
      if (path.slice(0, path.lastIndexOf("/")) !== url.pathname) return false;
      const [field = "", value] = (url.searchParams.get("fieldSelector") ?? "").split("=");
      if (field === "") return true;
      const found = field.split(".").reduce<unknown>(
        (part, key) => (part as Record<string, unknown> | undefined)?.[key],
        object,
      );
      return found === value;
    };
    if (url.searchParams.has("watch")) {
      return this.#watch(url, matches, signal);
    }
    const items = [...this.objects].filter(([path, object]) => matches(path, object)).map(([, o]) =>
      o
    );
    return Response.json({
      kind: "List",
      metadata: { resourceVersion: String(this.#version) },
      items,
    });
  }

  #watch(
    url: URL,
    matches: (path: string, object: FakeObject) => boolean,
    signal: AbortSignal,
  ): Response {
    const since = Number(url.searchParams.get("resourceVersion") ?? 0);
    let tell: (path: string, type: string, object: FakeObject) => void;
    const stop = () => void this.#watchers.delete(tell);
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => {
        tell = (path, type, object) => {
          if (!matches(path, object)) return;
          controller.enqueue(new TextEncoder().encode(JSON.stringify({ type, object }) + "\n"));
        };
        this.#watchers.add(tell);
        for (const [path, object] of this.objects) {
          if (Number(object.metadata.resourceVersion) > since) tell(path, "ADDED", object);
        }
        signal.addEventListener("abort", stop);
      },
      cancel: stop,
    });
    return new Response(stream, { headers: { "content-type": "application/json" } });
  }

  #create(collection: string, body: FakeObject, user: FakeUser): Response {
    const name = body.metadata.name ??
      String(body.metadata.generateName) + crypto.randomUUID().slice(0, 5);
    const path = `${collection}/${name}`;
    if (this.objects.has(path)) return failure(409, "AlreadyExists");
    body.metadata.name = name;
    if (collection.endsWith("/certificatesigningrequests")) {
      body.spec = { ...body.spec, username: user.username, extra: user.extra ?? {} };
      body.status = {};
    }
    return Response.json(this.put(path, body), { status: 201 });
  }

  #update(path: string, body: FakeObject): Response {
    const [, object = path, part] = /^(.*)\/(approval|status)$/.exec(path) ?? [];
    const old = this.objects.get(object);
    if (old === undefined) return failure(404, "NotFound");
    const version = body.metadata.resourceVersion;
    if (version !== undefined && version !== old.metadata.resourceVersion) {
      return failure(409, "Conflict");
    }
    return Response.json(
      this.put(object, part === undefined ? body : { ...old, status: body.status }),
    );
  }
}

function failure(code: number, reason: string): Response {
  return Response.json({ kind: "Status", status: "Failure", code, reason, message: reason }, {
    status: code,
  });
}
