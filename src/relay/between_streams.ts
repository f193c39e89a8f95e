import { FrameError, type FrameHandler } from "./frame.ts";

/** Of a tunnel that carries no stream: no frame may arrive on it. */
export abstract class BetweenStreams implements FrameHandler {
  readonly accepting = true;

  open(): void {
    this.#unexpected("OPEN");
  }

  accept(): void {
    this.#unexpected("ACCEPT");
  }

  refuse(): void {
    this.#unexpected("REFUSE");
  }

  data(): void {
    this.#unexpected("DATA");
  }

  end(): void {
    this.#unexpected("END");
  }

  reset(): void {
    this.#unexpected("RESET");
  }

  batchEnd(): void {}

  drained(): void {}

  #unexpected(frame: string): never {
    throw new FrameError(`${frame} on a tunnel that carries no stream`);
  }
}
