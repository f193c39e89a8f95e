import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import type { AgentConnections } from "./connections.ts";
import type { AgentStatus } from "./status.ts";

/** What the admin server answers, by path. */
export interface AdminAnswers {
  readonly status: () => Promise<AgentStatus>;
  readonly connections: () => Promise<AgentConnections>;
}

/** The admin server: answers on a unix socket that only root can open. Nothing can be changed through it. */
export function serveAdmin(
  path: string,
  { status, connections }: AdminAnswers,
): { shutdown(): Promise<void> } {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  rmSync(path, { force: true }); // a crashed agent's
  const server = Deno.serve({ path, onListen: () => chmodSync(path, 0o600) }, async (request) => {
    if (request.method !== "GET") return new Response("only GET", { status: 405 });
    switch (new URL(request.url).pathname) {
      case "/status":
        return Response.json(await status());
      case "/connections":
        return Response.json(await connections());
      default:
        return new Response("not here", { status: 404 });
    }
  });
  return { shutdown: () => server.shutdown() };
}

/** Asks an agent for its status. Throws an Error that says what to do when it does not answer. */
export async function askStatus(path: string): Promise<AgentStatus> {
  return await ask(path, "status") as AgentStatus;
}

/** The same for its connections. */
export async function askConnections(path: string): Promise<AgentConnections> {
  return await ask(path, "connections") as AgentConnections;
}

async function ask(path: string, what: keyof AdminAnswers): Promise<unknown> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  let response: Response;
  try {
    response = await fetch(`http://localhost/${what}`, { client });
  } catch (cause) {
    throw new Error(
      `no agent answers on ${path}: is it running on this node, and is --admin-socket the same?`,
      { cause },
    );
  }
  if (!response.ok) throw new Error(`the agent on ${path} answered ${response.status}`);
  return await response.json();
}
