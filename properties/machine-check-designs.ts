/**
 * What five kernels make of a page that is bad: what comes of isolating it and of touching it again; and, for each invariant
 * that a design concedes, the shortest program that breaks it.
 */
import type { McGuest } from '../model/core/machine-check.ts';
import type { Outcome } from '../model/core/outcome.ts';
import { profileById } from '../model/core/profile.ts';
import type { State } from '../model/core/state.ts';
import type { Flaw } from './flaws.ts';
import { after, withCpusRunning } from './machine-check-progress.ts';
import { parse, specify } from './support.ts';

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

const CREATED = 'guest.create guest=guest0 memory=ordinary';
/** The host takes a page of the guest. */
const TAKEN = [CREATED, 'page.simulate guest=guest0 gfn=0 where=host'];
/** A VMM tells a guest of a bad page by a machine check that says nothing of unmapping, and the kernel has it isolated. */
const ISOLATED = [
  'mce.set guest=guest0 cpu=0 bank=0 severity=required valid=yes gfn=0',
  'kernel.handle guest=guest0 cpu=0',
  'kernel.recover guest=guest0 by=0',
  'kernel.isolate guest=guest0 by=0',
];
/** The VMM has said that it unmapped the page, and the worker of the kernel has it isolated. */
const ISOLATED_AS_TOLD = [
  'vmm.answer guest=guest0 by=main',
  'kernel.handle guest=guest0 cpu=0',
  'kernel.recover guest=guest0 by=worker',
  'kernel.isolate guest=guest0 by=worker',
];

/** The flush leaves the guest, and comes back as a machine check in the kernel. */
const SECOND = ['vmm.answer guest=guest0 by=0', 'kernel.handle guest=guest0 cpu=0'];

/** Each invariant that a profile concedes. */
export const FLAWS: readonly Flaw[] = [
  {
    profile: 'set-uc-in-guest',
    invariant: 'poison/isolate-untouched',
    program: text([...TAKEN, ...ISOLATED_AS_TOLD]),
  },
  {
    profile: 'set-uc-in-guest',
    invariant: 'poison/contained',
    program: text([...TAKEN, ...ISOLATED_AS_TOLD, ...SECOND]),
  },
  { profile: 'guest-check', invariant: 'poison/isolated', program: text([CREATED, ...ISOLATED]) },
  { profile: 'vmm-signals-unmap', invariant: 'poison/isolate-untouched', program: text([...TAKEN, ...ISOLATED]) },
  { profile: 'vmm-signals-unmap', invariant: 'poison/contained', program: text([...TAKEN, ...ISOLATED, ...SECOND]) },
];

/** Task 0 has loaded what is bad, was killed for it, and the second step of the work is left. */
const consumed = (profile: string): string =>
  text([
    'guest.create guest=guest0 memory=ordinary',
    'page.alloc guest=guest0 gfn=0 use=anon owner=both cpu=0',
    'hw.poison guest=guest0 gfn=0 line=0',
    'task.touch guest=guest0 task=0 gfn=0 line=0 how=load value=0',
    ...(profileById(profile).features.includes('virtual')
      ? ['host.recover guest=guest0 cpu=0', 'vmm.answer guest=guest0 by=0']
      : []),
    'kernel.handle guest=guest0 cpu=0',
    'kernel.recover guest=guest0 by=0',
  ]);

const ISOLATE = 'kernel.isolate guest=guest0 by=0';

export interface Question {
  readonly what: string;
  readonly commands: readonly string[];
}

/** What may happen to the page once the kernel knows of it. The last command is what is asked about. */
export const QUESTIONS: readonly Question[] = [
  { what: 'the kernel isolates the page', commands: [ISOLATE] },
  {
    what: 'the kernel loads from the page before it is isolated',
    commands: ['kernel.touch guest=guest0 cpu=1 gfn=0 line=0 how=load value=0'],
  },
  {
    what: 'the kernel loads from the bad line later',
    commands: [ISOLATE, 'kernel.touch guest=guest0 cpu=1 gfn=0 line=0 how=load value=0'],
  },
  {
    what: 'the kernel loads from the good line later',
    commands: [ISOLATE, 'kernel.touch guest=guest0 cpu=1 gfn=0 line=1 how=load value=0'],
  },
  {
    what: 'the kernel flushes a line later',
    commands: [ISOLATE, 'kernel.touch guest=guest0 cpu=1 gfn=0 line=0 how=flush value=0'],
  },
  {
    what: 'the kernel copies from the page later, with a fixup',
    commands: [ISOLATE, 'kernel.touch guest=guest0 cpu=1 gfn=0 line=0 how=copy value=0'],
  },
  {
    what: 'another task that had the page touches it',
    commands: [ISOLATE, 'task.touch guest=guest0 task=1 gfn=0 line=0 how=load value=0'],
  },
  {
    what: 'a device reads the bad line',
    commands: [ISOLATE, 'device.read guest=guest0 gfn=0 line=0'],
  },
];

export interface Answer {
  /** Undefined where the guest had ended before. */
  readonly outcome: Outcome | undefined;
  /** What became of the guest when everybody had done what was due. */
  readonly guest: McGuest['state'];
}

const guestIn = (state: State): McGuest['state'] => state.mc.guests.get('guest0')?.state ?? 'killed';

/** What the last command comes to in the profile, and the guest by it. */
export function answerTo({ commands }: Question, profile: string): Answer {
  const specification = specify(profile);
  let state = specification.initial;
  for (const command of parse(specification, consumed(profile))) ({ state } = specification.step(state, command));
  let outcome: Outcome | undefined;
  for (const line of commands) {
    outcome = undefined;
    if (guestIn(state) !== 'running') break;
    ({ state, outcome } = after(specification, state, line));
    state = withCpusRunning(specification, state, 'guest0');
  }
  return { outcome, guest: guestIn(state) };
}
