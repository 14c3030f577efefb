/** docs/protocol.md is what others write implementations from, without our code: what it shows must be true. */
import { describe, expect, it } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Answer, encodeHello, encodeReset, encodeRun, PROTOCOL } from '../adapters/process/protocol.ts';
import { ALL_CAPABILITIES } from '../adapters/adapter.ts';
import { expectationsOf } from '../conformance/check.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { PROFILES } from '../model/core/profile.ts';
import { generated, parse, specify } from './support.ts';

const DOCS = join(__dirname, '..', 'docs');
const PAGE = readFileSync(join(DOCS, 'protocol.md'), 'utf8');

function validator(name: string): (message: unknown) => string {
  const ajv = new Ajv2020({ discriminator: true, strict: false });
  const validate = ajv.compile(JSON.parse(readFileSync(join(DOCS, name), 'utf8')) as object);
  return (message) => (validate(message) ? 'valid' : ajv.errorsText(validate.errors));
}

const request = validator('protocol-requests.schema.json');
const answer = validator('protocol-answers.schema.json');

interface Message {
  readonly from: 'kit' | 'implementation';
  readonly text: string;
}

/** The lines of the conversation, unwrapped. */
function conversation(): readonly Message[] {
  const [, block = ''] = /^## A conversation$[^]*?```text\n([^]*?)```/m.exec(PAGE) ?? [];
  return block
    .split(/^(?=[<>] )/m)
    .filter((message) => message !== '')
    .map((message) => ({
      from: message.startsWith('>') ? 'kit' : 'implementation',
      text: JSON.stringify(JSON.parse(message.slice(1))),
    }));
}

interface Run {
  readonly commands: readonly { readonly name: string; readonly args: Readonly<Record<string, string>> }[];
}

describe('the conversation in docs/protocol.md', () => {
  const messages = conversation();

  it('has messages of both sides, each as its schema says', () => {
    expect(messages.map(({ from }) => from).join(' ')).toMatch(/^kit implementation kit kit implementation /);
    for (const { from, text } of messages)
      expect([text, (from === 'kit' ? request : answer)(JSON.parse(text))]).toEqual([text, 'valid']);
  });

  it('is what the kit would write, and what the specification expects', () => {
    const specification = specify();
    const runs = messages
      .filter(({ text }) => text.includes('"type":"run"'))
      .map(({ text }) => JSON.parse(text) as Run);
    const programs = runs.map(({ commands }) =>
      commands
        .map(({ name, args }) => [name, ...Object.entries(args).map(([key, value]) => `${key}=${value}`)].join(' '))
        .join('\n'),
    );
    expect(programs).toHaveLength(2);
    const written = programs.flatMap((text, index) => [
      encodeReset('linux-7.3'),
      encodeRun(index + 1, parse(specification, text)),
    ]);
    const kit = messages.filter(({ from }) => from === 'kit').map(({ text }) => `${text}\n`);
    expect(kit).toEqual([encodeHello(), ...written]);

    const observed = messages
      .filter(({ text }) => text.includes('"observations"'))
      .map(({ text }) => Answer.parse(JSON.parse(text)))
      .map((message) => ('observations' in message ? message.observations.map(({ outcome }) => outcome) : []));
    const expected = programs.map((text) =>
      expectationsOf(specification, parse(specification, text)).map(({ outcome }) => outcome),
    );
    expect(observed).toEqual(expected);
  });
});

describe('docs/protocol.md', () => {
  it('is about the version that is spoken, and its examples of outcomes and of hello are valid', () => {
    expect(PAGE).toContain(`Version ${PROTOCOL}.`);
    const [, hello = ''] = /```json\n([^]*?)```/.exec(PAGE) ?? [];
    expect(answer(JSON.parse(hello))).toBe('valid');
    const outcomes = [...PAGE.matchAll(/`(\{"kind":.*?\})`/g)].map(([, text = '']) => JSON.parse(text) as object);
    const observation = [...PAGE.matchAll(/`(\{"outcome":.*?\})`/g)].map(([, text = '']) => JSON.parse(text) as object);
    expect(observation).toHaveLength(1);
    expect(outcomes.length).toBeGreaterThanOrEqual(9);
    const observations = [...outcomes.map((outcome) => ({ outcome })), ...observation];
    expect(answer({ type: 'observations', id: 1, observations })).toBe('valid');
    expect(Answer.safeParse({ type: 'observations', id: 1, observations }).success).toBe(true);
  });

  it.each(ALL_CAPABILITIES)('leads to a reference that has the capability %s', (capability) => {
    expect(readFileSync(join(DOCS, 'protocol-reference.md'), 'utf8')).toContain(`\n| \`${capability}\` |`);
  });
});

describe.each(PROFILES.map(({ id }) => id))('programs of %s', (profile) => {
  const specification = specify(profile);
  const programs = [...generated(specification, { programs: 40 })];

  it('are runs by the schema', () => {
    for (const { commands } of programs) expect(request(JSON.parse(encodeRun(7, commands)))).toBe('valid');
  });

  it('tell values where the reference says so, and only there', () => {
    const tells = new Map(CATALOGUE.map((each) => [each.name, each.tells]));
    const told = programs.flatMap(({ commands, trace }) =>
      trace.flatMap(({ outcome, unmodelled }, at) =>
        outcome.kind === 'ok' && unmodelled === undefined ? [{ name: commands[at]?.name ?? '', outcome }] : [],
      ),
    );
    // Of some commands, the way in which they are called says whether there is a value to tell.
    const isRight = (text: string | undefined, hasValue: boolean): boolean =>
      text?.includes(', where it is ') === true || (text !== undefined) === hasValue;
    expect(told.filter(({ name, outcome }) => !isRight(tells.get(name), outcome.value !== undefined))).toEqual([]);
  });
});

it('a run by the schema says no command that there is not, and leaves no argument out', () => {
  expect(request({ type: 'run', id: 1, commands: [{ name: 'vm.destroy', args: {} }] })).not.toBe('valid');
  expect(request({ type: 'run', id: 1, commands: [{ name: 'fd.close', args: {} }] })).not.toBe('valid');
});
