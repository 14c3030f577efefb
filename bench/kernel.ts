/** Checked commands a second on /dev/kvm, and what the agent makes of the same programs where nobody checks. */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import type { CallProgram } from '../adapters/linux/calls.ts';
import { AGENT, compile } from '../adapters/linux/compile.ts';
import { newestKernel } from '../adapters/linux/kernels.ts';
import { kvmUnavailable, openKvm } from '../adapters/linux/kvm.ts';
import { lower } from '../adapters/linux/lower.ts';
import { openQemu, qemuUnavailable } from '../adapters/linux/qemu-target.ts';
import type { KernelTarget } from '../adapters/linux/target.ts';
import { encodeRequest, ReplyReader } from '../adapters/linux/wire.ts';
import { checkProgram } from '../conformance/check.ts';
import { Generator, type GeneratedProgram } from '../conformance/generate.ts';
import { SmallFastRandom } from '../conformance/random.ts';
import type { Program } from '../model/core/program.ts';
import type { Specification } from '../model/core/specification.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { median, takeTurns, wallRatios, type Contestant, type Measured } from './measure.ts';
import { count, printTable, ratio, say } from './print.ts';
import { MAX_COMMANDS, specify } from './subjects.ts';

/** An agent that is sent what was encoded before; what it answers is told apart, and not looked at. */
class BareAgent {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  #answered: () => void = () => undefined;

  constructor() {
    this.#child = spawn(compile(AGENT), { stdio: ['pipe', 'pipe', 'inherit'] });
    const reader = new ReplyReader();
    this.#child.stdout.on('data', (chunk: Uint8Array) => reader.push(chunk, () => this.#answered()));
  }

  /** Sends so many at once, and the next when one is answered. */
  run(requests: readonly Uint8Array[], inFlight: number): Promise<void> {
    return new Promise((resolve) => {
      let [sent, answered] = [0, 0];
      const send = () => {
        const request = requests[sent++];
        if (request !== undefined) this.#child.stdin.write(request);
      };
      this.#answered = () => {
        if (++answered === requests.length) resolve();
        else send();
      };
      for (let first = 0; first < inFlight; first++) send();
    });
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }
}

const SEED = 5;

/** The part of a program that is executed: up to where the specification falls silent. */
function executed({ commands, trace }: GeneratedProgram): Program {
  const silent = trace.findIndex(({ unmodelled }) => unmodelled !== undefined);
  return silent < 0 ? commands : commands.slice(0, silent);
}

async function measure(target: KernelTarget, { quick }: BenchOptions): Promise<unknown> {
  const programs = quick ? 50 : 100;
  const specification = specify(target.machine, target.profile.id);
  // The same seed from the start gives the same programs.
  const written = function* (): Iterable<GeneratedProgram> {
    const generator = new Generator(specification, { maxCommands: MAX_COMMANDS, capabilities: target.capabilities });
    const random = new SmallFastRandom(SEED, 1, 2, 3);
    for (let program = 0; program < programs; program++) yield generator.generate(random);
  };
  const prepared = [...written()];
  const lowered = prepared.map((program): CallProgram => lower(executed(program), target.machine).calls);
  const requests = lowered.map((calls, id) => encodeRequest(calls, id));
  const commands = prepared.reduce((sum, program) => sum + executed(program).length, 0);
  const agents = [new BareAgent(), new BareAgent()] as const;

  /** As a run does it: the next program is written while the target executes this one, and facts are dear. */
  const check = async (list: Iterable<GeneratedProgram>): Promise<number> => {
    let [begun, index] = [Promise.resolve(), 0];
    for (const program of list) {
      await begun;
      begun = checked(specification, target, program, index++ % target.factsEvery === 0);
      // Until the target has sent it; fast-check's own steps take as long.
      await Promise.resolve();
    }
    await begun;
    return commands;
  };
  const bare = (name: string, inFlight: number): Contestant => ({
    name,
    run: async () => {
      await agents[0].run(requests, inFlight);
      return commands;
    },
  });
  const contestants: readonly Contestant[] = [
    bare('agent, one program at a time', 1),
    { name: 'kit: generate, lower, execute, check', run: () => check(written()) },
    { name: '  of it: lower, execute, check', run: () => check(prepared) },
    {
      name: '  of it: generate and step',
      run: () => [...written()].reduce((sum, program) => sum + executed(program).length, 0),
    },
    bare('agent, two programs in flight', 2),
    {
      name: 'two agents, two programs in flight in each',
      run: async () => {
        const halves = [0, 1].map((half) => requests.filter((_request, index) => index % 2 === half));
        await Promise.all(agents.map((agent, half) => agent.run(halves[half] ?? [], 2)));
        return commands;
      },
    },
  ];
  try {
    const measured = await takeTurns(contestants, quick ? { warmUps: 1, rounds: 3 } : { warmUps: 1, rounds: 5 });
    const results = show(measured, programs / commands);
    const steps = lowered.reduce((sum, calls) => sum + calls.steps.length, 0);
    say(
      `\nLinux ${target.kernel.release}, ${target.kernel.backEnd}; ${programs} programs, ${commands} commands, ${steps} steps`,
    );
    return { kernel: target.kernel.release, backEnd: target.kernel.backEnd, programs, commands, steps, results };
  } finally {
    for (const agent of agents) agent.close();
  }
}

async function checked(
  specification: Specification,
  target: KernelTarget,
  { commands, trace }: GeneratedProgram,
  facts: boolean,
): Promise<void> {
  const verdict = await checkProgram({ specification, target, facts }, commands, trace);
  // A divergence takes no less time than conformance.
  if (verdict.kind === 'inconclusive') throw new Error(verdict.reason);
}

/** Programs a second through the whole kit, on the newest kernel in QEMU. */
async function measureQemu({ quick }: BenchOptions): Promise<unknown> {
  const target = await openQemu({});
  try {
    const specification = specify(target.machine, target.profile.id);
    const generator = new Generator(specification, { maxCommands: MAX_COMMANDS, capabilities: target.capabilities });
    const random = new SmallFastRandom(SEED, 1, 2, 3);
    const programs = quick ? 50 : 200;
    const start = performance.now();
    let commands = 0;
    for (let program = 0; program < programs; program++) {
      const written = generator.generate(random);
      commands += executed(written).length;
      await checked(specification, target, written, program % target.factsEvery === 0);
    }
    const seconds = (performance.now() - start) / 1000;
    const [programsPerSecond, commandsPerSecond] = [programs / seconds, commands / seconds];
    say(
      `\nin QEMU: ${target.about}; ${programs} programs: ${ratio(programsPerSecond)} a second, ${count(commandsPerSecond)} commands`,
    );
    return { kernel: target.kernel.release, programs, commands, programsPerSecond, commandsPerSecond };
  } finally {
    await target.close();
  }
}

/** Everything beside the first, which is the agent alone. */
function show(measured: readonly Measured[], programsPerCommand: number): unknown {
  const floor = measured[0] as Measured;
  const results = measured.map((each) => ({
    name: each.name.trim(),
    commandsPerSecond: 1e9 / each.wall,
    programsPerSecond: (1e9 / each.wall) * programsPerCommand,
    /** How many times as fast as the agent alone, in each round. */
    speeds: wallRatios(floor, each),
  }));
  say(
    printTable(
      ['', 'commands/s', 'programs/s', 'speed, agent = 1', 'least', 'most'],
      results.map(({ commandsPerSecond, programsPerSecond, speeds }, index) => [
        (measured[index] as Measured).name,
        count(commandsPerSecond),
        count(programsPerSecond),
        ratio(median(speeds)),
        ratio(speeds[0] ?? NaN),
        ratio(speeds.at(-1) ?? NaN),
      ]),
    ),
  );
  return results;
}

async function measureKvm(options: BenchOptions): Promise<unknown> {
  const target = await openKvm();
  try {
    return await measure(target, options);
  } finally {
    await target.close();
  }
}

async function kernel(options: BenchOptions): Promise<unknown> {
  const part = async (name: string, lacking: string | undefined, work: () => Promise<unknown>): Promise<unknown> => {
    if (lacking === undefined) return await work();
    say(`${name} is left out: ${lacking}`);
    return { unavailable: lacking };
  };
  const noKernel = newestKernel('debian', 'built') === undefined ? 'run scripts/debian-kernel' : undefined;
  return {
    kvm: await part('/dev/kvm', kvmUnavailable(), () => measureKvm(options)),
    qemu: await part('QEMU', qemuUnavailable() ?? noKernel, () => measureQemu(options)),
  };
}

export const KERNEL: Bench = {
  name: 'kernel',
  question: 'How much of what a kernel can do in a second does the kit let it do?',
  run: kernel,
};
