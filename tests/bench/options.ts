import { parseArgs } from "node:util";
import { type ContenderName, CONTENDERS } from "./contenders/contender.ts";

export interface BenchOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly only: string;
  readonly contenders: readonly ContenderName[];
  readonly json?: string;
  readonly svg?: string;
}

export const USAGE = `deno task bench [options]     about half an hour with the defaults

  --rounds N         how often everything is compared (default: 5)
  --seconds N        how long a contender is loaded at a time, twice a round (default: 2)
  --only TEXT        only rows whose name has this in it
  --contenders A,B   of ${CONTENDERS.join(", ")} (default: all)
  --json FILE        write every raw value
  --svg FILE         draw the ratios to haproxy`;

/** What is wrong with the command line, as text; empty text when help was asked for. */
export function parseOptions(args: string[]): BenchOptions | string {
  let values;
  try {
    values = parseArgs({
      args,
      options: {
        rounds: { type: "string", default: "5" },
        seconds: { type: "string", default: "2" },
        only: { type: "string", default: "" },
        contenders: { type: "string", default: CONTENDERS.join(",") },
        json: { type: "string" },
        svg: { type: "string" },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  if (values.help) return "";
  for (const name of ["rounds", "seconds"] as const) {
    if (!/^[1-9]\d{0,2}$/.test(values[name])) return `--${name} must be a whole number from 1`;
  }
  const contenders = values.contenders.split(",");
  const unknown = contenders.find((name) => !isContender(name));
  if (unknown !== undefined) return `--contenders: ${unknown} is none of ${CONTENDERS.join(", ")}`;
  return {
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    only: values.only,
    contenders: contenders.filter(isContender),
    json: values.json,
    svg: values.svg,
  };
}

function isContender(name: string): name is ContenderName {
  return (CONTENDERS as readonly string[]).includes(name);
}
