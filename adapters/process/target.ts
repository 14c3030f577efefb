/** A program in any language behind the adapter contract: docs/protocol.md. */
import _ from 'lodash';
import { FULL_MACHINE, profileById, type Machine, type Profile } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import {
  TargetFailure,
  UnavailableError,
  type Capability,
  type ExecuteOptions,
  type Observed,
  type Target,
} from '../adapter.ts';
import type { ChildOptions } from './child.ts';
import { Abandoned, Conversation, Gone } from './conversation.ts';
import { Breach, COMMANDS_IN_A_RUN, type Hello } from './protocol.ts';
import { Stderr } from './stderr.ts';
import { wordsOf } from './words.ts';

export interface ProcessOptions extends Omit<ChildOptions, 'onStderr'> {
  /** How long a process may take to say who it is. */
  readonly helloMs?: number | undefined;
  /** Sees what the program writes to standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

const HELLO_MS = 60_000;

interface Job {
  readonly program: readonly AnyCommand[];
  readonly profile: Profile;
  /** There are facts, and nobody wants them. */
  readonly declinesFacts: boolean;
}

export class ProcessTarget implements Target {
  readonly name: string;
  readonly about: string;
  readonly capabilities: ReadonlySet<Capability>;
  readonly missing: Partial<Record<Capability, string>>;
  readonly machine: Machine;
  readonly commands?: ReadonlySet<string>;
  readonly profile?: Profile;
  readonly #launcher: Launcher;
  readonly #hello: Hello;
  #conversation: Conversation;
  /** Nothing more can be had from the conversation, and that was told. */
  #isSpent = false;

  private constructor(commandLine: string, launcher: Launcher, conversation: Conversation, hello: Hello) {
    this.name = `process:${commandLine}`;
    this.#launcher = launcher;
    this.#conversation = conversation;
    this.#hello = hello;
    const { name, version, capabilities, missing, machine, commands, profile } = hello;
    this.about = version === undefined ? name : `${name} ${version}`;
    this.capabilities = new Set(capabilities);
    this.missing = missing;
    this.machine = { ...FULL_MACHINE, ...machine };
    if (commands !== undefined) this.commands = new Set(commands);
    if (profile !== undefined) this.profile = profileById(profile);
  }

  /** Starts the program and asks it what it is. Throws a RangeError or an UnavailableError. */
  static async open(commandLine: string, options: ProcessOptions = {}): Promise<ProcessTarget> {
    const launcher = new Launcher(wordsOf(commandLine), options);
    try {
      const conversation = launcher.launch();
      return new ProcessTarget(commandLine, launcher, conversation, await launcher.hello(conversation));
    } catch (error) {
      throw new UnavailableError(`target 'process:${commandLine}' is not available: ${launcher.story(error)}`);
    }
  }

  /** Rejects with a TargetFailure where nothing can be said of the implementation. */
  async execute(
    program: readonly AnyCommand[],
    profile: Profile,
    { facts = true }: ExecuteOptions = {},
  ): Promise<readonly Observed[]> {
    const job = { program, profile, declinesFacts: !facts && this.capabilities.has('facts') };
    const observed: Observed[] = [];
    try {
      await this.#run(job, COMMANDS_IN_A_RUN, observed);
      return observed;
    } catch (error) {
      if (!isFault(error)) throw error;
      return await this.#onceMore(job, error);
    }
  }

  /** Tells `observed` what it gets to see. Rejects with a Breach or with Gone. */
  async #run({ program, profile, declinesFacts }: Job, atOnce: number, observed: Observed[]): Promise<void> {
    const conversation = await this.#ready();
    try {
      conversation.reset(profile.id);
      for (const commands of _.chunk(program, atOnce)) {
        observed.push(...(await conversation.run(commands, declinesFacts)));
        if (isLast(observed.at(-1))) return;
      }
    } catch (error) {
      this.#isSpent = true;
      throw error;
    }
  }

  /** With a new process and one command at a time, to see which it is that the first process did not survive. */
  async #onceMore(job: Job, first: Breach | Gone): Promise<readonly Observed[]> {
    const observed: Observed[] = [];
    try {
      await this.#run(job, 1, observed);
    } catch (error) {
      if (!isFault(error)) throw error;
      return [...observed, crash(error)];
    }
    // Whoever broke the protocol has done so, be it once.
    if (first instanceof Breach) return [crash(first)];
    throw new TargetFailure(`${this.#launcher.story(first)}; given the same program once more, it did not`);
  }

  /** The process that is there, or a new one. */
  async #ready(): Promise<Conversation> {
    if (!this.#isSpent) return this.#conversation;
    await this.#conversation.end();
    try {
      this.#conversation = this.#launcher.launch();
      const hello = await this.#launcher.hello(this.#conversation);
      this.#isSpent = !_.isEqual(hello, this.#hello);
    } catch (error) {
      if (error instanceof Abandoned) throw error;
      throw new TargetFailure(`started again, ${this.#launcher.story(error)}`);
    }
    if (!this.#isSpent) return this.#conversation;
    throw new TargetFailure('started again, the implementation answers another hello');
  }

  abandon(): string {
    this.#isSpent = true;
    return this.#conversation.abandon();
  }

  log(): string {
    return this.#launcher.stderr.end;
  }

  async close(): Promise<void> {
    await this.#conversation.end();
  }
}

/** The process went or broke the protocol, and nobody sent it away. */
const isFault = (error: unknown): error is Breach | Gone =>
  error instanceof Breach || (error instanceof Gone && !(error instanceof Abandoned));

const sentence = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Breach) return `the implementation broke the protocol: ${message}`;
  return error instanceof Gone ? `the implementation ${message}` : message;
};

const crash = (fault: Breach | Gone): Observed => ({ outcome: { kind: 'crash', message: sentence(fault) } });

const isLast = (observed: Observed | undefined): boolean =>
  observed?.outcome.kind === 'crash' || observed?.outcome.kind === 'unsupported';

const STORY_CHARACTERS = 1000;

/** Starts the program, as often as it takes. */
class Launcher {
  readonly stderr: Stderr;
  readonly #words: readonly [string, ...string[]];
  readonly #options: ProcessOptions;

  constructor(words: readonly [string, ...string[]], options: ProcessOptions) {
    this.#words = words;
    this.#options = options;
    this.stderr = new Stderr(options.onStderr);
  }

  launch(): Conversation {
    return new Conversation(this.#words, { ...this.#options, onStderr: this.stderr.add });
  }

  hello(conversation: Conversation): Promise<Hello> {
    return conversation.hello(this.#options.helloMs ?? HELLO_MS);
  }

  /** What went wrong, and what the program had to say. */
  story(error: unknown): string {
    const written = this.stderr.end.trim().slice(-STORY_CHARACTERS);
    return written === '' ? sentence(error) : `${sentence(error)}; on standard error it said: ${written}`;
  }
}
