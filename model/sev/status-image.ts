/** The record on its way to another machine. */
import { choice, fresh } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { known, withEntry, type State } from '../core/state.ts';
import type { StatusImage } from '../core/state-status.ts';
import { defineTransition, type ArgsOf } from '../core/transition.ts';
import { fits } from './shared-set.ts';
import { allowanceOf, guestOf, recordOf, withGuest } from './status-machine.ts';
import {
  aimed,
  chooseGuest,
  chooseImage,
  guest,
  image,
  noGuest,
  noImage,
  THREAD,
  type OnImage,
} from './status-rows.ts';

const withImage = (state: State, label: string, saved: StatusImage): State => ({
  ...state,
  status: { ...state.status, images: withEntry(state.status.images, label, saved) },
});

const imageOf = (state: State, { image: label }: OnImage): StatusImage => known(state.status.images, label);

const MOST_IMAGES = 4;

const saveDomains = { guest, image: fresh('image') } as const;

export const statusSave = defineTransition({
  name: 'status.save',
  realm: 'page-status',
  summary: 'Migration takes the guest, with what is recorded of it and the mark.',
  does: 'the record is serialized, and the memory of the guest is sent with what the guest itself says of it; the label `image` stands for both',
  tells: 'the number of ranges',
  source: `${THREAD}: Steve Rutherford: a poison bit that is sent up with the serialized list`,
  args: saveDomains,
  mayAlso: [],
  weight: 3,
  guards: [noGuest<ArgsOf<typeof saveDomains>>('status.save')],
  accepts: [
    {
      id: 'status.save/saved',
      when: 'always, also of a record that is incomplete',
      accept: ({ guest: label, image: name }, state) => {
        const saved = guestOf(state, label);
        const { announced, record, donation } = saved;
        return {
          state: withImage(state, name, { announced, record, donation, isDamaged: false }),
          value: BigInt(recordOf(state, saved).ranges.length),
        };
      },
    },
  ],
  draw: ({ random, state, fresh: newLabel }) => {
    const label = chooseGuest(random, state, ({ hasSpoken }) => hasSpoken);
    const isFull = state.status.images.size >= MOST_IMAGES;
    return label === undefined || isFull ? undefined : { guest: label, image: newLabel('image') };
  },
});

const damageDomains = {
  image,
  how: choice('unsorted', 'overlap', 'adjacent', 'empty', 'past-end', 'short'),
} as const;

export const statusDamage = defineTransition({
  name: 'status.damage',
  realm: 'page-status',
  summary: 'Somebody changes what was saved.',
  does: 'the ranges of the image are now two in the wrong order, two that overlap or touch, one that is empty or ends behind the address space, or fewer than the image says',
  source: `${THREAD}: what comes from user space is not to be trusted`,
  args: damageDomains,
  mayAlso: [],
  weight: 1,
  guards: [noImage<ArgsOf<typeof damageDomains>>('status.damage')],
  accepts: [
    {
      id: 'status.damage/damaged',
      when: 'always',
      accept: (args, state) => ({
        state: withImage(state, args.image, { ...imageOf(state, args), isDamaged: true }),
      }),
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseImage(random, state);
    return label === undefined
      ? undefined
      : { image: label, how: pick(random, damageDomains.how.words ?? []) as 'empty' };
  },
});

const loadDomains = { guest, image } as const;
type Load = ArgsOf<typeof loadDomains>;

export const statusLoad = defineTransition({
  name: 'status.load',
  realm: 'page-status',
  summary: 'Migration ends: a guest that has said nothing yet becomes the one that was saved.',
  does: 'the memory of the image becomes that of `guest`, and the record is filled from it, with its mark',
  source: `${THREAD}: Steve Rutherford: a poison bit that is sent up with the serialized list`,
  args: loadDomains,
  mayAlso: [],
  weight: 4,
  guards: [
    noGuest<Load>('status.load'),
    noImage<Load>('status.load'),
    {
      id: 'status.load/damaged',
      errno: 'EINVAL',
      when: 'the ranges of the image are not sorted, disjoint, apart, not empty and within the address space, or fewer than it says',
      violated: (args, state) => imageOf(state, args).isDamaged,
      violate: (args, state) => {
        const [bad] = [...state.status.images].find(([, { isDamaged }]) => isDamaged) ?? [];
        return bad === undefined ? undefined : { ...args, image: bad };
      },
    },
    aimed<Load>({
      id: 'status.load/does-not-fit',
      only: { feature: 'status-host' },
      errno: 'E2BIG',
      when: 'the image has more ranges than the host may keep of the guest, or such as the bitmap has no bits for',
      violated: (args, state) => {
        const allowance = allowanceOf(state, guestOf(state, args.guest));
        return allowance !== undefined && !fits(imageOf(state, args).record.ranges, allowance);
      },
    }),
    aimed<Load>({
      id: 'status.load/has-spoken',
      errno: 'EBUSY',
      when: 'the guest has said something of its pages since it was created or reset',
      violated: ({ guest: label }, state) => guestOf(state, label).hasSpoken,
    }),
  ],
  accepts: [
    {
      id: 'status.load/loaded',
      when: 'the guest has said nothing, and the image is in order',
      accept: (args, state) => {
        const { announced, record, donation } = imageOf(state, args);
        return { state: withGuest(state, args.guest, { announced, record, donation, hasSpoken: true }) };
      },
    },
  ],
  draw: ({ random, state }) => {
    const label = chooseGuest(random, state, ({ hasSpoken }) => !hasSpoken);
    const name = chooseImage(random, state);
    return label === undefined || name === undefined ? undefined : { guest: label, image: name };
  },
});
