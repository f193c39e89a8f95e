import type { Measure } from "../model.ts";
import { BULK_EIGHT, BULK_TO_CLIENT, BULK_TO_SERVER } from "./bulk.ts";
import { CONNECT_COST } from "./connect_cost.ts";
import {
  KEEP_ALIVE,
  NEW_CONNECTIONS,
  NEW_CONNECTIONS_NOTHING_REUSED,
  SIMULTANEOUS,
} from "./connections.ts";
import { LATENCY, LATENCY_BESIDE_BULK } from "./latency.ts";
import { ENROLLED_PODS, IDLE_CONNECTIONS } from "./memory.ts";

/** In the order in which they run: what begins with new processes comes last. */
export const MEASURES: readonly Measure[] = [
  BULK_TO_SERVER,
  BULK_TO_CLIENT,
  BULK_EIGHT,
  LATENCY,
  LATENCY_BESIDE_BULK,
  KEEP_ALIVE,
  NEW_CONNECTIONS,
  NEW_CONNECTIONS_NOTHING_REUSED,
  SIMULTANEOUS,
  CONNECT_COST,
  IDLE_CONNECTIONS,
  ENROLLED_PODS,
];
