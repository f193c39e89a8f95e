import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { type Answers, HttpServer } from "../http_server.ts";
import { errorText } from "../error_text.ts";
import { logger } from "../log.ts";

const log = logger("admin");

/** How often an agent looks whether its socket can still be found. */
const LOOK_MILLISECONDS = 2_000;

/**
 * An HTTP server on a unix socket that only root can open. A socket that somebody has removed or
 * replaced is made again, and one that is another's is not removed at the end.
 */
export class AdminSocket implements Disposable {
  #bound: Bound;
  readonly #timer: ReturnType<typeof setInterval>;
  #failed = false;

  /** Takes the place of what is there. Throws an Error that says why when it cannot. */
  constructor(readonly path: string, readonly answers: Answers) {
    this.#bound = bind(path, answers);
    this.#timer = setInterval(() => this.#look(), LOOK_MILLISECONDS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#bound.server[Symbol.dispose]();
    if (inodeOf(this.path) === this.#bound.inode) rmSync(this.path, { force: true });
  }

  #look(): void {
    if (inodeOf(this.path) === this.#bound.inode) return;
    try {
      const before = this.#bound.server;
      this.#bound = bind(this.path, this.answers);
      before[Symbol.dispose]();
      log.warn("{path} was removed or replaced: it is made again", { path: this.path });
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) log.error("{error}", { error: errorText(error) });
      this.#failed = true;
    }
  }
}

interface Bound {
  readonly server: HttpServer;
  readonly inode: bigint;
}

function bind(path: string, answers: Answers): Bound {
  // Made under another name: it is root's alone before anybody can find it, and Deno, which removes
  // what it has bound to when it closes it, does not remove what may be another's by then.
  const made = `${path}.${Deno.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    rmSync(made, { force: true });
    const listener = Deno.listen({ transport: "unix", path: made });
    try {
      chmodSync(made, 0o600);
      renameSync(made, path);
      const { ino: inode } = lstatSync(path, { bigint: true });
      return { server: new HttpServer(listener, answers), inode };
    } catch (error) {
      listener.close();
      throw error;
    }
  } catch (cause) {
    throw new Error(`cannot make the admin socket ${path}: ${cause}`, { cause });
  }
}

/** Undefined when there is nothing. */
function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}
