import { logger } from "../log.ts";
import { allowDescriptors } from "../native/descriptor_limit.ts";
import { MOST_UNOPENED } from "../relay/loop/unopened.ts";

const log = logger("agent");

/** For pods' listeners, maps, links, files and what operators ask: kept free of connections. */
const OTHER_DESCRIPTORS = 8_192;

/** How many connections the relay takes. */
export interface ConnectionLimit {
  readonly connections: number;
  /** Why that is fewer than wanted. */
  readonly problem: string | undefined;
}

/** Lets this process have the descriptors for `wanted` connections, or as many as it may. */
export function limitConnections(wanted: number, workers: number): ConnectionLimit {
  const allowed = allowDescriptors(neededDescriptors(wanted, workers));
  const connections = fittingConnections(wanted, workers, allowed);
  if (connections === wanted) return { connections, problem: undefined };
  const problem =
    `${connections} connections at most, not ${wanted}: ${allowed} descriptors are allowed, and ` +
    `${
      neededDescriptors(wanted, workers)
    } would be needed; raise the limit of open files (ulimit ` +
    "-n, LimitNOFILE=, fs.nr_open), or lower --max-connections";
  log.warn("{problem}", { problem });
  return { connections, problem };
}

/** Each connection takes a descriptor for the application and one for the tunnel. */
function neededDescriptors(connections: number, workers: number): number {
  return 2 * connections + OTHER_DESCRIPTORS + workers * MOST_UNOPENED;
}

/**
 * The connections for which `allowed` descriptors do. A quarter is kept at most, so that few still
 * mean some.
 */
export function fittingConnections(wanted: number, workers: number, allowed: number): number {
  const reserve = Math.min(neededDescriptors(0, workers), Math.ceil(allowed / 4));
  return Math.min(wanted, Math.max(1, Math.floor((allowed - reserve) / 2)));
}
