import { deepStrictEqual, match, strictEqual, throws } from "node:assert/strict";
import { parseCommandLine, UsageError } from "./command_line.ts";
import { COMMANDS, type OptionSpec } from "./options.ts";

Deno.test("a wrong number is named, with its option and what is wanted", () => {
  for (const name of ["agent", "signer"] as const) {
    const required = name === "agent" ? ["--node-name", "node-a"] : [];
    const numbers = Object.entries<OptionSpec>(COMMANDS[name].options)
      .filter(([, { check }]) => check?.("-1")?.startsWith("a whole number") === true);
    strictEqual(numbers.length > 0, true);
    for (const [option] of numbers) {
      for (const value of ["-1", "-", "-x", "", "1.5", "1e3", "9999999999"]) {
        for (const words of [[`--${option}`, value], [`--${option}=${value}`]]) {
          throws(() => parseCommandLine([name, ...required, ...words]), (error) => {
            const { message } = error as Error;
            match(message, new RegExp(`^--${option} must be a whole number from [0-9]+ to [0-9]+`));
            strictEqual(message.endsWith(`, not '${value}'`), true, message);
            return error instanceof UsageError;
          });
        }
      }
      for (const rest of [[], ["--log-level", "info"], ["-h"]]) {
        const wanted = { message: new RegExp(`^--${option} needs its [A-Z]+: try kube-gateway`) };
        throws(() => parseCommandLine([name, ...required, `--${option}`, ...rest]), wanted);
      }
    }
  }
});

Deno.test("the version is told by options, too", () => {
  const version = parseCommandLine(["version", "--json"]);
  for (const word of ["--version", "-v"]) {
    deepStrictEqual(parseCommandLine([word, "--json"]), version);
    throws(() => parseCommandLine([word, "--colour"]), /Unknown option '--colour'/);
  }
  throws(() => parseCommandLine(["-x"]), /unknown command '-x'/);
});
