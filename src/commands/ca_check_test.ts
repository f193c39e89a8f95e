import { match, strictEqual } from "node:assert/strict";
import { errorText } from "../error_text.ts";
import { type Made, make, secretOf } from "../signer/made_cas.ts";
import { caCheckCommand } from "./ca_check.ts";
import { parseCommandLine, UsageError } from "./command_line.ts";

const EC = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=x";
const CA = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
const LIMITED = "-addext nameConstraints=critical,permitted;IP:192.168.0.0/255.255.0.0";

Deno.test("a CA is tried in every form in which it may lie in a file", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const made = await make(directory, "limited", `${EC} ${CA} ${LIMITED}`);
    await make(directory, "other", `${EC} ${CA}`);
    const file = async (name: string, text: string) => {
      await Deno.writeTextFile(`${directory}/${name}`, text);
      return `${directory}/${name}`;
    };
    const both = await file("both", made.certificate + made.key);
    const manifest = await file(
      "manifest",
      JSON.stringify({ apiVersion: "v1", kind: "Secret", ...secretOf(made) as object }),
    );
    const clear = await file("clear", manifestOf(made));
    const [certificate, key] = [`${directory}/limited.crt`, `${directory}/limited.key`];
    for (
      const [args, code, said] of [
        [[both], 0, /^ok: peers accept what "CN=x" signs for cluster\.local\nit ends at 20/],
        [[manifest], 0, /^ok/],
        [[clear], 0, /^ok/],
        [[certificate, "--key", key], 0, /^ok/],
        [[both, "--address", "192.168.0.9"], 0, /ok: for a pod at 192\.168\.0\.9, too/],
        [[both, "--address", "10.0.0.1"], 1, /permitted subtree violation/],
        [[both, "--trust-domain", "corp.example"], 0, /^ok/],
        [[certificate], 2, /limited\.crt holds no private key: name the file that does with --key/],
        [[certificate, "--key", certificate], 1, /^[^:]*limited\.crt: tls\.key is no private key/],
        [[certificate, "--key", `${directory}/other.key`], 1, /not the key of tls\.crt/],
        [
          [`${directory}/none`],
          2,
          /^cannot read [^:]*none: No such file[^:]*: .*: name a file that/,
        ],
        [[directory], 2, /^cannot read [^:]*: Is a directory/],
        [[certificate, "--key", `${directory}/none`], 2, /^cannot read [^:]*none: No such file/],
        [[], 2, /ca check needs one FILE/],
        [[both, both], 2, /ca check needs one FILE/],
        [[both, "--address", "web"], 2, /--address must be an IP address/],
      ] as const
    ) {
      const ended = await run(args);
      strictEqual(ended.code, code, `${args}: ${ended.text}`);
      match(ended.text, said);
      strictEqual(/PRIVATE|MII/.test(ended.text), false, "no part of a key");
      strictEqual(
        ended.text.includes("Secret kube-gateway-ca"),
        false,
        "it names what it was given",
      );
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

function manifestOf({ certificate, key }: Made): string {
  const indented = (text: string) => text.trimEnd().replaceAll("\n", "\n    ");
  return `apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: { name: kube-gateway-ca }
stringData:
  tls.crt: |
    ${indented(certificate)}
  tls.key: |
    ${indented(key)}
`;
}

/** The command in this process: what it ends with, and what it says. */
async function run(args: readonly string[]): Promise<{ code: number; text: string }> {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => void lines.push(line);
  try {
    const command = parseCommandLine(["ca", "check", ...args]);
    if ("help" in command) return { code: 0, text: command.help };
    await caCheckCommand(command.operand, command.options);
    return { code: 0, text: lines.join("\n") };
  } catch (error) {
    return { code: error instanceof UsageError ? 2 : 1, text: errorText(error) };
  } finally {
    console.log = log;
  }
}
