import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import type { AgentStatus } from "./status.ts";

/** The admin server: answers on a unix socket that only root can open. Nothing can be changed through it. */
export function serveAdmin(
  path: string,
  status: () => Promise<AgentStatus>,
): { shutdown(): Promise<void> } {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  rmSync(path, { force: true }); // a crashed agent's
  const server = Deno.serve({ path, onListen: () => chmodSync(path, 0o600) }, async (request) => {
    if (request.method !== "GET") return new Response("only GET", { status: 405 });
    if (new URL(request.url).pathname !== "/status") {
      return new Response("not here", { status: 404 });
    }
    return Response.json(await status());
  });
  return { shutdown: () => server.shutdown() };
}

/** Asks an agent for its status. Throws an Error that says what to do when it does not answer. */
export async function askStatus(path: string): Promise<AgentStatus> {
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  let response: Response;
  try {
    response = await fetch("http://localhost/status", { client });
  } catch (cause) {
    throw new Error(
      `no agent answers on ${path}: is it running on this node, and is --admin-socket the same?`,
      { cause },
    );
  }
  if (!response.ok) throw new Error(`the agent on ${path} answered ${response.status}`);
  return await response.json();
}
