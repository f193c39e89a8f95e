import type { Holder, StateDirectory } from "../kernel/state_directory.ts";
import { logger } from "../log.ts";
import { askStatus } from "./admin.ts";

const log = logger("agent");

type Charge = Pick<StateDirectory, "path" | "take">;

/** How often an agent that stands by looks whether it is its turn. */
const LOOK_MILLISECONDS = 50;

/**
 * Takes charge of a node's state. Throws an Error when another process has it, or answers on the
 * admin socket: two agents with the same paths would take each other's pods away.
 */
export async function takeCharge(state: Charge, adminSocket: string): Promise<void> {
  const holder = state.take();
  if (holder !== undefined) {
    throw new Error(
      `${
        nameOf(holder)
      } has the state directory ${state.path} already: stop it, or give this one a ` +
        "--state-dir, an --admin-socket and a --cgroup-root of its own",
    );
  }
  const other = await whoAnswers(adminSocket);
  if (other === undefined) return;
  throw new Error(
    `the agent of ${other.node} (process ${other.pid}) answers on ${adminSocket} already: stop it, or ` +
      "give this one an --admin-socket of its own",
  );
}

/**
 * The same for an agent that replaces another: waits until that has gone, or `stop`. Returns
 * whether it has charge. An agent of a version that did not lock its state directory is known by
 * its admin socket.
 */
export async function standBy(
  state: Charge,
  adminSocket: string,
  stop: Promise<void>,
): Promise<boolean> {
  let isStopped = false;
  void stop.then(() => isStopped = true);
  let hasCharge = false;
  for (let told = false; !isStopped; told = true) {
    let other: Holder | undefined = hasCharge ? undefined : state.take();
    hasCharge = other === undefined;
    if (hasCharge) {
      other = await Promise.race([whoAnswers(adminSocket), stop.then(() => undefined)]);
      if (other === undefined) break;
    }
    if (!told) log.info("standing by for {holder} on this node", { holder: nameOf(other) });
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
  }
  return hasCharge && !isStopped;
}

/** For a person: who has it. */
export function nameOf(holder: Holder | undefined): string {
  return holder?.pid === undefined ? "another process" : `process ${holder.pid}`;
}

/** Undefined when nobody does, as on the socket of an agent that has crashed. */
async function whoAnswers(adminSocket: string): Promise<{ node: string; pid: number } | undefined> {
  return await askStatus(adminSocket).catch(() => undefined);
}
