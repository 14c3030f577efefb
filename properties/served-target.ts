/**
 * A target of the kit behind the process protocol: `served-target.ts NAME [COMMAND…]`, with those commands only where some
 * are named. What tests of the protocol have to do with is a child that conforms, or diverges as a mutant does.
 */
import { createInterface } from 'node:readline';
import type { Observed } from '../adapters/adapter.ts';
import { targetByName } from '../adapters/targets.ts';
import { parse, specify } from './support.ts';

interface Message {
  readonly type: string;
  readonly id: number;
  readonly profile: string;
  readonly facts?: false;
  readonly commands: readonly { readonly name: string; readonly args: Readonly<Record<string, string>> }[];
}

/** Numbers of 64 bits as strings, and null for what is not there. */
const encoded = (message: object): string =>
  `${JSON.stringify(message, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : (value ?? null)))}\n`;

async function serve(name: string, commands: readonly string[]): Promise<void> {
  const target = await targetByName(name);
  const capabilities = [...target.capabilities];
  let profile = specify().config.profile.id;
  /** All since the last reset, so that a program may come in parts. */
  let lines: string[] = [];

  async function answer({ type, id, ...message }: Message): Promise<object | undefined> {
    if (type === 'hello')
      return {
        type,
        protocol: 1,
        name: `served ${name}`,
        capabilities,
        ...(commands.length === 0 ? {} : { commands }),
      };
    if (type === 'reset') {
      ({ profile } = message);
      lines = [];
      return undefined;
    }
    const known = lines.length;
    for (const { name: command, args } of message.commands)
      lines.push([command, ...Object.entries(args).map(([key, value]) => `${key}=${value}`)].join(' '));
    const specification = specify(profile);
    const observed: readonly Observed[] = [
      ...(await target.execute(parse(specification, lines.join('\n')), specification.config.profile)),
    ];
    const changed = observed.map((each, index) =>
      each.facts === observed[index - 1]?.facts || message.facts === false ? { outcome: each.outcome } : each,
    );
    return { type: 'observations', id, observations: changed.slice(known) };
  }

  for await (const line of createInterface({ input: process.stdin })) {
    const answered = await answer(JSON.parse(line) as Message);
    if (answered !== undefined) process.stdout.write(encoded(answered));
  }
}

const [, , name = 'simulator', ...commands] = process.argv;
await serve(name, commands);
