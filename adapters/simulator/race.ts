/**
 * Two commands at the same time: one runs, as a whole, at a hand-over point within the other. So every schedule can be had
 * in which an operation is interrupted once by another one.
 */
import type { Facts } from '../../model/core/facts.ts';
import type { Observation, Outcome } from '../../model/core/outcome.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { Observed, Raced, Schedule } from '../adapter.ts';
import { WouldBlock, type Kernel } from './kernel.ts';

/** A machine in which a command can be interrupted. */
export interface Racing extends Pick<Kernel, 'onHandOver'> {
  /** One command, with the events of its own. */
  run(command: AnyCommand): Outcome;
  /** A command that may run within another one. */
  execute(command: AnyCommand): Outcome;
  forgetEvents(): void;
  facts(): Facts;
}

export function race(machine: Racing, program: readonly AnyCommand[], schedule: Schedule): Raced {
  const observed: Observed[] = [];
  let midway: readonly Facts[] = [];
  for (let at = 0; at < program.length; at++) {
    if (at !== schedule.at) {
      observed.push(step(machine, () => [machine.run(program[at] as AnyCommand)])[0] as Observed);
    } else {
      const pair = [program[at], program[++at]] as [AnyCommand, AnyCommand];
      const raced = raceOf(machine, pair, schedule);
      if (typeof raced === 'string') return raced;
      observed.push(...raced.observed);
      ({ midway } = raced);
    }
    if (observed.at(-1)?.outcome.kind === 'crash') break;
  }
  return { observed, midway };
}

/** What is thrown is a crash of the machine, but for what says that the schedule is none. */
function step(machine: Racing, run: () => readonly Observation[]): readonly Observed[] {
  try {
    const outcomes = run();
    const facts = machine.facts();
    return outcomes.map((outcome, index) => (index === outcomes.length - 1 ? { outcome, facts } : { outcome }));
  } catch (error) {
    if (error instanceof NoSchedule) throw error;
    return [{ outcome: { kind: 'crash', message: error instanceof Error ? error.message : String(error) } }];
  }
}

class NoSchedule extends Error {}

function raceOf(
  machine: Racing,
  [first, second]: readonly [AnyCommand, AnyCommand],
  { interrupted, point }: Schedule,
): Raced {
  const [outer, inner] = interrupted === 'first' ? [first, second] : [second, first];
  const midway: Facts[] = [];
  let points = 0;
  let within: Observation | undefined;
  machine.onHandOver = () => {
    if (points++ !== point) return;
    machine.onHandOver = undefined;
    midway.push(machine.facts());
    within = attempt(() => machine.execute(inner));
    midway.push(machine.facts());
  };
  try {
    const observed = step(machine, () => {
      machine.forgetEvents();
      const around = machine.execute(outer);
      if (within === undefined) throw new NoSchedule('no-such-point');
      return interrupted === 'first' ? [around, within] : [within, around];
    });
    return { observed, midway };
  } catch (error) {
    if (error instanceof NoSchedule) return error.message === 'blocked' ? 'blocked' : 'no-such-point';
    throw error;
  } finally {
    machine.onHandOver = undefined;
  }
}

/** A command that would have to wait for the one around it cannot run there. */
function attempt<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw error instanceof WouldBlock ? new NoSchedule('blocked') : error;
  }
}
