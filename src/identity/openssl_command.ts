/** For tests: the `openssl` command as an independent judge of what is written here. */

/** What the command said; `text` is its output and its errors, in that order. */
export interface Said {
  ok: boolean;
  text: string;
  bytes: Uint8Array;
}

/** Runs `openssl` with `stdin` as its input. Never throws for a failed command; look at `ok`. */
export async function openssl(args: string[], stdin: Uint8Array = new Uint8Array()): Promise<Said> {
  const child = new Deno.Command("openssl", {
    args,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  // A command that fails early does not read its input.
  await writer.write(new Uint8Array(stdin)).then(() => writer.close()).catch(() => {});
  const { success, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { ok: success, text: decoder.decode(stdout) + decoder.decode(stderr), bytes: stdout };
}
