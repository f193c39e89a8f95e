/** What an agent answers on its admin socket, and asking it. Nothing can be changed through it. */
import { request } from "node:http";
import type { Answers } from "../http_server.ts";
import { AdminSocket } from "./admin_socket.ts";
import type { AgentConnections } from "./connections.ts";
import type { AgentAudit, AgentStatus } from "./status.ts";

/** What an agent answers, by path; one line more is one question more. */
export interface AdminAnswers {
  readonly "/status": AgentStatus;
  readonly "/connections": AgentConnections;
  readonly "/audit": AgentAudit;
}

/** Answers on a unix socket that only root can open. */
export function serveAdmin(
  path: string,
  answers: { readonly [Path in keyof AdminAnswers]: () => Promise<AdminAnswers[Path]> },
): AdminSocket {
  return new AdminSocket(path, jsonAnswers(answers));
}

/** Asks an agent for its status. Throws an Error that says what to do when it does not answer. */
export function askStatus(socket: string): Promise<AgentStatus> {
  return ask(socket, "/status");
}

/** The same for its connections. */
export function askConnections(socket: string): Promise<AgentConnections> {
  return ask(socket, "/connections");
}

/** The same for an audit, which it makes now. */
export function askAudit(socket: string): Promise<AgentAudit> {
  return ask(socket, "/audit");
}

/** An agent that takes longer hangs. */
const ANSWER_MILLISECONDS = 10_000;

async function ask<Path extends keyof AdminAnswers>(
  socket: string,
  path: Path,
): Promise<AdminAnswers[Path]> {
  const { status, text } = await get(socket, path).catch((cause: NodeJS.ErrnoException) => {
    throw new Error(whyNot(socket, cause), { cause });
  });
  if (status !== 200) throw new Error(`the agent on ${socket} answered ${status}: ${text.trim()}`);
  return JSON.parse(text);
}

/** Not by fetch, which follows NO_PROXY and the like away from the socket. */
function get(socketPath: string, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, agent: false }, async (response) => {
      let text = "";
      response.setEncoding("utf8");
      try {
        for await (const part of response) text += part;
        resolve({ status: response.statusCode ?? 0, text });
      } catch (error) {
        reject(error);
      } finally {
        clearTimeout(timer);
      }
    });
    const timer = setTimeout(
      () => asked.destroy(new Error(`no answer for ${ANSWER_MILLISECONDS / 1000} s`)),
      ANSWER_MILLISECONDS,
    );
    asked.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    asked.end();
  });
}

/** Why an agent was not asked, or has not answered, and what to do. */
export function whyNot(socket: string, { code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case "EACCES":
    case "EPERM":
      return `${message}: the socket is root's, so run this as root`;
    case "ENOENT":
    case "ECONNREFUSED":
      return `no agent answers on ${socket}: is it running on this node, and is --admin-socket the same? One that ` +
        "still waits for the API server answers when it has read everything; until then its log says what it waits for";
    default:
      return `the agent on ${socket} does not answer: ${message}`;
  }
}

function jsonAnswers(answers: Readonly<Record<string, () => Promise<unknown>>>): Answers {
  return Object.fromEntries(
    Object.entries(answers).map(([path, answer]) => [
      path,
      async () => ({ contentType: "application/json", text: JSON.stringify(await answer()) }),
    ]),
  );
}
