import { logger } from "../../log.ts";
import { type Finding, UNSEEN, unseen } from "../pods/inspection.ts";

const log = logger("audit");

/**
 * What an audit looks at: each part compares what there is with what should be, and puts it right.
 */
export interface Audited {
  /** What was wrong, and with which pod or part; a part that throws could not be looked at. */
  readonly name: string;
  inspect(full: boolean): Finding[] | Promise<Finding[]>;
}

/** What the last audit has found. */
export interface AuditReport {
  /** When it ended, in milliseconds since 1970. */
  readonly at: number;
  readonly findings: readonly (Finding & { readonly where: string })[];
  /** How many parts were looked at. */
  readonly parts: number;
}

/**
 * Holds what the agent says of itself against what there is: every 5 s, a second after something
 * was found, and when it is asked. What it finds is mended by the part that found it, counted by
 * kind, and said.
 */
export class Audit {
  readonly #parts: () => readonly Audited[];
  readonly #repairs = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: Promise<AuditReport> | undefined;
  #stopped = false;
  /** When a line of the last audit was said. */
  #said: ReadonlyMap<string, number> = new Map();
  last: AuditReport | undefined;

  /** @param parts are asked for at each audit. */
  constructor(parts: () => readonly Audited[], readonly now = () => performance.now()) {
    this.#parts = parts;
  }

  /** What was mended since the agent started, by kind. */
  get repairs(): ReadonlyMap<string, number> {
    return this.#repairs;
  }

  start(): void {
    if (this.#stopped) return;
    const isClean = this.last === undefined || this.last.findings.length === 0;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => void this.run(false),
      isClean ? AUDIT_MILLISECONDS : REPEAT_MILLISECONDS,
    );
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /**
   * Audits now; one that is under way is waited for first. `full`: also what is too much for every
   * time.
   */
  async run(full: boolean): Promise<AuditReport> {
    while (this.#running !== undefined) await this.#running; // others may wait for the same one
    this.#running = this.#run(full);
    try {
      return await this.#running;
    } finally {
      this.#running = undefined;
      this.start();
    }
  }

  /**
   * What there is to look at; on a node that is out of descriptors, say, even that may not be
   * known.
   */
  #partsNow(): readonly Audited[] {
    try {
      return this.#parts();
    } catch (error) {
      return [{ name: "audit", inspect: () => Promise.reject(error) }];
    }
  }

  async #run(full: boolean): Promise<AuditReport> {
    const parts = this.#partsNow();
    const findings: (Finding & { where: string })[] = [];
    for (let next = 0; next < parts.length; next += PARTS_AT_ONCE) {
      const some = parts.slice(next, next + PARTS_AT_ONCE);
      const found = await Promise.all(some.map(async (part) => {
        return (await inspected(part, full)).map((finding) => ({ where: part.name, ...finding }));
      }));
      for (const finding of found.flat()) {
        const { kind, count = 1 } = finding;
        findings.push(finding);
        this.#repairs.set(kind, (this.#repairs.get(kind) ?? 0) + count);
      }
      // A node has more to do than this.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    this.#say(findings);
    return this.last = { at: Date.now(), findings, parts: parts.length };
  }

  /** What is found again and again is said once a minute, not each time. */
  #say(findings: AuditReport["findings"]): void {
    const said = new Map<string, number>();
    for (const [key, { kind, what, places }] of linesOf(findings)) {
      const before = this.#said.get(key);
      const isDue = before === undefined || this.now() - before >= SAY_AGAIN_MILLISECONDS;
      said.set(key, isDue ? this.now() : before);
      if (!isDue) continue;
      const [first = ""] = places;
      const where = places.length === 1 ? first : `${first} and ${places.length - 1} more`;
      log.warn("{where}: {what}", { where, kind, what });
    }
    this.#said = said;
  }
}

/**
 * What is to be said of findings, by what makes two of them the same: for one reason why something
 * cannot be looked at that is one line, however many parts it keeps from being looked at.
 */
function linesOf(findings: AuditReport["findings"]): Map<string, Line> {
  const lines = new Map<string, Line>();
  for (const { where, kind, what } of findings) {
    const key = kind === UNSEEN ? what : `${where}: ${what}`;
    const line = lines.get(key);
    if (line === undefined) lines.set(key, { kind, what, places: [where] });
    else line.places.push(where);
  }
  return lines;
}

interface Line {
  readonly kind: string;
  readonly what: string;
  readonly places: string[];
}

async function inspected(part: Audited, full: boolean): Promise<Finding[]> {
  try {
    return await part.inspect(full);
  } catch (error) {
    return [unseen(error)];
  }
}

const AUDIT_MILLISECONDS = 5_000;
const REPEAT_MILLISECONDS = 1_000;
const SAY_AGAIN_MILLISECONDS = 60_000;

/**
 * Their handshakes run at the same time: a processor that is woken once for many does each of them
 * in half the time.
 */
const PARTS_AT_ONCE = 16;
