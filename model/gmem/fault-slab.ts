import { u32 } from '../core/domain.ts';
import { defineTransition } from '../core/transition.ts';

export const faultSlab = defineTransition({
  name: 'fault.slab',
  summary: 'Makes a coming allocation of kernel memory fail once.',
  does: 'lets the next `skip` allocations of kernel memory be, and makes the one behind them fail, once',
  source: 'Documentation/fault-injection/fault-injection.rst: failslab',
  requires: 'fault-injection',
  args: { skip: u32() },
  mayAlso: [],
  weight: 2,
  guards: [],
  accepts: [
    {
      id: 'fault.slab/armed',
      when: 'always; the command that meets the failure may then report ENOMEM, and changes nothing',
      accept: (_args, state) => ({ state }),
    },
  ],
  draw: ({ random }) => ({ skip: BigInt(random.below(2) === 0 ? 0 : random.below(6)) }),
});
