/** How the demo tells what it does and sees: for a person, or as one JSON object for programs. */

/** One step and what was observed in it. */
export interface Observation {
  readonly step: string;
  readonly observed: boolean;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly seconds: number;
}

export class Story {
  readonly observations: Observation[] = [];
  readonly #began = performance.now();
  #stepBegan = performance.now();
  #title = "";

  constructor(readonly json: boolean) {}

  get seconds(): number {
    return (performance.now() - this.#began) / 1000;
  }

  get isObserved(): boolean {
    return this.observations.every((step) => step.observed);
  }

  step(title: string, ...explanation: string[]): void {
    this.#title = title;
    this.#stepBegan = performance.now();
    this.#print(`\n${bold(`${this.observations.length + 1}. ${title}`)}`);
    for (const line of explanation) this.#print(`   ${line}`);
  }

  /** A line as it was captured, heard or printed. */
  quote(text: string): void {
    for (const line of text.split("\n")) this.#print(`     ${line}`);
  }

  /** Ends the step: what was seen, in words and as facts. */
  observed(sentence: string, facts: Record<string, unknown>): void {
    this.#note(true, facts);
    this.#print(`   ${green("✓")} ${sentence}`);
  }

  /** Ends the story: what should have been seen was not. */
  failed(why: string): void {
    this.#note(false, { why });
    this.#print(`   ${red("✗")} not observed: ${why}`);
  }

  end(closing: string): void {
    const { isObserved: observed, observations: steps, seconds } = this;
    if (this.json) {
      console.log(JSON.stringify({ observed, seconds, steps }, null, 2));
    } else {
      console.log(`\n${observed ? closing : red("The story broke off.")}`);
    }
  }

  #note(observed: boolean, facts: Record<string, unknown>): void {
    const seconds = (performance.now() - this.#stepBegan) / 1000;
    this.observations.push({ step: this.#title, observed, facts, seconds });
  }

  #print(line: string): void {
    if (!this.json) console.log(line);
  }
}

const colored = Deno.stdout.isTerminal() && !Deno.noColor;
const paint = (code: number) => (text: string) => colored ? `\x1b[${code}m${text}\x1b[0m` : text;
export const bold = paint(1);
export const red = paint(31);
export const green = paint(32);
export const yellow = paint(33);
export const dim = paint(2);
