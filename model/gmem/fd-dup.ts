import { fd, fresh } from '../core/domain.ts';
import { pick } from '../core/random.ts';
import { NO_FD, known, withFd } from '../core/state.ts';
import { defineTransition } from '../core/transition.ts';

export const fdDup = defineTransition({
  name: 'fd.dup',
  summary: 'Makes a second descriptor of the same open file.',
  does: '`as = dup(fd)`',
  source: 'fs/file.c: dup()',
  args: { as: fresh('fd'), fd: fd('any') },
  mayAlso: ['EMFILE'],
  weight: 2,
  guards: [
    {
      id: 'fd.dup/bad-descriptor',
      errno: 'EBADF',
      when: '`fd` names no open file',
      violated: (args, state) => !state.fds.has(args.fd),
      violate: (args) => ({ ...args, fd: NO_FD }),
    },
  ],
  accepts: [
    {
      id: 'fd.dup/duplicated',
      when: 'the descriptor is open',
      accept: (args, state) => ({ state: withFd(state, args.as, known(state.fds, args.fd)) }),
    },
  ],
  draw: ({ random, state, fresh: label }) => {
    const named = [...state.fds].filter(([, file]) => file.kind !== 'device' && file.kind !== 'other');
    return named.length === 0 ? undefined : { as: label('fd'), fd: pick(random, named)[0] };
  },
});
