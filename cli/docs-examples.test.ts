/** The command lines in docs/examples are ones that this version takes. */
import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { addReport } from './report.ts';
import { addRun } from './run.ts';

const program = new Command('gmem-conformance').exitOverride().configureOutput({ writeErr: () => undefined });
addRun(program);
addReport(program);

function load(name: string): unknown {
  const [document, ...others] = parseAllDocuments(readFileSync(join(__dirname, '../docs/examples', name), 'utf8'));
  expect(others).toEqual([]);
  expect([document?.errors, document?.warnings]).toEqual([[], []]);
  return document?.toJS();
}

/** Every text in a document, wherever it stands. */
const textsIn = (value: unknown): readonly string[] =>
  typeof value === 'string'
    ? [value]
    : typeof value === 'object' && value !== null
      ? Object.values(value).flatMap(textsIn)
      : [];

/** What is written for values that only the runner knows. */
const VALUES: readonly (readonly [RegExp, string])[] = [
  [/\$\{\{ matrix\.shard \}\}|\$SHARD\b/g, '2'],
  [/\$\{\{ strategy\.job-total \}\}|\$SHARDS\b/g, '8'],
  [/\$SEED\b/g, '1'],
  [/\$GITHUB_STEP_SUMMARY\b/g, 'summary.md'],
];

const wordsOf = (line: string): readonly string[] =>
  VALUES.reduce((text, [name, value]) => text.replace(name, value), line)
    .replaceAll('"', '')
    .trim()
    .split(/\s+/);

/** Takes the words as the command line does; what is wrong with them is thrown. */
function take(words: readonly string[], command: Command = program): readonly string[] {
  const subcommand = command.commands.find((each) => each.name() === words[0]);
  if (subcommand !== undefined) return take(words.slice(1), subcommand);
  const { operands, unknown } = command.parseOptions([...words]);
  expect([command.commands.length, unknown]).toEqual([0, []]);
  return operands;
}

describe.each([
  ['github-workflow.yml', 2],
  ['github-shards.yml', 2],
  ['kubernetes-job.yaml', 1],
])('docs/examples/%s', (name, commands) => {
  test('runs commands that there are', () => {
    const lines = textsIn(load(name)).flatMap((text) => /cli\/main\.ts (.*)/s.exec(text)?.[1] ?? []);
    expect(lines).toHaveLength(commands);
    for (const line of lines) {
      expect(wordsOf(line).join(' ')).not.toContain('$');
      expect(() => take(wordsOf(line))).not.toThrow();
    }
  });
});

test('a word that no option is would be noticed', () => {
  expect(() => take(['run', '--shard', '9/8'])).toThrow();
  expect(() => take(['run', '--shards', '8'])).toThrow();
  expect(take(['report', 'merge', 'a.json'])).toEqual(['a.json']);
});

test('docs/examples/kubernetes-job.yaml has as many shards as completions, and tries no divergence again', () => {
  const { spec } = load('kubernetes-job.yaml') as {
    spec: {
      completionMode: string;
      completions: number;
      podFailurePolicy: { rules: readonly [{ onExitCodes: { containerName: string; values: readonly number[] } }] };
      template: { spec: { containers: readonly [{ name: string; env: readonly { name: string; value: string }[] }] } };
    };
  };
  const [container] = spec.template.spec.containers;
  expect(spec.completionMode).toBe('Indexed');
  expect(container.env).toContainEqual({ name: 'SHARDS', value: `${spec.completions}` });
  const [{ onExitCodes }] = spec.podFailurePolicy.rules;
  expect(onExitCodes).toMatchObject({ containerName: container.name, values: [1, 2, 4] });
});
