/** Conversations with an agent: over any pair of streams, and with one that is a child of this process. */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { CallProgram, CallResults } from './calls.ts';
import { AGENT, compile } from './compile.ts';
import type { MemoryLimit } from './memory-limit.ts';
import { decodeResults, encodeRequest, GarbledReply, ReplyReader, type Reply } from './wire.ts';

/** How an agent ended. */
export interface Departure {
  /** Neither code nor signal: it did not die of SIGKILL. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The end of what it wrote to stderr. */
  readonly stderr: string;
  /** Why it went, where that is known. */
  readonly reason?: string;
}

/** Who is at the other end of a connection. */
export interface Peer {
  /** The number of its process, where that is one of this machine. */
  readonly pid?: number | undefined;
  /** Ends it by force. May be called when that was done already. */
  kill(): void;
  /** Resolves some time after kill() in any case. */
  readonly departed: Promise<Departure>;
}

/** The conversation is over. Every program that was not answered fails with one of these, and every later one. */
export abstract class AgentFailure extends Error {
  /** False where the agent had not come to the program: an earlier one was being executed, or the agent was gone. */
  readonly started: boolean;
  /** How far the program got, if it was to be streamed. */
  readonly partial: CallResults;

  constructor(message: string, started: boolean, partial: CallResults) {
    super(message);
    this.started = started;
    this.partial = partial;
  }
}

/** The agent died or was closed. */
export class AgentGone extends AgentFailure {
  override readonly name = 'AgentGone';
  readonly departure: Departure;

  constructor(departure: Departure, started: boolean, partial: CallResults) {
    const { code, signal, stderr, reason } = departure;
    const how =
      signal !== null ? `was killed by ${signal}` : code !== null ? `exited with ${code}` : 'does not die of SIGKILL';
    const told = [reason, stderr.trimEnd()].filter((each) => each !== undefined && each !== '');
    super([`the agent ${how}`, ...told].join(': '), started, partial);
    this.departure = departure;
  }
}

/** A program took longer than it was given. */
export class AgentHung extends AgentFailure {
  override readonly name = 'AgentHung';
}

/** The agent answered something that is no answer. */
export class AgentGarbled extends AgentFailure {
  override readonly name = 'AgentGarbled';
}

/** The agent did not take the program, and executed nothing of it. The conversation goes on. */
export class AgentRefused extends Error {
  override readonly name = 'AgentRefused';
}

export interface RunOptions {
  /** Counted from when the agent can begin with the program. */
  readonly timeoutMs: number;
  /** Has every result sent at once: slower, but after a failure it is known which step was the last. */
  readonly stream?: boolean;
}

interface Pending extends Required<RunOptions> {
  readonly id: number;
  readonly program: CallProgram;
  readonly reached: bigint[];
  resolve(results: CallResults): void;
  reject(error: Error): void;
}

type Ending = (started: boolean, partial: CallResults) => AgentFailure;

export class AgentConnection {
  readonly #input: Readable;
  readonly #output: Writable;
  readonly #peer: Peer;
  readonly #reader = new ReplyReader();
  /** In the order in which they were sent; the agent is at the first. */
  readonly #pending: Pending[] = [];
  #lastId = 0;
  #timer: NodeJS.Timeout | undefined;
  #ending: Ending | undefined;

  constructor(input: Readable, output: Writable, peer: Peer) {
    this.#input = input;
    this.#output = output;
    this.#peer = peer;
    const deliver = (reply: Reply) => this.#deliver(reply);
    input.on('data', (chunk: Uint8Array) => {
      try {
        this.#reader.push(chunk, deliver);
      } catch (error) {
        if (!(error instanceof GarbledReply)) throw error;
        this.#end((started, partial) => new AgentGarbled(error.message, started, partial));
      }
    });
    // What the streams have to say besides: the agent is not there any more. How it went, the peer knows better.
    for (const stream of [input, output]) stream.on('error', () => this.#lose());
    input.on('close', () => this.#lose());
  }

  get pid(): number | undefined {
    return this.#peer.pid;
  }

  /** Rejects with an AgentFailure or AgentRefused, or with a RangeError where the program cannot be sent. */
  run(program: CallProgram, { timeoutMs, stream = false }: RunOptions): Promise<CallResults> {
    return new Promise((resolve, reject) => {
      if (this.#ending !== undefined) throw this.#ending(false, { results: [], outputs: [] });
      const id = (this.#lastId + 1) >>> 0;
      const request = encodeRequest(program, id, stream);
      this.#lastId = id;
      this.#pending.push({ id, program, timeoutMs, stream, reached: [], resolve, reject });
      if (this.#pending.length === 1) this.#watch();
      this.#output.write(request);
    });
  }

  /** Kills the agent, whatever it is at, and waits until it is gone. */
  async close(): Promise<Departure> {
    this.#lose();
    return this.#peer.departed;
  }

  #deliver(reply: Reply): void {
    const [pending] = this.#pending;
    if (pending?.id !== reply.id) throw new GarbledReply(`a reply to request ${reply.id}, which is not the next`);
    if (reply.status === 'progress') {
      progress(pending, reply.step, reply.result);
      return;
    }
    const results = reply.status === 'done' ? decodeResults(pending.program, reply.body) : undefined;
    this.#pending.shift();
    this.#watch();
    if (results !== undefined) pending.resolve(results);
    else if (reply.status === 'refused') pending.reject(new AgentRefused(reply.reason));
  }

  /** Gives the program that is next its time. */
  #watch(): void {
    clearTimeout(this.#timer);
    const [pending] = this.#pending;
    if (pending === undefined) return;
    const judge = () => {
      if (this.#pending[0] !== pending) return;
      const message = `the agent has not ended the program in ${pending.timeoutMs} ms`;
      this.#end((started, partial) => new AgentHung(message, started, partial));
    };
    // Where this process was busy all the time, the answer may be there and wait to be read.
    this.#timer = setTimeout(() => setImmediate(judge), pending.timeoutMs);
  }

  /** Nobody is there any more, or shall be. How the agent went is told when it has gone. */
  #lose(): void {
    clearTimeout(this.#timer);
    this.#peer.kill();
    void this.#peer.departed.then((departure) => {
      this.#end((started, partial) => new AgentGone(departure, started, partial));
    });
  }

  #end(ending: Ending): void {
    if (this.#ending !== undefined) return;
    this.#ending = ending;
    clearTimeout(this.#timer);
    this.#input.destroy();
    this.#output.destroy();
    this.#peer.kill();
    for (const [index, pending] of this.#pending.entries())
      pending.reject(ending(index === 0, { results: pending.reached, outputs: [] }));
    this.#pending.length = 0;
  }
}

/** Steps that were skipped send nothing. */
function progress({ stream, program, reached }: Pending, step: number, result: bigint): void {
  if (!stream) throw new GarbledReply('progress that was not asked for');
  if (step < reached.length || step >= program.steps.length)
    throw new GarbledReply(`progress at step ${step} after ${reached.length} of ${program.steps.length} steps`);
  while (reached.length < step) reached.push(0n);
  reached.push(result);
}

/** So much of stderr is kept. */
const STDERR_CHARACTERS = 4096;
/** After SIGKILL a process is gone at once, or it is stuck in the kernel. */
const STUCK_MS = 5000;
/** What a dying process has written arrives at once; only a process that inherited its stderr keeps it open longer. */
const DRAIN_MS = 200;

/** The agent as a child of this process. Nothing else is ever sent a signal. `why` is asked when it has ended. */
function peerOf(child: ChildProcessByStdio<Writable, Readable, Readable>, why: () => string | undefined): Peer {
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_CHARACTERS);
  });
  let depart: () => void;
  const departed = new Promise<Departure>((resolve) => {
    depart = () => {
      child.unref();
      child.stderr.destroy();
      const reason = why();
      resolve({ code: child.exitCode, signal: child.signalCode, stderr, ...(reason !== undefined && { reason }) });
    };
    child.once('close', depart);
    child.once('exit', () => setTimeout(depart, DRAIN_MS));
    child.once('error', (error) => {
      stderr += error.message;
      depart();
    });
  });
  const kill = () => {
    if (child.kill('SIGKILL')) setTimeout(depart, STUCK_MS).unref();
  };
  return { pid: child.pid, kill, departed };
}

/**
 * Compiles the agent, unless that was done before, and starts it, under the limit if there is one; it dies with the
 * thread that calls this, if not before. Throws NoCompiler or CompileFailed.
 */
export function spawnAgent(limit?: MemoryLimit): AgentConnection {
  const killsBefore = limit?.kills;
  const child = spawn(compile(AGENT), { stdio: 'pipe' });
  try {
    if (child.pid !== undefined) limit?.admit(child.pid);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  const why = (): string | undefined =>
    limit !== undefined && (limit.kills ?? 0) > (killsBefore ?? 0) ? `${limit.inWords} reached` : undefined;
  return new AgentConnection(child.stdout, child.stdin, peerOf(child, why));
}
