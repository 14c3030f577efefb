import { afterAll, afterEach, describe, expect, it, test } from '@jest/globals';
import fc from 'fast-check';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { callPrograms } from '../../properties/call-programs.ts';
import {
  AgentConnection,
  AgentFailure,
  AgentGarbled,
  AgentGone,
  AgentHung,
  AgentRefused,
  spawnAgent,
  type Departure,
} from './agent.ts';
import { LIMITS, type CallProgram, type Operand, type Step } from './calls.ts';
import { AGENT, AGENT_FUZZER, compile, type Build } from './compile.ts';
import { encodeRequest } from './wire.ts';

/** The executable, or why there is none: that is then in the title of what is skipped. */
function built(build: Build) {
  try {
    return { path: compile(build), describe, why: '' };
  } catch (error) {
    const [reason = ''] = String(error).split('\n');
    return { path: '', describe: describe.skip, why: ` (skipped: ${reason})` };
  }
}

const { path: agentPath, describe: describeAgent, why: whyNoAgent } = built(AGENT);
const { path: fuzzerPath, describe: describeFuzzer, why: whyNoFuzzer } = built(AGENT_FUZZER);

const CALL = {
  read: 0,
  write: 1,
  close: 3,
  mmap: 9,
  munmap: 11,
  pread64: 17,
  getpid: 39,
  kill: 62,
  ftruncate: 77,
  umask: 95,
  getppid: 110,
  openat: 257,
  ppoll: 271,
  getrandom: 318,
  memfd_create: 319,
} as const;

const ENOENT = 2n;
const EBADF = 9n;
const ENOSYS = 38n;
const UNKNOWN_CALL = 100_000;
const AT_FDCWD = -100n;

const value = (number: bigint | number): Operand => ({ kind: 'value', value: BigInt(number) });
const address = (offset: number): Operand => ({ kind: 'address', offset });
const result = (step: number, plus = 0n): Operand => ({ kind: 'result', step, plus });
const call = (number: number, ...args: readonly Operand[]): Step => ({ kind: 'call', number, args });
const put = (offset: number, operand: Operand, bytes: 4 | 8 = 8): Step => ({ kind: 'put', offset, bytes, operand });
const skip = (count: number, when: 'equal' | 'unequal', operand: Operand, other = 0n): Step => ({
  kind: 'skip',
  count,
  when,
  operand,
  value: other,
});
const program = (steps: readonly Step[], rest: Partial<CallProgram> = {}): CallProgram => ({
  dataBytes: 0,
  segments: [],
  outputs: [],
  steps,
  ...rest,
});
const text = (content: string): Uint8Array => Buffer.from(`${content}\0`);

const GETPID = program([call(CALL.getpid)]);
const HANG = program([call(CALL.getpid), call(CALL.ppoll, value(0), value(0), value(0))]);
const SOON = { timeoutMs: 10_000 };

/** A process that is waited for by somebody counts as gone. */
function isAlive(pid: bigint): boolean {
  try {
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

async function failureOf(run: Promise<unknown>): Promise<AgentFailure> {
  const error: unknown = await run.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof AgentFailure)) throw new Error('the run has not failed as one fails', { cause: error });
  return error;
}

describeAgent(`an agent${whyNoAgent}`, () => {
  let shared: AgentConnection | undefined;
  const agent = (): AgentConnection => (shared ??= spawnAgent());
  const run = (steps: readonly Step[], rest: Partial<CallProgram> = {}) => agent().run(program(steps, rest), SOON);
  afterAll(async () => shared?.close());

  it('is a child of this process, the first to go where memory runs out, with three descriptors', async () => {
    const [pid = 0n, parent] = (await run([call(CALL.getpid), call(CALL.getppid)])).results;
    expect(parent).toBe(BigInt(process.pid));
    expect(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8')).toBe('1000\n');
    expect(readdirSync(`/proc/${pid}/fd`)).toEqual(['0', '1', '2']);
  });

  it('returns what the kernel returns, errors too', async () => {
    const segments = [{ offset: 0, bytes: text('/dev/null') }];
    const open = (offset: number) => call(CALL.openat, value(AT_FDCWD), address(offset), value(0));
    const steps = [open(0), call(CALL.close, result(0)), call(CALL.close, result(0)), open(1), call(UNKNOWN_CALL)];
    expect((await run(steps, { dataBytes: 16, segments })).results).toEqual([3n, 0n, -EBADF, -ENOENT, -ENOSYS]);
  });

  it('hands all six arguments over, and results on to later steps', async () => {
    const steps = [
      call(CALL.memfd_create, address(0), value(0)),
      call(CALL.ftruncate, result(0), value(0x3000)),
      call(CALL.mmap, value(0), value(0x1000), value(3), value(1), result(0), value(0x2000)),
      call(CALL.write, result(0), address(16), value(8)),
      call(CALL.pread64, result(0), result(2, 0x10n), value(8), value(0)),
      call(CALL.pread64, result(0), address(24), value(8), value(0x2010)),
      call(CALL.munmap, result(2), value(0x1000)),
      call(CALL.close, result(0)),
    ];
    const { results, outputs } = await run(steps, {
      dataBytes: 32,
      segments: [
        { offset: 0, bytes: text('name') },
        { offset: 16, bytes: Buffer.from('contents') },
      ],
      outputs: [{ offset: 24, length: 8 }],
    });
    expect(results.with(2, 0n)).toEqual([3n, 0n, 0n, 8n, 8n, 8n, 0n, 0n]);
    expect(Buffer.from(outputs[0] ?? []).toString()).toBe('contents');
  });

  it('starts every program with zeroes, whatever calls have written, and lets none reach past them', async () => {
    const full = { dataBytes: LIMITS.dataBytes, outputs: [{ offset: 0, length: LIMITS.dataBytes }] };
    const random = await run([call(CALL.getrandom, address(0), value(LIMITS.dataBytes), value(0))], full);
    expect(random.results).toEqual([BigInt(LIMITS.dataBytes)]);
    expect(random.outputs[0]?.some((byte) => byte !== 0)).toBe(true);
    expect((await run([], full)).outputs[0]?.some((byte) => byte !== 0)).toBe(false);

    const steps = [
      call(CALL.openat, value(AT_FDCWD), address(0), value(0)),
      call(CALL.read, result(0), address(0x1000), value(0x2000)),
      call(CALL.close, result(0)),
    ];
    const { results } = await run(steps, { dataBytes: 0x1001, segments: [{ offset: 0, bytes: text('/dev/zero') }] });
    expect(results).toEqual([3n, 0x1000n, 0n]);
  });

  it('skips to the very end, and not further', async () => {
    const pid = call(CALL.getpid);
    expect((await run([skip(2, 'equal', value(0)), pid, pid])).results).toEqual([0n, 0n, 0n]);
    await expect(run([skip(3, 'equal', value(0)), pid, pid])).rejects.toThrow('step 0: skips 3 steps, past the end');
  });

  it('does what the steps say', async () => {
    const where = (await run([put(0, address(0))], { dataBytes: 8, outputs: [{ offset: 0, length: 8 }] })).outputs[0];
    const base = new DataView((where ?? new Uint8Array()).slice().buffer).getBigUint64(0, true);
    await fc.assert(
      fc.asyncProperty(callPrograms([CALL.umask, UNKNOWN_CALL]), async (drawn) => {
        await run([call(CALL.umask, value(0))]);
        expect(await agent().run(drawn, SOON)).toEqual(interpret(drawn, base));
      }),
      { numRuns: 300 },
    );
  });

  it('leaves no descriptor behind in a thousand programs', async () => {
    const open = call(CALL.openat, value(AT_FDCWD), address(0), value(0));
    const rest = { dataBytes: 16, segments: [{ offset: 0, bytes: text('/dev/null') }] };
    for (let count = 0; count < 1000; count++) await run([open, call(CALL.close, result(0))], rest);
    const [pid = 0n] = (await run([call(CALL.getpid)])).results;
    expect(readdirSync(`/proc/${pid}/fd`)).toHaveLength(3);
  });

  it('answers many programs that were sent at once in their order', async () => {
    const numbers = Array.from({ length: 500 }, (_each, index) => index);
    const all = await Promise.all(
      numbers.map(async (number) =>
        run([put(0, value(number))], { dataBytes: 8, outputs: [{ offset: 0, length: 8 }] }),
      ),
    );
    expect(all.map(({ outputs }) => Buffer.from(outputs[0] ?? []).readUInt32LE())).toEqual(numbers);
  });

  it('replies with 8 MiB, and with no byte more', async () => {
    const MIB = LIMITS.dataBytes;
    const outputs = (last: number) => [...Array<number>(7).fill(MIB), last].map((length) => ({ offset: 0, length }));
    const room = MIB - 16 - 8;
    const got = await run([call(CALL.getpid)], { dataBytes: MIB, outputs: outputs(room) });
    expect(got.outputs.map((each) => each.length)).toEqual([...Array<number>(7).fill(MIB), room]);
    await expect(run([call(CALL.getpid)], { dataBytes: MIB, outputs: outputs(room + 1) })).rejects.toThrow(
      'the reply would be longer than 8388608 bytes',
    );
  });

  const data = { dataBytes: 16 };
  const width = (bytes: number) => bytes as 8;
  test.each<[string, CallProgram, string]>([
    ['too much data', program([], { dataBytes: LIMITS.dataBytes + 1 }), 'the limit is 1048576'],
    ['too many steps', program(Array<Step>(65_537).fill(call(CALL.getpid))), 'the limit is 65536'],
    ['seven arguments', program([call(CALL.getpid, ...Array<Operand>(7).fill(value(0)))]), 'step 0: 7 operands'],
    ['its own result', program([call(CALL.getpid), call(CALL.close, result(1))]), 'result of step 1'],
    ['an address outside', program([call(CALL.close, address(16))], data), 'address outside of the data area'],
    ['a put outside', program([put(9, value(0))], data), 'no put of 8 bytes there'],
    ['a put of 5 bytes', program([put(0, value(0), width(5))], data), 'no put of 5 bytes there'],
    ['a load outside', program([put(0, { kind: 'load', offset: 13, bytes: 4 })], data), 'no load of 4 bytes there'],
    [
      'a load of 16 bytes',
      program([put(0, { kind: 'load', offset: 0, bytes: width(16) })], data),
      'no load of 16 bytes there',
    ],
    ['a segment outside', program([], { ...data, segments: [{ offset: 9, bytes: new Uint8Array(8) }] }), 'segment 0'],
    ['an output outside', program([], { ...data, outputs: [{ offset: 16, length: 1 }] }), 'output 0: 1 bytes'],
    ['an endless output', program([], { ...data, outputs: [{ offset: 1, length: 2 ** 32 - 1 }] }), 'output 0'],
  ])('refuses %s, and goes on', async (_what, wrong, why) => {
    const refused = agent().run(wrong, SOON);
    await expect(refused).rejects.toBeInstanceOf(AgentRefused);
    await expect(refused).rejects.toThrow(why);
    expect((await agent().run(GETPID, SOON)).results).toHaveLength(1);
  });

  it('takes as many steps as the limit says', async () => {
    const { results } = await run(Array<Step>(LIMITS.steps).fill(call(UNKNOWN_CALL)));
    expect(results).toHaveLength(LIMITS.steps);
    expect(new Set(results)).toEqual(new Set([-ENOSYS]));
  });
});

/** What a program comes to, where its calls are umask() after umask(0), and calls that do not exist. */
function interpret({ dataBytes, segments, outputs, steps }: CallProgram, base: bigint) {
  const data = new Uint8Array(dataBytes);
  const view = new DataView(data.buffer);
  for (const { offset, bytes } of segments) data.set(bytes, offset);
  const results = steps.map(() => 0n);
  const evaluate = (operand: Operand): bigint => {
    if (operand.kind === 'value') return BigInt.asUintN(64, operand.value);
    if (operand.kind === 'address') return base + BigInt(operand.offset);
    if (operand.kind === 'result') return BigInt.asUintN(64, (results[operand.step] ?? 0n) + operand.plus);
    return operand.bytes === 4 ? BigInt(view.getUint32(operand.offset, true)) : view.getBigUint64(operand.offset, true);
  };
  let mask = 0n;
  for (let index = 0; index < steps.length; index++) {
    const step = steps[index] as Step;
    if (step.kind === 'put') {
      const word = evaluate(step.operand);
      if (step.bytes === 4) view.setUint32(step.offset, Number(BigInt.asUintN(32, word)), true);
      else view.setBigUint64(step.offset, word, true);
    } else if (step.kind === 'skip') {
      const equal = evaluate(step.operand) === BigInt.asUintN(64, step.value);
      if (equal === (step.when === 'equal')) index += step.count;
    } else if (step.number === UNKNOWN_CALL) {
      results[index] = -ENOSYS;
    } else {
      results[index] = mask;
      mask = evaluate(step.args[0] ?? value(0)) & 0o777n;
    }
  }
  return { results, outputs: outputs.map(({ offset, length }) => data.slice(offset, offset + length)) };
}

describeAgent(`an agent that fails${whyNoAgent}`, () => {
  const agents: AgentConnection[] = [];
  const spawned = (): AgentConnection => {
    const agent = spawnAgent();
    agents.push(agent);
    return agent;
  };
  afterEach(async () => {
    for (const agent of agents.splice(0)) await agent.close();
  });

  it('dies in mid-program, and has told how far it came', async () => {
    const agent = spawned();
    const steps = [
      call(CALL.getpid),
      skip(1, 'unequal', result(0)),
      call(UNKNOWN_CALL),
      call(CALL.kill, result(0), value(11)),
      call(CALL.getpid),
    ];
    const gone = agent.run(program(steps), { ...SOON, stream: true });
    const never = agent.run(GETPID, SOON);
    const failure = await failureOf(gone);
    expect(failure).toBeInstanceOf(AgentGone);
    expect(failure).toMatchObject({ started: true, departure: { code: null, signal: 'SIGSEGV' } });
    expect(failure.partial).toEqual({ results: [expect.any(BigInt), 0n], outputs: [] });
    expect(await failureOf(never)).toMatchObject({ started: false, partial: { results: [] } });
    expect(await failureOf(agent.run(GETPID, SOON))).toMatchObject({ name: 'AgentGone', started: false });
  });

  it('hangs, and is killed in time', async () => {
    const agent = spawned();
    const [pid = 0n] = (await agent.run(GETPID, SOON)).results;
    const started = performance.now();
    const hung = agent.run(HANG, { timeoutMs: 150, stream: true });
    const waiting = agent.run(GETPID, { timeoutMs: 1 });
    const failure = await failureOf(hung);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(failure).toBeInstanceOf(AgentHung);
    expect(failure).toMatchObject({ started: true, partial: { results: [pid] } });
    expect(await failureOf(waiting)).toMatchObject({ name: 'AgentHung', started: false });
    expect(await agent.close()).toMatchObject({ signal: 'SIGKILL' });
    expect(isAlive(pid)).toBe(false);
  });

  it('is not blamed where this process had no time to read the answer', async () => {
    const agent = spawned();
    await agent.run(GETPID, SOON);
    const answered = agent.run(GETPID, { timeoutMs: 20 });
    for (const started = performance.now(); performance.now() - started < 300;);
    expect((await answered).results).toHaveLength(1);
  });

  it('closes its own stdout, and is not waited for', async () => {
    const failure = await failureOf(spawned().run(program([call(CALL.close, value(1))]), SOON));
    expect(failure).toBeInstanceOf(AgentGone);
  });

  it('is closed while it works', async () => {
    const agent = spawned();
    const run = agent.run(HANG, SOON);
    expect(await agent.close()).toMatchObject({ signal: 'SIGKILL' });
    expect(await failureOf(run)).toBeInstanceOf(AgentGone);
  });

  it('does not outlive the process that started it', async () => {
    const script = `
      import { spawnAgent } from './adapters/linux/agent.ts';
      const call = (number) => ({ kind: 'call', number, args: [] });
      const program = (...steps) => ({ dataBytes: 0, segments: [], outputs: [], steps });
      const agent = spawnAgent();
      const { results } = await agent.run(program(call(${CALL.getpid})), { timeoutMs: 10000 });
      void agent.run(program(call(${CALL.ppoll})), { timeoutMs: 100000 });
      console.log(String(results[0]));
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);`;
    const parent = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], {
      cwd: join(__dirname, '../..'),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let printed = '';
    parent.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    await once(parent, 'close');
    expect(printed).toMatch(/^\d+\n$/);
    for (let waited = 0; isAlive(BigInt(printed.trim())) && waited < 100; waited++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    expect(isAlive(BigInt(printed.trim()))).toBe(false);
  }, 30_000);
});

describeAgent(`the input of an agent${whyNoAgent}`, () => {
  const talk = (input: Uint8Array, ...args: readonly string[]) => spawnSync(agentPath, args, { input });
  const good = encodeRequest(GETPID, 7);
  const forge = (words: Readonly<Record<number, number>>, length = good.length): Uint8Array => {
    const message = new Uint8Array(Math.max(length, good.length));
    message.set(good);
    const view = new DataView(message.buffer);
    for (const [at, word] of Object.entries({ 0: length, ...words })) view.setUint32(Number(at), word, true);
    return message.subarray(0, length);
  };

  test('that ends between messages is the end', () => {
    expect(talk(new Uint8Array())).toMatchObject({ status: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) });
    expect(talk(Buffer.concat([good, good]))).toMatchObject({ status: 0, stdout: { length: 48 } });
  });

  test.each([
    ['begins otherwise', forge({ 4: 0x12345678 }), 'does not begin as a request does'],
    ['is too long', forge({ 0: LIMITS.messageBytes + 1 }), 'an impossible length'],
    ['is shorter than its frame', forge({ 0: 11 }), 'an impossible length'],
    ['ends in the first word', good.subarray(0, 3), 'ends inside a message'],
    ['ends in the frame', good.subarray(0, 9), 'ends inside a message'],
    ['ends in the head', good.subarray(0, 20), 'ends inside a message'],
    ['ends in a step', good.subarray(0, 50), 'ends inside a message'],
  ])('that %s ends the agent, which says so', (_what, bytes, why) => {
    const { status, stdout, stderr } = talk(bytes);
    expect({ status, stdout: stdout.length }).toEqual({ status: 2, stdout: 0 });
    expect(stderr.toString()).toMatch(why);
  });

  test.each([
    ['no more than a frame', forge({}, 12), '12 bytes are no request'],
    ['another version', forge({ 12: 2 }), 'protocol version 2; this agent speaks 1'],
    ['unknown flags', forge({ 12: 0x00060001 }), 'unknown flags 0x6'],
    ['two threads', forge({ 16: 2 }), '2 threads; this agent has one'],
    ['counts that are too large', forge({ 32: 3 }), '56 bytes, but the counts make 88'],
    ['bytes that belong to nothing', forge({}, 72), '16 bytes follow the tables, but the segments have 0'],
    ['operands that belong to nothing', forge({ 36: 1 }, 72), '1 operands that belong to no step'],
    ['operands that are missing', forge({ 40: 0x00010000 }), 'step 0: operands are missing'],
    ['a step of an unknown kind', forge({ 40: 0x00010004 }), 'step 0: unknown kind of step 4'],
    ['a field that should be zero', forge({ 40: 0x01000000 }), 'step 0: a field should be zero'],
    ['an operand of an unknown kind', forge({ 36: 1, 40: 0x00010000, 56: 4 }, 72), 'step 0: unknown kind of operand 4'],
    ['an operand with a field too many', forge({ 36: 1, 40: 0x00010000, 60: 1 }, 72), 'step 0: an operand has a field'],
  ])('with %s is refused, and the next message is answered', (_what, bytes, why) => {
    const { status, stdout } = talk(Buffer.concat([bytes, good]));
    expect(status).toBe(0);
    expect(stdout.toString('latin1')).toMatch(why);
    expect(stdout.subarray(-24, -8)).toEqual(Buffer.from(Uint32Array.of(24, 0x70726d67, 7, 0).buffer));
  });

  test('may come byte by byte', async () => {
    const child = spawn(agentPath, { stdio: ['pipe', 'pipe', 'inherit'] });
    let received = 0;
    child.stdout.on('data', (chunk: Buffer) => (received += chunk.length));
    for (const byte of [...good, ...good]) {
      child.stdin.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    child.stdin.end();
    await once(child, 'close');
    expect({ received, code: child.exitCode }).toEqual({ received: 48, code: 0 });
  });

  test('may be a file that is also the output', () => {
    const folder = mkdtempSync(join(tmpdir(), 'gmem-agent-'));
    try {
      const port = join(folder, 'port');
      writeFileSync(port, good);
      expect(talk(new Uint8Array(), port).status).toBe(0);
      expect(readFileSync(port)).toHaveLength(good.length + 24);
      expect(talk(new Uint8Array(), join(folder, 'nothing'))).toMatchObject({ status: 1 });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('a connection', () => {
  const DEPARTED: Departure = { code: 0, signal: null, stderr: '' };

  /** An agent that says what the test makes it say. */
  function pretend() {
    const said = new PassThrough();
    const connection = new AgentConnection(said, new PassThrough(), {
      kill: () => undefined,
      departed: Promise.resolve(DEPARTED),
    });
    const answer = (id: number, status: number, ...words: readonly number[]) =>
      said.write(Buffer.from(Uint32Array.of(16 + words.length * 4, 0x70726d67, id, status, ...words).buffer));
    return { said, connection, answer };
  }

  test('is over where the agent talks nonsense', async () => {
    const { said, connection } = pretend();
    const run = connection.run(GETPID, SOON);
    said.write('Kernel panic - not syncing');
    const failure = await failureOf(run);
    expect(failure).toBeInstanceOf(AgentGarbled);
    expect(failure.message).toBe('a reply does not begin as one');
    expect(await failureOf(connection.run(GETPID, SOON))).toMatchObject({ name: 'AgentGarbled', started: false });
  });

  test.each([
    ['to a request that nobody sent', [2, 0, 0, 0], 'a reply to request 2, which is not the next'],
    ['with too few results', [1, 0], 'results of 0 bytes; the program has 8'],
    ['with progress that nobody asked for', [1, 2, 0, 0, 0, 0], 'progress that was not asked for'],
  ])('is over after a reply %s', async (_what, [id = 0, status = 0, ...words], why) => {
    const { connection, answer } = pretend();
    const run = connection.run(GETPID, SOON);
    answer(id, status, ...words);
    expect(await failureOf(run)).toMatchObject({ name: 'AgentGarbled', message: why });
  });

  test.each([
    ['goes back', [0, 0]],
    ['goes past the end', [1]],
  ])('is over after progress that %s', async (_what, steps) => {
    const { connection, answer } = pretend();
    const run = connection.run(GETPID, { ...SOON, stream: true });
    for (const step of steps) answer(1, 2, step, 0, 0, 0);
    expect(await failureOf(run)).toMatchObject({
      name: 'AgentGarbled',
      message: expect.stringMatching(/^progress at/),
    });
  });

  test('is over where the stream ends', async () => {
    const { said, connection } = pretend();
    const run = connection.run(GETPID, SOON);
    said.end();
    expect(await failureOf(run)).toMatchObject({ name: 'AgentGone', departure: DEPARTED });
  });

  test('goes on after a program that cannot be sent', async () => {
    const { connection, answer } = pretend();
    await expect(connection.run(program([call(-1)]), SOON)).rejects.toThrow(RangeError);
    const run = connection.run(GETPID, SOON);
    answer(1, 0, 5, 0);
    expect(await run).toEqual({ results: [5n], outputs: [] });
    await connection.close();
  });
});

describeFuzzer(`the agent's decoder${whyNoFuzzer}`, () => {
  test('touches nothing that is not its own, whatever it is given', () => {
    const seed = String(fc.readConfigureGlobal().seed ?? Math.floor(Math.random() * 0x7fff_ffff));
    const { status, stdout, stderr } = spawnSync(fuzzerPath, ['100000', seed], { encoding: 'utf8' });
    expect({ status, stdout, stderr }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/^seed \d+\n100000 messages: /),
      stderr: '',
    });
  }, 60_000);
});
