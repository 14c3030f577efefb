/** What stands between commands and a machine whose commands name guests. */
import type { Facts } from '../../model/core/facts.ts';
import { fails, type Outcome } from '../../model/core/outcome.ts';
import type { Config } from '../../model/core/profile.ts';
import type { AnyCommand } from '../../model/core/specification.ts';
import type { Label } from '../../model/core/state.ts';
import type { Kernel } from './kernel.ts';
import type { Racing } from './race.ts';

export interface Hosted {
  facts(): Facts;
  /** Where facts tell what happened within a command. */
  forgetEvents?(): void;
  /** Where a command has points at which another one could run. */
  onHandOver?: Kernel['onHandOver'];
}

export type Perform<M> = (machine: M, command: AnyCommand) => Outcome;

export class Host<M extends Hosted> implements Racing {
  private readonly machine: M;
  private readonly perform: Perform<M>;

  constructor(machine: M, perform: Perform<M>) {
    this.machine = machine;
    this.perform = perform;
  }

  run(command: AnyCommand): Outcome {
    this.forgetEvents();
    return this.execute(command);
  }

  execute(command: AnyCommand): Outcome {
    return this.perform(this.machine, command);
  }

  forgetEvents(): void {
    this.machine.forgetEvents?.();
  }

  facts(): Facts {
    return this.machine.facts();
  }

  set onHandOver(hook: Kernel['onHandOver']) {
    this.machine.onHandOver = hook;
  }
}

/** Machines of one kind, each with a host of its own. */
export const hostOf =
  <M extends Hosted>(perform: Perform<M>) =>
  (Machine: new (config: Config) => M): new (config: Config) => Host<M> =>
    class extends Host<M> {
      constructor(config: Config) {
        super(new Machine(config), perform);
      }
    };

type OfGuest<M, G> = Readonly<Record<string, (machine: M, guest: G, args: never) => Outcome>>;

/** What a command asks of the guest of that label. Nothing is specified of one that is not there. */
export function performOn<G, M extends { readonly guests: ReadonlyMap<Label, G> }>(
  machine: M,
  handlers: OfGuest<M, G>,
  label: Label,
  { name, args }: AnyCommand,
): Outcome {
  const handler = handlers[name];
  if (handler === undefined) throw new Error(`the simulator has no command '${name}' in this profile`);
  const guest = machine.guests.get(label);
  return guest === undefined ? fails('EBADF') : handler(machine, guest, args as never);
}
