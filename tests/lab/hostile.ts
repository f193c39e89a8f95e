/** What a relay that does not keep to the rules sends; apps/hostile.py sends it. */
import { parseAddress } from "../../src/addresses.ts";
import type { AppEvent, LabProcess } from "./process.ts";
import type { Place } from "./place.ts";
import type { Credential } from "./pki.ts";

/**
 * The frames of src/README.md's table, written here once more: a test must not believe its subject.
 */
export const TYPES = { OPEN: 1, ACCEPT: 2, REFUSE: 3, DATA: 4, END: 5, RESET: 6 } as const;

/** One frame as hexadecimal text: type, flags, length in network byte order, payload. */
export function frame(type: number, payload: Uint8Array = new Uint8Array(), flags = 0): string {
  return Uint8Array.of(type, flags, payload.length >> 8, payload.length & 0xff, ...payload).toHex();
}

export interface OpenFields {
  port: number;
  client: string;
  dialled: string;
}

export function openFrame({ port, client, dialled }: OpenFields): string {
  const bytes = (number: number) => [number >> 8, number & 0xff];
  return frame(
    TYPES.OPEN,
    Uint8Array.of(
      ...bytes(port),
      ...parseAddress(client),
      ...bytes(40_000),
      ...parseAddress(dialled),
      ...bytes(port),
    ),
  );
}

export function dataFrame(text: string): string {
  return frame(TYPES.DATA, new TextEncoder().encode(text));
}

export interface HostileOptions {
  credential?: Credential;
  /** Hexadecimal, each a write of its own. */
  send?: string[];
  /** Options of apps/hostile.py. */
  more?: string[];
}

/** How a conversation with a relay went. */
export interface Conversation extends AppEvent {
  /** "TLSv1.3", null without one. */
  handshake: string | null;
  /** Plain bytes that came, hexadecimal. */
  received: string;
  /** "eof", or the error that ended it. */
  end: string;
}

/** Talks to a relay. */
export async function attack(
  place: Place,
  host: string,
  port: number,
  options: HostileOptions,
): Promise<Conversation> {
  const { events, stderr } = await place.run(argv("connect", host, port, options));
  const [conversation] = events;
  if (!conversation) throw new Error(`the hostile client failed: ${stderr}`);
  return conversation as Conversation;
}

/** The same so often: how many ended how, and all that came. */
export async function attackAgain(
  place: Place,
  host: string,
  port: number,
  options: HostileOptions & { readonly times: number },
): Promise<{ ends: Record<string, number>; received: string }> {
  const more = [...options.more ?? [], "--times", `${options.times}`];
  const { events, stderr } = await place.run(argv("connect", host, port, { ...options, more }));
  const [summary] = events;
  if (!summary) throw new Error(`the hostile client failed: ${stderr}`);
  return summary as AppEvent & { ends: Record<string, number>; received: string };
}

/** Plays a relay's tunnel port; each conversation becomes an event. */
export async function ambush(
  place: Place,
  host: string,
  port: number,
  options: HostileOptions,
): Promise<LabProcess> {
  const server = place.spawn(argv("listen", host, port, options));
  await server.waitForEvent(({ event }) => event === "listening");
  return server;
}

function argv(role: string, host: string, port: number, options: HostileOptions): string[] {
  const { credential, send = [], more = [] } = options;
  return [
    ...["python3", "-B", "-S", `${import.meta.dirname}/apps/hostile.py`, role],
    ...["--host", host, "--port", `${port}`],
    ...(credential ? ["--certificate", credential.certificate, "--key", credential.key] : []),
    ...send.flatMap((hex) => ["--send", hex]),
    ...more,
  ];
}
