import { Lines } from "../lines.ts";

/** A running process as the controller needs it: one of a lab's is one, too. */
export interface Running {
  readonly pid: number;
  readonly stdout: Lines;
  readonly stderr: Lines;
  kill(signal?: Deno.Signal): void;
  /** Ends it and waits until it is gone. */
  stop(signal?: Deno.Signal): Promise<number>;
}

/** Where the server runs: a lab's node, pod or outside, or the test's own surroundings. */
export interface Spawner {
  spawn(argv: string[], options?: { stdin?: boolean }): Running;
}

/**
 * Processes in the test's own network namespace and cgroup. They end with their stdin, so with the
 * test.
 */
export const HOST: Spawner = {
  spawn([program = "", ...args]) {
    const child = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const [stdout, stderr] = [new Lines(child.stdout), new Lines(child.stderr)];
    const finish = async () => {
      const [{ code }] = await Promise.all([child.status, stdout.ended, stderr.ended]);
      await child.stdin.close().catch(() => {}); // It is closed already when the process is gone.
      return code;
    };
    const exited = finish();
    const kill = (signal: Deno.Signal = "SIGKILL") => {
      try {
        child.kill(signal);
      } catch {
        // It has ended already, which is what was wanted.
      }
    };
    const stop = (signal: Deno.Signal = "SIGKILL") => {
      kill(signal);
      return exited;
    };
    return { pid: child.pid, stdout, stderr, kill, stop };
  },
};
