import _ from 'lodash';
import type { EndingEvent, McStage, TouchEvent } from '../core/machine-check.ts';
import type { GuestFact } from '../core/facts.ts';
import type { Condition } from '../core/profile.ts';
import { clause, hex, type Clause, type Invariant } from './invariant.ts';

const only: Condition = { realm: 'mc' };

const at = ({ vm, gfn }: { readonly vm: string; readonly gfn: number }): string => `gfn ${hex(gfn)} of ${vm}`;

const samePlace =
  ({ vm, gfn }: { readonly vm: string; readonly gfn: number }) =>
  (other: { readonly vm: string; readonly gfn: number }): boolean =>
    other.vm === vm && other.gfn === gfn;

/** `guests` are looked at so that the clause is one about machine checks. */
const notMappedByVmm = clause(['poisoned', 'hostMaps', 'guests'], ({ after: { poisoned, hostMaps } }) => {
  const bad = hostMaps.find(({ frame }) => poisoned.includes(frame));
  return bad && `the VMM has ${at(bad)} mapped, which is the poisoned frame ${hex(bad.frame)}`;
});

const notShownToTasks = clause(['guestPages'], ({ after: { guestPages } }) => {
  const bad = guestPages.find(({ poisoned, shownTo }) => poisoned && shownTo.length > 0);
  return bad && `task ${bad.shownTo[0] ?? 0} has ${at(bad)} mapped, which its kernel knows to be poisoned`;
});

/** What `poison/never-remapped` says where there are machine checks. */
export const neverRemapped: readonly Clause[] = [notMappedByVmm, notShownToTasks];

const isAnswered = ({ by, comesTo }: TouchEvent): boolean =>
  comesTo === 'machine-check' || (by === 'device' && comesTo === 'fault');

const answered = clause(['touches'], ({ after: { touches } }) => {
  const wrong = touches.find((each) => !isAnswered(each));
  return wrong && `a ${wrong.how} of ${at(wrong)}, which is poisoned, by a ${wrong.by}, came to a ${wrong.comesTo}`;
});

interface Guests {
  readonly guests: readonly GuestFact[];
}

/** Whether the guest was rebooted at this boundary, so that its CPUs are fresh; or so that what was taken was replaced. */
const wasRebooted = (vm: string, which: 'reboots' | 'replaced', before: Guests, after: Guests): boolean => {
  const times = ({ guests }: Guests): number => guests.find((each) => each.vm === vm)?.[which] ?? 0;
  return times(before) !== times(after);
};

/** A CPU that somebody owes a machine check: it is out of the guest for a touch of poison. */
const OWED: ReadonlySet<McStage> = new Set(['host-work', 'vmm']);

const answeredBeforeItRuns = clause(['cpus', 'guests'], ({ before, after }) => {
  const wrong = before?.cpus.find(
    ({ vm, cpu, stage }) =>
      OWED.has(stage) &&
      after.cpus.some((each) => each.vm === vm && each.cpu === cpu && each.stage === 'runs') &&
      !wasRebooted(vm, 'reboots', before, after),
  );
  return (
    wrong &&
    `CPU ${wrong.cpu} of ${wrong.vm} had left the guest for a touch of poison, and runs without a machine check`
  );
});

const untouched = clause(['isolations', 'backing'], ({ after: { isolations, backing } }) => {
  const wrong = isolations.find((each) => each.touched > 0 && backing.find(samePlace(each))?.taken === true);
  return wrong && `isolating ${at(wrong)}, which the host has taken, touched ${wrong.touched} of its lines`;
});

const isolatedIsHidden = clause(['isolations', 'guestPages', 'cpus'], ({ after: { isolations, guestPages } }) => {
  const shown = isolations.find((each) => guestPages.find(samePlace(each))?.oneToOne === 'present');
  return shown && `${at(shown)} was isolated, and the 1:1 map shows it as before`;
});

const uncached = clause(['guestPages', 'backing', 'cached'], ({ after: { guestPages, backing, cached } }) => {
  const frameAt = (page: { readonly vm: string; readonly gfn: number }): number | undefined => {
    const behind = backing.find(samePlace(page));
    return behind?.taken === false ? behind.frame : undefined;
  };
  for (const page of guestPages.filter(({ oneToOne }) => oneToOne === 'uncacheable')) {
    const frame = frameAt(page);
    const left = cached.find((each) => each.frame === frame);
    if (left !== undefined) return `${at(page)} is uncacheable, and a cache has line ${left.line} of it`;
  }
  return undefined;
});

const endsItself = clause(['endings'], ({ after: { endings } }) => {
  const wrong = endings.find(({ by, how }) => by === 'panic' && how === 'isolate');
  return wrong && `${wrong.vm} panicked because it consumed poison while it isolated the page`;
});

const isOwn = (
  { vm, task, of }: EndingEvent,
  pages: readonly { vm: string; gfn: number; has: readonly number[] }[],
): boolean =>
  of !== undefined && pages.some((page) => page.vm === vm && page.gfn === of && page.has.includes(task ?? -1));

const killedForItsOwn = clause(['endings', 'guestPages', 'cpus'], ({ before, after: { endings } }) => {
  // A command that changes nothing leaves the list as it was.
  if (before === undefined || _.isEqual(before.endings, endings)) return undefined;
  const pages = before.guestPages.map(({ vm, gfn, shownTo, poisonFor }) => ({
    vm,
    gfn,
    has: [...shownTo, ...poisonFor],
  }));
  const wrong = endings.find(
    (each) =>
      each.task !== undefined &&
      each.by === 'signal' &&
      !isOwn(each, pages) &&
      !before.cpus.some(({ vm, cpu, work }) => vm === each.vm && cpu === each.task && work !== 'none'),
  );
  return wrong && `task ${wrong.task ?? 0} of ${wrong.vm} was killed for a page that it does not have`;
});

const carried = clause(['backing', 'guests'], ({ before, after }) => {
  const back = before?.backing.find(
    (each) =>
      each.taken &&
      after.backing.find(samePlace(each))?.taken === false &&
      !wasRebooted(each.vm, 'replaced', before, after),
  );
  return back && `${at(back)} was taken, and is there again, although nobody replaced it`;
});

const othersGoOn = clause(['guests', 'cpus', 'tasks'], ({ after: { guests, cpus, tasks } }) => {
  for (const { vm, state } of guests.filter(({ disturbed }) => !disturbed)) {
    if (state !== 'running') return `${vm} is ${state}, and nothing bad was its own`;
    const stuck = cpus.find((each) => each.vm === vm && (each.stage !== 'runs' || each.work !== 'none'));
    if (stuck !== undefined) return `CPU ${stuck.cpu} of ${vm} does not go on, and nothing bad is its own`;
    const dead = tasks.find((each) => each.vm === vm && !each.alive);
    if (dead !== undefined) return `task ${dead.task} of ${vm} was killed, and nothing bad is its own`;
  }
  return undefined;
});

const MOST_CHECKS = 10;

const bounded = clause(['cpus'], ({ after: { cpus } }) => {
  const wrong = cpus.find(({ checks }) => checks > MOST_CHECKS);
  return wrong && `CPU ${wrong.cpu} of ${wrong.vm} took ${wrong.checks} machine checks, and its task did not go on`;
});

const THREAD = 'thread of "x86/mm: Don\'t try to change poison pages to uncacheable in a guest", May 2020';

/** What `poison/contained` says where there are machine checks. */
export const contained: readonly Clause[] = [endsItself, killedForItsOwn];

export const machineCheckInvariants: readonly Invariant[] = [
  {
    id: 'poison/answered-by-mce',
    sentence:
      'Any later guest access to poisoned memory, even a cache flush, is answered by a machine check, before the CPU runs again: not by a fresh page, not by a page fault, not by silence. A device is told of a fault.',
    source: `${THREAD}: Tony Luck`,
    only,
    clauses: [answered, answeredBeforeItRuns],
  },
  {
    id: 'poison/isolate-untouched',
    sentence:
      'Isolating a poisoned page that the host has taken touches none of its lines. Where the page is there, a flush consumes nothing.',
    source: `${THREAD}: Tony Luck; arch/x86/mm/pat/set_memory.c: set_mce_nospec()`,
    only,
    clauses: [untouched],
  },
  {
    id: 'poison/isolated',
    sentence: 'Once a kernel has isolated a poisoned page, its 1:1 map does not show it as it did.',
    source: 'arch/x86/mm/pat/set_memory.c: set_mce_nospec()',
    only,
    clauses: [isolatedIsHidden],
  },
  {
    id: 'poison/uncached',
    sentence:
      'Once a kernel has made a poisoned page uncacheable, no cache has a line of it, unless the host has taken it: a line that stayed would hide what memory holds.',
    source: 'arch/x86/mm/pat/set_memory.c: change_page_attr_set_clr(), cpa_flush()',
    only,
    clauses: [uncached],
  },
  {
    id: 'poison/carried',
    sentence:
      'What the host took from a guest stays so until somebody replaces it: when the guest is rebooted with other memory, or the frame is unplugged.',
    source: `${THREAD}: Tony Luck; mm/userfaultfd.c: mfill_atomic_pte_poison()`,
    only,
    clauses: [carried],
  },
  {
    id: 'poison/others-go-on',
    sentence: 'A guest in whose memory nothing is bad goes on, with its CPUs and its tasks.',
    source: 'mm/memory-failure.c: collect_procs()',
    only,
    clauses: [othersGoOn],
  },
  {
    id: 'poison/bounded',
    sentence: 'A CPU takes at most ten machine checks before its task goes on, or the guest ends.',
    source: 'arch/x86/kernel/cpu/mce/core.c: queue_task_work()',
    only,
    clauses: [bounded],
  },
];
