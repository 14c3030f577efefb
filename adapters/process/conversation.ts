/** The protocol, spoken with one process. */
import type { Facts } from '../../model/core/facts.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { Observed } from '../adapter.ts';
import { Child, type ChildOptions } from './child.ts';
import { decoded, MAX_LINE_BYTES, quoted } from './lines.ts';
import {
  Breach,
  encodeHello,
  encodeReset,
  encodeRun,
  parseHello,
  parseObservations,
  type Answered,
  type Hello,
} from './protocol.ts';

/** The process went, or was sent away. */
export class Gone extends Error {}

/** The process was sent away because nobody waited any longer. */
export class Abandoned extends Gone {}

interface Question {
  /** Throws a Breach. */
  hear(answer: string): void;
  reject(error: Error): void;
}

/** Ends with the first thing that is wrong. Every question fails with that then, and the process is sent away. */
export class Conversation {
  readonly #child: Child;
  #question: Question | undefined;
  #ending: Error | undefined;
  #lines = 0;
  #runs = 0;
  #facts: Facts | undefined;
  /** When the process has ended. */
  #left: Promise<void> | undefined;

  /** Throws where the system refuses to start a process at once. */
  constructor(words: readonly [string, ...string[]], options: ChildOptions) {
    const listener = {
      onLine: (line: Buffer) => this.#hear(line),
      onTooLong: () =>
        this.#over(new Breach(`line ${this.#lines + 1}: more than the ${MAX_LINE_BYTES} bytes of a line`)),
      onGone: (how: string) => this.#over(new Gone(how)),
    };
    this.#child = new Child(words, listener, options);
  }

  /** Rejects with a Breach or with Gone, as `run` does. */
  hello(timeLimitMs: number): Promise<Hello> {
    const late = (): void => this.#over(new Gone(`did not answer hello within ${timeLimitMs / 1000} s${this.#why()}`));
    const timer = setTimeout(late, timeLimitMs);
    return this.#ask(encodeHello(), parseHello).finally(() => clearTimeout(timer));
  }

  /** What follows happens on a fresh machine. */
  reset(profile: string): void {
    this.#facts = undefined;
    this.#child.write(encodeReset(profile));
  }

  async run(commands: readonly AnyCommand[], declinesFacts: boolean): Promise<readonly Observed[]> {
    const id = ++this.#runs;
    const read = (answer: string): readonly Answered[] => parseObservations(answer, id, commands.length);
    const answered = await this.#ask(encodeRun(id, commands, declinesFacts), read);
    return answered.map(({ outcome, facts = this.#facts }) => {
      this.#facts = facts;
      return facts === undefined || declinesFacts ? { outcome } : { outcome, facts };
    });
  }

  #ask<T>(message: string, parse: (answer: string) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#ending !== undefined) throw this.#ending;
      this.#question = { hear: (answer) => resolve(parse(answer)), reject };
      this.#child.write(message);
    });
  }

  #hear(line: Buffer): void {
    if (this.#ending !== undefined) return;
    this.#lines++;
    try {
      this.#answer(line);
    } catch (error) {
      if (!(error instanceof Breach)) throw error;
      this.#over(new Breach(`line ${this.#lines}: ${error.message}: ${quoted(line)}`));
    }
  }

  #answer(line: Buffer): void {
    const text = decoded(line);
    if (text === undefined) throw new Breach('not UTF-8');
    if (this.#question === undefined) throw new Breach('nothing was asked');
    this.#question.hear(text);
    this.#question = undefined;
  }

  /** What keeps the answer away, as far as that can be seen from here. */
  #why(): string {
    const { unended } = this.#child;
    return unended === 0 ? '' : `: it has written ${unended} bytes, and no newline behind them`;
  }

  #over(ending: Error): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    this.#left = this.#child.kill();
    // What it has written to standard error by now belongs to the story.
    const question = this.#question;
    void this.#left.then(() => question?.reject(ending));
  }

  /** Sends the process away, whatever it is at, and tells what keeps its answer away, as far as that can be seen. */
  abandon(): string {
    const why = this.#why();
    this.#over(new Abandoned('was given up'));
    return why;
  }

  /** Lets the process end in its own time, if it has not ended. */
  async end(): Promise<void> {
    this.#left ??= this.#child.end();
    await this.#left;
  }
}
