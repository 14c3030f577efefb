/** `docs/rules.md`: every rule of every profile, from the rows that the oracle itself uses. */
import _ from 'lodash';
import { CAPABILITIES } from '../adapters/adapter.ts';
import { ALL_INVARIANTS } from '../conformance/invariants.ts';
import { SYSTEMS } from '../model/catalogue.ts';
import { FULL_MACHINE, printCondition, PROFILES } from '../model/core/profile.ts';
import { argumentsOf, rulesOf, type AnyTransition, type Rule } from '../model/core/specification.ts';
import { code, table } from './markdown-text.ts';

const HEADER = `# Rules

<!-- Generated from model/ by \`npm run docs\`. Change the rows there, not this file. -->

Every command of the specification with its rules. The rules of a command are tried from top to bottom, and the first
whose condition holds decides. A rule without an entry under "holds" belongs to every profile; a rule that stands in
several places or with several results has one row for each.
`;

/** What the rule answers; an error or a short answer is set as code, a sentence as text. */
const result = ({ kind, result: text }: Rule): string => (kind === 'unmodelled' ? `unmodelled: ${text}` : code(text));

const ruleRow = (rule: Rule): readonly string[] => [
  code(rule.id),
  rule.when,
  result(rule),
  rule.condition,
  rule.source,
];

function environment(transition: AnyTransition): string | undefined {
  const { mayAlso, mayLeavePrefix } = transition;
  if (mayAlso.length === 0) return undefined;
  const errors = _.groupBy(mayAlso, (error) => (typeof error === 'string' ? 'at any time' : `when ${error.when}`));
  const ends = mayLeavePrefix === true ? 'leaves what it has done so far' : 'changes nothing';
  const sentences = Object.entries(errors).map(([when, group]) => {
    const names = group.map((error) => code(typeof error === 'string' ? error : error.errno)).join(', ');
    return `May also fail with ${names} ${when}; it then ${ends}.`;
  });
  if (transition.shortened !== undefined)
    sentences.push('Stopped half-way by one of these, it succeeds and tells how far it got.');
  return sentences.join(' ');
}

function section(transition: AnyTransition): string {
  const { name, summary, does, tells, source, requires } = transition;
  const condition = printCondition(transition.only);
  const parts = [
    `### ${code(name)}`,
    summary,
    `What is done: ${does}.${tells === undefined ? '' : ` The value of a success is ${tells}.`}`,
    `Source: ${source}.`,
    condition === '' ? undefined : `Holds: ${condition}.`,
    requires === undefined ? undefined : `Needs a target that ${CAPABILITIES[requires]} (${code(requires)}).`,
    environment(transition),
    table(
      ['argument', 'values'],
      argumentsOf(transition).map(([argument, { describe }]) => [code(argument), describe]),
    ),
    table(['rule', 'when', 'result', 'holds', 'source'], rulesOf(transition, FULL_MACHINE).map(ruleRow)),
  ];
  return parts.filter((part) => part !== undefined).join('\n\n');
}

const profiles = (): string =>
  table(
    ['profile', 'what it is', 'read from'],
    PROFILES.map(({ id, title, source }) => [code(id), title, source]),
  );

const invariants = (): string =>
  table(
    ['invariant', 'sentence', 'source'],
    ALL_INVARIANTS.map(({ id, sentence, source }) => [code(id), sentence, source]),
  );

export const rulesMarkdown = (): string =>
  [
    HEADER,
    '## Profiles\n',
    `${profiles()}\n`,
    ...Object.entries(SYSTEMS).flatMap(([system, transitions]) => [
      `## Commands of ${system}\n`,
      ...transitions.map((transition) => `${section(transition as unknown as AnyTransition)}\n`),
    ]),
    '## Invariants\n',
    'Each holds at every command boundary, for every implementation.\n',
    `${invariants()}\n`,
  ].join('\n');
