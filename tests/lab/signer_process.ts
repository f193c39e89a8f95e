import { HOST, type Running } from "./api_server/host_process.ts";
import { until } from "./delay.ts";

/** A running `kube-gateway signer`: the real command. */
export class SignerProcess {
  readonly #process: Running;
  readonly #port = freePort();

  constructor(kubeconfig: string, args: string[] = []) {
    this.#process = HOST.spawn([
      ...[Deno.execPath(), "run", "-A", "--quiet", MAIN, "signer"],
      ...["--kubeconfig", kubeconfig, "--health-address", `127.0.0.1:${this.#port}`],
      ...["--log-format", "json", ...args],
    ]);
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** What `/healthz` or `/readyz` answers: `200 ok`. */
  async probe(path: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.#port}${path}`);
    return `${response.status} ${(await response.text()).trim()}`;
  }

  /** Waits until it could sign, leading or not. */
  async ready(timeoutMs = 10_000): Promise<void> {
    let said = "nothing";
    await until(
      async () => {
        said = await this.probe("/readyz").catch((error) => String(error));
        return said.startsWith("200");
      },
      timeoutMs,
      () => `the signer is not ready: ${said}\n${this.log}`,
    );
  }

  /** Its log so far, JSON lines. */
  get log(): string {
    return this.#process.stderr.all.join("\n");
  }

  /** SIGSTOP: it holds its connections and does nothing. */
  freeze(): void {
    this.#process.kill("SIGSTOP");
  }

  thaw(): void {
    this.#process.kill("SIGCONT");
  }

  /** @returns the exit code, 128 + the signal's number when it ended by that. */
  async stop(signal: Deno.Signal = "SIGTERM"): Promise<number> {
    return await this.#process.stop(signal);
  }
}

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
