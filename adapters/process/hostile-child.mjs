/*
 * An implementation that knows one answer, which is right for `fd.close fd=none`, and misbehaves in the way that its
 * argument names. A second argument is a file that tells whether it has done so before.
 */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [, , mode = 'none', marker = ''] = process.argv;

const isAgain = marker !== '' && existsSync(marker);
if (marker !== '') writeFileSync(marker, '');

const HELLO = { type: 'hello', protocol: 1, name: 'hostile', version: mode };
const OBSERVATION = { outcome: { kind: 'errno', errno: 'EBADF' } };

/** All of it, whatever the pipe can take at once. */
function put(bytes, fd = 1) {
  for (let rest = Buffer.from(bytes); rest.length > 0;) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

const say = (message) => put(`${JSON.stringify(message)}\n`);
const answer = ({ id, commands }, change = {}) =>
  say({ type: 'observations', id, observations: commands.map(() => OBSERVATION), ...change });
const one = (run, observation) => answer(run, { observations: [observation] });
const outcome = (run, value) => one(run, { outcome: value });
const idle = () => setInterval(() => undefined, 1000);
const wrongAnswer = (text) => () => put(`${text}\n`);
/** In the middle of a program, and not at its start. */
const at = (name, { commands }) => commands.some((command) => command.name === name);

/** What each mode does in the place of an answer to hello. */
const GREETINGS = {
  'exits at once': () => {
    put('cannot open /dev/kvm\n', 2);
    process.exit(3);
  },
  'says nothing': idle,
  'says hello in prose': wrongAnswer('hello!'),
  'says half of hello': () => put('{"type":"hello"'),
  'speaks another protocol': () => say({ ...HELLO, protocol: 2 }),
  'has an unknown command': () => say({ ...HELLO, commands: ['fd.close', 'vm.destroy'] }),
  'has an impossible machine': () => say({ ...HELLO, machine: { guestPhysicalBits: 200 } }),
  'answers before it is asked': () => {
    say(HELLO);
    answer({ id: 1, commands: [{}] });
  },
  'is another when it is started again': () => say({ ...HELLO, name: isAgain ? 'somebody else' : 'hostile' }),
  'floods with lines': () => {
    say(HELLO);
    for (;;) put('{"type":"observations"}\n'.repeat(1000));
  },
};

/** What each mode does in the place of an answer to run. */
const ANSWERS = {
  'exits at fd.dup': (run) => (at('fd.dup', run) ? process.exit(7) : answer(run)),
  'is killed at fd.dup': (run) => (at('fd.dup', run) ? process.kill(process.pid, 'SIGSEGV') : answer(run)),
  'exits once': (run) => (isAgain ? answer(run) : process.exit(7)),
  'breaks the protocol once': (run) => (isAgain ? answer(run) : say({ type: 'bye' })),
  'is another when it is started again': () => process.exit(7),
  'exits behind its answer': (run) => {
    answer(run);
    process.exit(0);
  },
  'closes its output': () => {
    closeSync(1);
    idle();
  },
  'closes its input': (run) => {
    closeSync(0);
    answer(run);
    idle();
  },
  'says half a line': () => {
    put('{"type":"observations","id":1');
    process.exit(0);
  },
  'says nothing behind its answer': ({ id }) =>
    put(JSON.stringify({ type: 'observations', id, observations: [OBSERVATION] })),
  'says what is no JSON': wrongAnswer("{'type': 'observations'}"),
  'says an empty line': wrongAnswer(''),
  'says what is no UTF-8': () => put(Buffer.from([0x22, 0xff, 0xfe, 0x1b, 0x22, 0x0a])),
  'says an unknown message': () => say({ type: 'bye', '\u001b[31m': true }),
  'answers for another run': (run) => answer(run, { id: run.id + 1 }),
  'answers twice': (run) => {
    answer(run);
    answer(run);
  },
  'observes too much': (run) => answer(run, { observations: [...run.commands, {}].map(() => OBSERVATION) }),
  'observes too little': (run) => answer(run, { observations: [] }),
  'has a million facts': (run) => one(run, { ...OBSERVATION, facts: { vms: new Array(1_000_000).fill(0) } }),
  'writes without end': () => {
    const megabyte = Buffer.alloc(1024 * 1024, 'x');
    for (;;) put(megabyte);
  },
  'hangs once': (run) => (isAgain ? answer(run) : setTimeout(() => answer(run), 500)),
  hangs: idle,
  'hangs with a child, and ignores SIGTERM': () => {
    process.on('SIGTERM', () => undefined);
    const stubborn =
      'process.on("SIGTERM", () => 0); setInterval(() => 0, 1000); process.stderr.write(process.pid + "\\n")';
    spawn(process.execPath, ['-e', stubborn], { stdio: 'inherit' });
    put(`${process.pid}\n`, 2);
  },
  'reports a crash': (run) => outcome(run, { kind: 'crash', message: 'slot 3 is listed \u001b[31mtwice' }),
  'does not support it': (run) => outcome(run, { kind: 'unsupported', message: 'not yet' }),
  'complains without end': (run) => {
    for (let kilobytes = 0; kilobytes < 3000; kilobytes++) put(`${'so much\u001b[2J'.repeat(90)}\n`, 2);
    put('the end\n', 2);
    answer(run);
  },
  'complains and dies': () => {
    put('this is \u001b[31mtoo much\n', 2);
    process.exit(1);
  },
  'lives on': (run) => {
    idle();
    answer(run);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (message.type === 'hello') (GREETINGS[mode] ?? (() => say(HELLO)))();
  else if (message.type === 'run') (ANSWERS[mode] ?? answer)(message);
}
