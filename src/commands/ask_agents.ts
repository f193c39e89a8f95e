import { adminSockets, type Options } from "./command_line.ts";

/**
 * Asks the agents, all at the same time, and shows what they have answered; one that does not
 * answer takes no other's answer away.
 *
 * @throws {AggregateError} with the reason of each that has not answered.
 */
export async function askAgents<T>(
  options: Options,
  ask: (socket: string) => Promise<T>,
  show: (answers: T[]) => void,
): Promise<void> {
  const asked = await Promise.allSettled(adminSockets(options).map(ask));
  const answers = asked.flatMap((each) => each.status === "fulfilled" ? [each.value] : []);
  const failures = asked.flatMap((each) => each.status === "rejected" ? [each.reason] : []);
  if (answers.length > 0) show(answers);
  if (failures.length > 0) throw new AggregateError(failures);
}

/** What the agents have answered: an array where several were asked, whoever has answered. */
export function answersJson(options: Options, answers: readonly unknown[]): string {
  return JSON.stringify(adminSockets(options).length === 1 ? answers[0] : answers, null, 2);
}
