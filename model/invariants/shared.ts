import type { Condition } from '../core/profile.ts';
import { notCanonical } from '../sev/shared-set.ts';
import { clause, type Invariant } from './invariant.ts';

const only: Condition = { realm: 'page-status' };

const printed = (ranges: readonly { readonly start: number; readonly end: number }[]): string =>
  ranges.length === 0
    ? 'nothing'
    : ranges.map(({ start, end }) => `0x${start.toString(16)}-0x${end.toString(16)}`).join(' ');

const complete = clause(['announced', 'records'], ({ after: { announced, records } }) => {
  for (const { guest, ranges } of announced) {
    const record = records.find((each) => each.guest === guest);
    if (record?.incomplete === true) continue;
    const [said, known] = [printed(ranges), printed(record?.ranges ?? [])];
    if (said !== known) return `${guest} shares ${said}, and what is recorded is ${known}, without the mark`;
  }
  return undefined;
});

const canonical = clause(['records'], ({ after: { records } }) => {
  for (const { guest, ranges, incomplete } of records) {
    const how = notCanonical(ranges);
    if (how !== undefined) return `of what is recorded of ${guest}, ${how}`;
    if (incomplete && ranges.length > 0)
      return `the record of ${guest} is incomplete, and has ${printed(ranges)} all the same`;
  }
  return undefined;
});

/** A few allocations and steps belong to every record and every call. */
const OVERHEAD = 4;
const BYTES_PER_UNIT = 64;
const STEPS_PER_UNIT = 8;

const bounded = clause(['statusWork'], ({ after: { statusWork } }) => {
  for (const { guest, units, bytes, calls, steps } of statusWork) {
    const [mostBytes, mostSteps] = [BYTES_PER_UNIT * (units + OVERHEAD), calls * STEPS_PER_UNIT * (units + OVERHEAD)];
    if (bytes > mostBytes)
      return `the record of ${guest} takes ${bytes} bytes, of ${mostBytes} that ${units} units may take`;
    if (steps > mostSteps)
      return `${calls} calls of ${guest} took ${steps} steps, of ${mostSteps} that ${units} units may take`;
  }
  return undefined;
});

const THREAD = 'thread of v2 "Add AMD SEV specific Hypercall3", December 2020 and January 2021';

export const sharedInvariants: readonly Invariant[] = [
  {
    id: 'shared/complete-or-flagged',
    sentence: 'What is recorded as shared is what the guest shares, or it is flagged as incomplete.',
    source: `${THREAD}: Steve Rutherford`,
    only,
    clauses: [complete],
  },
  {
    id: 'shared/bounded',
    sentence: 'Memory and work that a guest’s call costs the host are bounded, whatever the guest sends.',
    source: `${THREAD}: Ashish Kalra, Steve Rutherford`,
    only,
    clauses: [bounded],
  },
  {
    id: 'shared/canonical',
    sentence:
      'Recorded ranges are sorted, disjoint, not adjacent and not empty, in every representation; a record that is incomplete has none.',
    source: `${THREAD}: Ashish Kalra`,
    only,
    clauses: [canonical],
  },
];
