import { type Api, failure } from "./api.ts";
import { misbehaveAfter, misbehaveBefore, Misbehaviours } from "./misbehaviour.ts";
import { readRequest } from "./requests.ts";
import { ANONYMOUS, type Tokens, type UserInfo } from "./users.ts";

/** One request as it came in, whatever was answered. */
export interface LoggedRequest {
  /** Milliseconds since 1970. */
  time: number;
  user: string;
  /** Kubernetes' verb; for a path that is no resource's, "get". */
  verb: string;
  /** With the query. */
  path: string;
  /** The HTTP status; 0 until there is an answer. */
  status: number;
}

/** What stands before the API: it says who asks, counts, and misbehaves when it is told to. */
export class Gate {
  readonly misbehaviours = new Misbehaviours();
  readonly log: LoggedRequest[] = [];

  constructor(private readonly api: Api, private readonly tokens: Tokens) {}

  async handle(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const path = pathname + search;
    const logged = { time: Date.now(), user: "", verb: verbOf(request), path, status: 0 };
    this.log.push(logged);
    if (this.log.length > MAX_LOG) this.log.splice(0, MAX_LOG / 10);
    const response = await this.#answer(request, logged);
    logged.status = response.status;
    return response;
  }

  async #answer(request: Request, logged: LoggedRequest): Promise<Response> {
    try {
      let user: UserInfo = ANONYMOUS;
      try {
        user = this.tokens.authenticate(request.headers.get("authorization"));
      } finally {
        logged.user = user.username;
      }
      const wrongs = this.misbehaviours.take(logged);
      await misbehaveBefore(wrongs);
      return misbehaveAfter(wrongs, await this.api.handle(request, user));
    } catch (error) {
      return failure(error);
    }
  }
}

const MAX_LOG = 500_000;

function verbOf(request: Request): string {
  try {
    return readRequest(request.method, new URL(request.url))?.verb ?? "get";
  } catch {
    return request.method.toLowerCase(); // What the API will refuse.
  }
}
