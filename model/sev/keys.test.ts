import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';
import { factsOfState } from '../facts-of-state.ts';

interface Line {
  readonly outcome: string;
  readonly keys: string;
}

/** What each line comes to, and the state of ASIDs 1 to 4 behind it, as `1 owner, 2 reclaim, …`. */
function run(text: string, profile = 'sev-linux-7.3'): readonly Line[] {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  let state = specification.initial;
  return parseProgram(specification, text).program.map((command) => {
    const step = specification.step(state, command);
    ({ state } = step);
    const keys = (factsOfState(state).keys ?? [])
      .filter((each) => each.state !== 'free')
      .map(({ key, vm, state: how }) => `${key} ${how === 'assigned' ? (vm ?? 'nobody') : how}`)
      .join(', ');
    return { outcome: step.unmodelled === undefined ? printOutcome(step.outcome) : 'silent', keys };
  });
}

const outcomes = (text: string, profile?: string): readonly string[] =>
  run(text, profile).map(({ outcome }) => outcome);

/** The outcomes behind a beginning. */
const behind = (start: string, text: string, profile?: string): readonly string[] =>
  outcomes(start + text, profile).slice(start.split('\n').length - 1);

const init = (vm: string, how = 'init'): string => `sev.init vm=${vm} how=${how} flags=0 features=0 ghcb=0\n`;
const plain = (vm: string): string => `sev.vm vm=${vm} type=default\n`;
const start = (vm: string): string => `sev.launch-start vm=${vm} device=sev\n`;
const vcpu = (vm: string): string => `sev.vcpu vm=${vm} vcpu=0\n`;
const close = (vm: string, which = 'vm'): string => `sev.close vm=${vm} which=${which}\n`;
const store = (vm: string, value: number, gfn = 0): string => `sev.store vm=${vm} vcpu=0 gfn=${gfn} value=${value}\n`;
const load = (vm: string, gfn = 0): string => `sev.load vm=${vm} vcpu=0 gfn=${gfn}\n`;
const pair = (what: string, vm: string, from: string): string => `sev.${what} vm=${vm} from=${from}\n`;
const status = (vm: string): string => `sev.guest-status vm=${vm}\n`;

const OWNER = plain('o') + init('o') + start('o') + vcpu('o');
const MIRROR = plain('m') + pair('copy', 'm', 'o') + vcpu('m');

describe('ASIDs', () => {
  it('are taken lowest first, and are flushed only where none is free', () => {
    const lines = run(
      plain('a') + init('a') + plain('b') + init('b') + plain('c') + init('c') + close('a') + init('c') + close('b'),
    );
    expect(lines.map(({ outcome }) => outcome)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok', 'EBUSY', 'ok', 'ok', 'ok']);
    expect(lines.at(6)?.keys).toBe('3 reclaim, 4 b');
    expect(lines.at(7)?.keys).toBe('3 c, 4 b');
    expect(lines.at(8)?.keys).toBe('3 c, 4 reclaim');
  });

  it('of plain SEV are others than those of SEV-ES and SNP', () => {
    const text =
      plain('a') + init('a', 'es-init') + 'sev.vm vm=b type=snp\n' + init('b', 'init2') + plain('c') + init('c');
    expect(run(text).at(-1)?.keys).toBe('1 a, 2 b, 3 c');
  });

  it('stay where they are while the flush fails', () => {
    const fail = 'sev.firmware-fails command=df-flush\n';
    const full = plain('a') + init('a') + plain('b') + init('b') + close('a') + plain('c');
    expect(behind(full, fail + init('c') + init('c'))).toEqual(['ok', 'EBUSY', 'ok']);
  });

  it('of SNP guests are lost where the firmware does not let go of the context', () => {
    const snp =
      'sev.vm vm=s type=snp\n' + init('s', 'init2') + 'sev.snp-start vm=s device=sev flags=0 policy=0x20000\n';
    expect(run(`${snp}sev.firmware-fails command=decommission\n${close('s')}`).at(-1)?.keys).toBe('1 leaked');
    expect(run(snp + close('s')).at(-1)?.keys).toBe('1 reclaim');
  });
});

describe('registers', () => {
  const vcpu = 'sev.vcpu vm=g vcpu=0\n';
  const set = 'sev.set-regs vm=g vcpu=0 value=7\n';

  it('can be set until an SNP guest is launched', () => {
    const text = `sev.vm vm=g type=snp\n${init('g', 'init2')}${vcpu}sev.snp-start vm=g device=sev flags=0 policy=0x20000\n`;
    const finish = 'sev.snp-finish vm=g flags=0\n';
    expect(behind(text, set + finish + set + finish)).toEqual(['ok', 'ok', 'EINVAL', 'EINVAL']);
  });

  it('are set without effect where SEV-ES is no matter of the type', () => {
    const text = plain('g') + init('g', 'es-init') + vcpu + start('g') + 'sev.launch-update-vmsa vm=g\n';
    expect(behind(text, set)).toEqual(['ok']);
  });
});

describe('a page that the process gives back', () => {
  it('is one of zeroes afterwards, of no key', () => {
    const text = store('o', 7) + 'sev.discard page=0\n' + load('o');
    expect(behind(OWNER, text)).toEqual(['ok', 'ok', 'ciphertext']);
  });
});

describe('a mirror', () => {
  it('sees what its owner sees, and outlives its descriptor, but not its context', () => {
    const lines = run(OWNER + store('o', 7) + MIRROR + load('m') + close('o') + close('o', 'vcpu0') + load('m'));
    expect(lines.slice(-4)).toEqual([
      { outcome: 'ok 0x7', keys: '3 o' },
      { outcome: 'ok', keys: '3 o' },
      { outcome: 'ok', keys: '3 o' },
      { outcome: 'ok 0x7', keys: '3 o' },
    ]);
  });

  it('frees no ASID; the owner does, when the mirror was the last that kept it', () => {
    const end = close('o') + close('o', 'vcpu0') + close('m') + close('m', 'vcpu0');
    expect(
      run(OWNER + MIRROR + end)
        .slice(-4)
        .map(({ keys }) => keys),
    ).toEqual(['3 o', '3 o', '3 o', '3 reclaim']);
    const other = close('m') + close('m', 'vcpu0') + close('o') + close('o', 'vcpu0');
    expect(
      run(OWNER + MIRROR + other)
        .slice(-4)
        .map(({ keys }) => keys),
    ).toEqual(['3 o', '3 o', '3 o', '3 reclaim']);
  });

  it('has few commands, and no regions', () => {
    const region = 'vm=m addr=arena size=0x1000\n';
    const text = status('m') + start('m') + init('m') + `sev.region-add ${region}sev.region-drop ${region}`;
    expect(behind(OWNER + MIRROR, text)).toEqual(['ok 0x1', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']);
  });

  it('is made of a guest that has a key of its own, and of no SNP guest', () => {
    const snp = 'sev.vm vm=s type=snp\n' + init('s', 'init2');
    const other = plain('n') + plain('x');
    expect(
      behind(
        OWNER + MIRROR + snp + other,
        pair('copy', 'n', 'm') +
          pair('copy', 'n', 's') +
          pair('copy', 'n', 'x') +
          pair('copy', 'n', 'n') +
          pair('copy', 'n', 'none') +
          pair('copy', 'n', 'null') +
          vcpu('n') +
          pair('copy', 'n', 'o'),
      ),
    ).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EBADF', 'EBADF', 'ok', 'EINVAL']);
  });

  it('follows its owner’s context to another VM', () => {
    const lines = run(
      OWNER +
        store('o', 7) +
        MIRROR +
        plain('d') +
        pair('move', 'd', 'o') +
        close('o') +
        close('o', 'vcpu0') +
        close('d') +
        load('m') +
        close('m') +
        close('m', 'vcpu0'),
    );
    expect(lines.slice(-3)).toEqual([
      { outcome: 'ok 0x7', keys: '3 d' },
      { outcome: 'ok', keys: '3 d' },
      { outcome: 'ok', keys: '3 reclaim' },
    ]);
  });

  it('can be moved itself', () => {
    const text =
      plain('d') + vcpu('d') + pair('move', 'd', 'm') + load('m') + load('d') + plain('n') + pair('copy', 'n', 'd');
    expect(behind(OWNER + store('o', 7) + MIRROR, text)).toEqual(['ok', 'ok', 'ok', 'EIO', 'ok 0x7', 'ok', 'EINVAL']);
  });
});

describe('a VM that takes over', () => {
  it('has the key and the regions; the other is dead', () => {
    const region = 'addr=arena size=0x1000\n';
    const text =
      `sev.region-add vm=o ${region}` +
      plain('d') +
      vcpu('d') +
      pair('move', 'd', 'o') +
      `sev.region-drop vm=o ${region}sev.region-drop vm=d ${region}` +
      status('o') +
      load('d');
    expect(behind(OWNER + store('o', 7), text)).toEqual(['ok', 'ok', 'ok', 'ok', 'EIO', 'ok', 'EIO', 'ok 0x7']);
  });

  it('has no descriptor of /dev/sev, so that commands of the firmware fail, and LAUNCH_START as well', () => {
    expect(behind(OWNER + plain('d') + pair('move', 'd', 'o'), status('d') + start('d'))).toEqual(['EBADF', 'EIO']);
  });

  it('cannot run where its type waits for KVM_SEV_INIT2', () => {
    const typed = (vm: string): string => `sev.vm vm=${vm} type=sev\n`;
    const owner = typed('o') + init('o', 'init2') + start('o') + vcpu('o');
    expect(
      behind(owner, store('o', 7) + typed('d') + vcpu('d') + pair('move', 'd', 'o') + load('d') + init('d', 'init2')),
    ).toEqual([...['ok', 'ok', 'ok', 'ok', 'EINVAL', 'EINVAL']]);
  });

  it('has as many vCPUs as an SEV-ES guest, all of whose are encrypted', () => {
    const es = plain('o') + init('o', 'es-init') + start('o') + vcpu('o') + plain('d');
    const vmsa = 'sev.launch-update-vmsa vm=o\n';
    expect(
      behind(
        es,
        pair('move', 'd', 'o') +
          vcpu('d') +
          pair('move', 'd', 'o') +
          vmsa +
          vmsa +
          pair('move', 'd', 'o') +
          store('d', 5) +
          load('d'),
      ),
    ).toEqual([...['EINVAL', 'ok', 'EINVAL', 'ok', 'EINVAL', 'ok', 'ok', 'ok 0x5']]);
  });
});

describe('a launch', () => {
  it('goes on in one order', () => {
    const step = (what: string): string => `sev.launch-${what} vm=o\n`;
    const data = 'sev.launch-update-data vm=o addr=arena len=4096\n';
    const text =
      status('o') +
      start('o') +
      data +
      load('o') +
      step('finish') +
      step('measure') +
      data +
      status('o') +
      step('finish') +
      status('o') +
      start('o');
    expect(behind(plain('o') + init('o') + vcpu('o'), text)).toEqual([
      ...['EBADF', 'ok', 'ok', 'ok 0x0', 'EIO', 'ok', 'EIO', 'ok 0x2', 'ok', 'ok 0x3', 'EIO'],
    ]);
  });

  it.each([
    ['addr=arena len=0', 'EINVAL'],
    ['addr=0xffffffffffffffff len=1', 'EINVAL'],
    ['addr=arena+0x40000 len=4096', 'ENOMEM'],
    ['addr=arena+0x3f000 len=0x2000', 'ENOMEM'],
    ['addr=arena+0x3f000 len=0x1000', 'ok'],
  ])('of memory at %s comes to %s', (where, outcome) => {
    expect(behind(OWNER, `sev.launch-update-data vm=o ${where}\n`)).toEqual([outcome]);
  });
});

describe('pages', () => {
  it('are ciphertext under any other key, also under the next one of an ASID', () => {
    const next =
      close('o') + close('o', 'vcpu0') + plain('b') + init('b') + plain('c') + init('c') + start('c') + vcpu('c');
    const lines = run(OWNER + store('o', 7) + next + load('c') + store('c', 8) + load('c'));
    expect(lines.slice(-3).map(({ outcome }) => outcome)).toEqual(['ciphertext', 'ok', 'ok 0x8']);
    expect(lines.at(-1)?.keys).toBe('3 c, 4 b');
  });

  it('of a frame without a slot are MMIO', () => {
    expect(behind(OWNER, store('o', 7, 4) + load('o', 5))).toEqual(['MMIO write gpa=0x4000', 'MMIO read gpa=0x5000']);
  });
});

describe('regions', () => {
  it.each([
    ['addr=arena size=0', 'EINVAL'],
    ['addr=arena size=0x1000000000000000', 'EINVAL'],
    ['addr=arena size=0x10000000000', 'ENOMEM'],
    ['addr=arena+0x800 size=0x1000', 'ok'],
  ])('%s: %s', (where, outcome) => {
    expect(behind(OWNER, `sev.region-add vm=o ${where}\n`)).toEqual([outcome]);
  });
});

describe('files', () => {
  const LINKED =
    OWNER +
    MIRROR +
    'sev.file file=f vm=o\nsev.link file=g vm=m from=f\nsev.bind vm=o file=f gfn=4\nsev.bind vm=m file=g gfn=4\n';

  it('of several VMs on one inode show one memory under one key', () => {
    expect(behind(LINKED, store('o', 7, 4) + load('m', 4), 'sev-gmem-link')).toEqual(['ok', 'ok 0x7']);
  });

  it('keep their VM, and so the key', () => {
    const text =
      close('m') +
      close('m', 'vcpu0') +
      close('o') +
      close('o', 'vcpu0') +
      'sev.close-file file=g\nsev.close-file file=f\n';
    const keys = run(LINKED + text, 'sev-gmem-link').map((each) => each.keys);
    expect(keys.slice(-3)).toEqual(['3 o', '3 o', '3 reclaim']);
  });

  it('are bound to the VM that they were made for, once', () => {
    const text =
      'sev.bind vm=m file=f gfn=5\nsev.bind vm=o file=f gfn=4\nsev.bind vm=o file=f gfn=5\nsev.link file=h vm=o from=f\n';
    expect(behind(LINKED, text, 'sev-gmem-link')).toEqual(['EINVAL', 'EINVAL', 'EEXIST', 'EINVAL']);
    expect(behind(LINKED, `sev.close-file file=f\n${load('o', 4)}`, 'sev-gmem-link')).toEqual([
      ...['ok', 'MEMORY_FAULT EFAULT gpa=0x4000 shared'],
    ]);
  });
});
