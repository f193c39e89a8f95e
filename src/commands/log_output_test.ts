import { strictEqual } from "node:assert/strict";
import { LogOutput } from "./log_output.ts";

/** A pipe with so much room; what it took is `text`. */
class Pipe {
  text = "";
  room = Infinity;

  send(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.room);
    if (taken === 0) throw new Deno.errors.WouldBlock("EAGAIN");
    this.room -= taken;
    this.text += new TextDecoder().decode(bytes.subarray(0, taken));
    return taken;
  }
}

function output(most = 0): { pipe: Pipe; log: LogOutput } {
  const pipe = new Pipe();
  const notice = (dropped: ReadonlyMap<string, number>) =>
    `${[...dropped].map(([owner, count]) => `${count}${owner}`).join()} dropped\n`;
  return { pipe, log: new LogOutput((bytes) => pipe.send(bytes), notice, most) };
}

Deno.test("lines come out as they go in", () => {
  const { pipe, log } = output();
  for (const line of ["one\n", "två\n"]) log.write(line);
  strictEqual(pipe.text, "one\ntvå\n");
});

Deno.test("what nobody reads is dropped, and said when somebody does", () => {
  const { pipe, log } = output();
  pipe.room = 0;
  for (const line of ["one\n", "two\n", "three\n"]) log.write(line);
  pipe.room = Infinity;
  log.write("four\n");
  log.write("five\n");
  strictEqual(pipe.text, "3 dropped\nfour\nfive\n");
});

Deno.test("a line that was begun is ended before another one begins", () => {
  const { pipe, log } = output();
  pipe.room = 2;
  log.write("one\n");
  log.write("two\n");
  pipe.room = 3; // the end of one, and the beginning of the notice
  log.write("three\n");
  pipe.room = Infinity;
  log.write("four\n");
  log.write("five\n");
  strictEqual(pipe.text, "one\n1 dropped\n1 dropped\nfour\nfive\n");
});

Deno.test("what the reader is only late for waits for it, in order", async () => {
  const { pipe, log } = output(3);
  pipe.room = 2;
  for (const line of ["one\n", "two\n", "three\n"]) log.write(line);
  strictEqual(pipe.text, "on");
  pipe.room = Infinity;
  // Nobody writes anything more.
  const isWritten = () => pipe.text === "one\ntwo\nthree\n";
  while (!isWritten()) await new Promise((again) => setTimeout(again, 5));
});

Deno.test("one owner's flood that nobody reads in time costs no other a line", () => {
  const { pipe, log } = output(4);
  pipe.room = 0;
  for (let line = 0; line < 9; line++) log.write(`evil ${line}\n`, "evil");
  for (const line of ["shop 0\n", "shop 1\n"]) log.write(line, "shop");
  pipe.room = Infinity;
  log.write("next\n");
  strictEqual(pipe.text, "7evil dropped\nevil 0\nevil 1\nshop 0\nshop 1\nnext\n");
});

Deno.test("an agent whose log nobody reads goes on", async () => {
  const program = `
    import { getLogger } from "@logtape/logtape";
    import { configureLog } from "${import.meta.dirname}/process.ts";
    await configureLog({ "log-format": "json", "log-level": "info" });
    for (let line = 0; line < 10_000; line++) getLogger("kube-gateway").info("line {line}", { line });
    console.log("done");
  `;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", `${import.meta.dirname}/../../deno.json`, "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(program));
  await writer.close();
  const { value } = await child.stdout.getReader().read();
  strictEqual(new TextDecoder().decode(value), "done\n");
  await child.stderr.cancel();
  strictEqual((await child.status).success, true);
});
