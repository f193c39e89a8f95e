import { parseArgs } from "node:util";
import { errorText } from "../error_text.ts";
import { type ListenAddress, parseListenAddress } from "../listen_address.ts";
import { type CommandName, COMMANDS, type CommandSpec, type OptionSpec } from "./options.ts";

/** A command line that makes no sense: exit status 2. The message is one line. */
export class UsageError extends Error {}

export type Options = Readonly<Record<string, string | boolean | string[]>>;

/** A subcommand with its checked options, or the help that was asked for. */
export type CommandLine =
  | { readonly name: CommandName; readonly options: Options; readonly operand: string }
  | { readonly help: string };

/** Reads the command line. Throws a UsageError. */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const [first, ...others] = args;
  const [second, ...further] = others;
  const isPair = isCommand(`${first} ${second}`);
  const isVersion = first === "--version" || first === "-v";
  const name = isPair ? `${first} ${second}` : isVersion ? "version" : first;
  const rest = isPair ? further : others;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    return { help: overview() };
  }
  if (!isCommand(name)) {
    const others = Object.keys(COMMANDS).filter((each) => each.startsWith(`${name} `));
    throw new UsageError(
      others.length === 0
        ? `unknown command '${name}': try kube-gateway --help`
        : `'${args.slice(0, 2).join(" ")}' is no command: there is kube-gateway ${
          others.join(", ")
        }`,
    );
  }
  const { values: options, positionals } = parseOptions(name, rest);
  if (options.help === true) return { help: helpOf(name) };
  const [operand = "", ...more] = positionals;
  const { operand: wanted }: CommandSpec = COMMANDS[name];
  if (wanted !== undefined && (operand === "" || more.length > 0)) {
    throw new UsageError(`${name} needs one ${wanted}`);
  }
  const checked: Record<string, string | boolean | string[]> = {};
  for (const [option, spec] of Object.entries<OptionSpec>(COMMANDS[name].options)) {
    const value = options[option] ??
      (typeof spec.default === "object" ? [...spec.default] : spec.default);
    if (value === undefined) {
      if (spec.required) throw new UsageError(`${name} needs --${option} ${spec.value}`);
      continue;
    }
    for (const text of [value].flat()) {
      const problem = typeof text === "string" ? spec.check?.(text) : undefined;
      if (problem !== undefined) {
        throw new UsageError(`--${option} must be ${problem}, not '${text}'`);
      }
    }
    checked[option] = value;
  }
  return { name, options: checked, operand };
}

/** A text option that has a value, by its default or because it is required. */
export function textOption(options: Options, name: string): string {
  const value = options[name];
  if (typeof value !== "string") throw new UsageError(`--${name} is missing`);
  return value;
}

/** A text option that may be missing. */
export function optionalText(options: Options, name: string): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

/** An option whose value is a listen address; undefined when it was not given. */
export function addressOption(options: Options, name: string): ListenAddress | undefined {
  const text = optionalText(options, name);
  return text === undefined ? undefined : parseListenAddress(text);
}

/** The values of an option that may be given several times, each as `read` understands it. */
export function listOption<T>(
  options: Options,
  name: string,
  read: (text: string) => T | undefined,
): T[] {
  const texts = [options[name]].flat().filter((text) => typeof text === "string");
  return texts.flatMap((text) => read(text) ?? []);
}

/** The agents that a command asks. */
export function adminSockets(options: Options): string[] {
  return listOption(options, "admin-socket", (path) => path);
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(COMMANDS, name);
}

function parseOptions(
  name: CommandName,
  args: string[],
): { values: Options; positionals: readonly string[] } {
  const options = Object.fromEntries(
    Object.entries<OptionSpec>(COMMANDS[name].options).map(([option, spec]) => [option, {
      type: spec.value === undefined ? "boolean" as const : "string" as const,
      multiple: spec.multiple ?? false,
    }]),
  );
  try {
    const { operand }: CommandSpec = COMMANDS[name];
    const { values, positionals } = parseArgs({
      args: withValues(name, args),
      options: { ...options, help: { type: "boolean", short: "h" } },
      allowPositionals: operand !== undefined,
    });
    return { values: values as Options, positionals };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const [line] = errorText(error).split(". ");
    // deno-lint-ignore kube-gateway/keep-causes -- the line is the cause's own first sentence
    throw new UsageError(`${line}: try kube-gateway ${name} --help`);
  }
}

/**
 * With each value that begins with a dash, as negative numbers do, in one word with its option:
 * parseArgs would call it ambiguous, where the option's own check says what is wanted. Throws a
 * UsageError for an option without its value.
 */
function withValues(name: CommandName, args: readonly string[]): string[] {
  const words: string[] = [];
  for (let next = 0; next < args.length; next++) {
    const word = args[next] ?? "";
    const spec = optionOf(name, word);
    const value = args[next + 1];
    if (word === "--") return [...words, ...args.slice(next)];
    if (spec?.value === undefined) {
      words.push(word);
    } else if (value === undefined || value === "-h" || value.startsWith("--")) {
      throw new UsageError(`${word} needs its ${spec.value}: try kube-gateway ${name} --help`);
    } else {
      words.push(`${word}=${value}`);
      next++;
    }
  }
  return words;
}

function optionOf(name: CommandName, word: string): OptionSpec | undefined {
  const { options }: CommandSpec = COMMANDS[name];
  const option = word.slice("--".length);
  return word.startsWith("--") && Object.hasOwn(options, option) ? options[option] : undefined;
}

function overview(): string {
  return [
    "kube-gateway: mutual TLS between annotated pods, one agent per node.",
    "",
    "Usage: kube-gateway COMMAND [OPTIONS]",
    "",
    ...columns(
      Object.entries<CommandSpec>(COMMANDS).map(([name, { about, operand }]) => [
        operand === undefined ? name : `${name} ${operand}`,
        about,
      ]),
    ),
    "",
    "kube-gateway COMMAND --help tells a command's options.",
  ].join("\n");
}

function helpOf(name: CommandName): string {
  const { about, operand, options }: CommandSpec = COMMANDS[name];
  return [
    `kube-gateway ${name}${operand === undefined ? "" : ` ${operand}`}: ${about}.`,
    "",
    "Options:",
    ...columns(
      Object.entries<OptionSpec>(options).map(([option, spec]) => [
        `--${option}${spec.value === undefined ? "" : ` ${spec.value}`}`,
        spec.about + hint(spec),
      ]),
    ),
  ].join("\n");
}

function hint(spec: OptionSpec): string {
  if (spec.required) return " (required)";
  const text = [spec.default ?? []].flat().join(", ");
  return text === "" ? "" : ` (default: ${text})`;
}

function columns(rows: [string, string][]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}
