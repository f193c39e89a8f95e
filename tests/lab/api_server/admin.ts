import { type Api, failure, json } from "./api.ts";
import type { Front } from "./front.ts";
import type { Gate } from "./gate.ts";
import type { Misbehaviour } from "./misbehaviour.ts";
import { isFields, type KubeObject, textAt } from "./objects.ts";
import type { Operations } from "./operations.ts";
import { resourceOfKind } from "./resources.ts";

/** The parts of the server that a test may reach into. */
export interface Parts {
  api: Api;
  gate: Gate;
  front: Front;
  operations: Operations;
}

/** What a test does to watches that are open. */
export interface WatchAction {
  do: "close" | "reset" | "gone" | "line";
  /** For "line". */
  text?: string;
  /** A regular expression for path and query; all watches when not given. */
  path?: string;
  user?: string;
}

export interface ServerState {
  watches: { path: string; user: string }[];
  openConnections: number;
  /** When each connection was accepted, in milliseconds since 1970. */
  acceptedConnections: number[];
  resourceVersion: string;
}

/**
 * The tests' own door, a unix socket, which works across network namespaces: what is not below
 * /admin/ is the API as a cluster administrator sees it, uncounted and well-behaved.
 */
export function serveAdmin(path: string, parts: Parts): void {
  try {
    Deno.removeSync(path); // A killed server leaves it.
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  Deno.serve({ path, onListen: () => {} }, async (request) => {
    try {
      const { pathname } = new URL(request.url);
      if (!pathname.startsWith("/admin/")) return await parts.api.handle(request, ADMINISTRATOR);
      const text = await request.text();
      const result = act(pathname.slice(7), text === "" ? undefined : JSON.parse(text), parts);
      return json(JSON.stringify(result ?? null));
    } catch (error) {
      return failure(error);
    }
  });
}

const ADMINISTRATOR = { username: "lab", groups: ["system:masters", "system:authenticated"] };

function act(action: string, body: unknown, { api, gate, front, operations }: Parts): unknown {
  const { store } = operations;
  switch (action) {
    case "misbehave":
      return gate.misbehaviours.add(body as Misbehaviour);
    case "behave":
      return gate.misbehaviours.end(typeof body === "number" ? body : undefined);
    case "compact":
      api.lists.expire();
      return store.compact();
    case "watches":
      return disturb(api, body as WatchAction);
    case "close-connections":
      return front.closeAll();
    case "stall":
      return front.stall(isFields(body) && body.newOnes === true);
    case "resume":
      return front.resume();
    case "requests":
      return gate.log;
    case "state":
      return {
        watches: [...api.watches.values()],
        openConnections: front.open,
        acceptedConnections: front.accepted,
        resourceVersion: String(store.version),
      } satisfies ServerState;
    case "seed":
      for (const object of body as unknown[]) {
        const resource = resourceOfKind(textAt(object, "apiVersion"), textAt(object, "kind"));
        operations.seed(resource, object, ADMINISTRATOR);
      }
      return undefined;
    case "seed-copies": {
      const { object, names } = body as { object: KubeObject; names: string[] };
      const resource = resourceOfKind(object.apiVersion, object.kind);
      for (const name of names) {
        const copy = { ...object, metadata: { ...object.metadata, name } };
        operations.seed(resource, copy, ADMINISTRATOR);
      }
      return undefined;
    }
    default:
      throw new Error(`The admin socket knows no ${action}`);
  }
}

/** @returns how many watches it hit. */
function disturb(api: Api, action: WatchAction): number {
  let hit = 0;
  for (const [watch, { path, user }] of [...api.watches]) {
    if (!new RegExp(action.path ?? "").test(path) || (action.user ?? user) !== user) continue;
    hit++;
    if (action.do === "line") watch.line(action.text ?? "");
    else watch[action.do]();
  }
  return hit;
}
