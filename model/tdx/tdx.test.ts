import { describe, expect, it } from '@jest/globals';
import { CATALOGUE } from '../catalogue.ts';
import { printOutcome } from '../core/outcome.ts';
import { FULL_MACHINE, profileById } from '../core/profile.ts';
import { parseProgram } from '../core/program.ts';
import { Specification } from '../core/specification.ts';

/** What each line comes to. */
function outcomes(profile: string, text: string): readonly string[] {
  const specification = new Specification({ profile: profileById(profile), machine: FULL_MACHINE }, CATALOGUE);
  let state = specification.initial;
  return parseProgram(specification, text).program.map((command) => {
    const step = specification.step(state, command);
    ({ state } = step);
    return step.unmodelled === undefined ? printOutcome(step.outcome) : 'silent';
  });
}

const START = `td.create td=td0 exits=yes
td.init td=td0 flags=0 cpuids=1
td.vcpu td=td0 vcpu=0
`;
const TDX = `${START}td.vcpu-init td=td0 vcpu=0 flags=0\ntd.add td=td0 vcpu=0 gfn=0 pages=1 value=1\ntd.finalize td=td0\n`;
const CONTRAST = `${START}td.add td=td0 vcpu=0 gfn=0 pages=1 value=1\ntd.finalize td=td0\n`;

const behind = (profile: string, start: string, text: string): readonly string[] =>
  outcomes(profile, start + text).slice(start.trim().split('\n').length);

describe('TDX', () => {
  it('takes a page back in one order only', () => {
    const steps = `sept.remove td=td0 gfn=0\nsept.block td=td0 gfn=0\nsept.remove td=td0 gfn=0\nsept.track td=td0\nsept.remove td=td0 gfn=0\nsept.remove td=td0 gfn=0\n`;
    expect(behind('tdx-guest-memfd', TDX, steps)).toEqual([
      'TDX_GPA_RANGE_NOT_BLOCKED',
      'ok',
      'TDX_TLB_TRACKING_NOT_DONE',
      'ok',
      'ok',
      'TDX_EPT_ENTRY_STATE_INCORRECT',
    ]);
  });

  it('gives a key back in one order only', () => {
    const steps = `key.free td=td0\nkey.flush-done td=td0\ntd.convert td=td0 gfn=0 to=shared\nkey.flush-done td=td0\nkey.flush-vcpu td=td0 vcpu=0\nkey.flush-done td=td0\nkey.free td=td0\nkey.write-back\npage.reclaim td=td0 page=control\nkey.free td=td0\npage.reclaim td=td0 page=root\npage.reclaim td=td0 page=control\npage.reclaim td=td0 page=root\n`;
    expect(behind('tdx-guest-memfd', TDX, steps)).toEqual([
      'TDX_LIFECYCLE_STATE_INCORRECT',
      'EBUSY',
      'ok',
      'TDX_FLUSHVP_NOT_DONE',
      'ok',
      'ok',
      'TDX_WBCACHE_NOT_COMPLETE',
      'ok',
      'TDX_LIFECYCLE_STATE_INCORRECT',
      'ok',
      'TDX_TD_ASSOCIATED_PAGES_EXIST',
      'ok',
      'ok',
    ]);
  });

  it('is healed by whole lines, of the guest and of the host', () => {
    const steps = `host.write td=td0 gfn=0 line=0 via=direct width=word value=2\nhost.write td=td0 gfn=0 line=0 via=direct width=line value=3\nhost.read td=td0 gfn=0 line=0 via=direct\ntd.store td=td0 vcpu=0 gfn=0 line=0 world=private width=line value=4\ntd.load td=td0 vcpu=0 gfn=0 line=0 world=private\nhost.read td=td0 gfn=0 line=0 via=direct\n`;
    expect(behind('tdx-guest-memfd', TDX, steps)).toEqual(['ok', 'ok', 'ok 0x3', 'ok', 'ok 0x4', 'ok 0x0']);
  });

  it('asks the VMM in chunks, and the guest to ask again', () => {
    const steps = `td.map-gpa td=td0 vcpu=0 gpa=0 size=0x201000\ntd.map-gpa-return td=td0 vcpu=0 ret=0 event=no\ntd.map-gpa-return td=td0 vcpu=0 ret=0xb event=no\n`;
    expect(behind('tdx-guest-memfd', TDX, steps)).toEqual([
      'HYPERCALL gpa=0x0 pages=0x200 private',
      'HYPERCALL gpa=0x200000 pages=0x1 private',
      'TDVMCALL_STATUS_RETRY gpa=0x200000',
    ]);
  });
});

describe('the contrasts', () => {
  it('SEV keeps two copies of a line, until they leave the caches', () => {
    const load = 'td.load td=td0 vcpu=0 gfn=0 line=0 world=private\n';
    const steps = `host.write td=td0 gfn=0 line=0 via=user width=word value=2\n${load}host.read td=td0 gfn=0 line=0 via=user\ncache.evict td=td0 gfn=0 line=0 last=shared\n${load}`;
    expect(behind('sev-c-bit', CONTRAST, steps)).toEqual(['ok', 'ok 0x1', 'ok 0x2', 'ok', 'ciphertext']);
  });

  it('s390 exports a page to who reads it, and takes it back while nobody has changed it', () => {
    const load = 'td.load td=td0 vcpu=0 gfn=0 line=0 world=private\n';
    const steps = `host.read td=td0 gfn=0 line=0 via=user\n${load}host.move td=td0 gfn=0 how=swap-out\n${load}host.zero td=td0 gfn=0\n${load}`;
    expect(behind('s390-pv', CONTRAST, steps)).toEqual(['ciphertext', 'ok 0x1', 'ok', 'ok 0x1', 'ok', 'SIGSEGV']);
  });
});
