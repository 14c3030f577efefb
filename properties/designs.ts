/**
 * What the proposals for direct-map removal come to, each as it was meant: programs on which at least one of them breaks an
 * invariant. The specification keeps the invariants in every profile; the simulator does what the design does.
 */
import type { Observed } from '../adapters/adapter.ts';
import { simulatorTarget } from '../adapters/simulator/index.ts';
import { expectationsOf } from '../conformance/check.ts';
import { CATALOGUE } from '../model/catalogue.ts';
import { FULL_MACHINE, holdsIn, profileById, PROFILES } from '../model/core/profile.ts';
import { printOutcome, type Observation } from '../model/core/outcome.ts';
import type { Program } from '../model/core/program.ts';
import { Specification } from '../model/core/specification.ts';
import { brokenBy, INVARIANTS } from '../model/invariants/index.ts';
import { observedOf, type Flaw } from './flaws.ts';
import { parse, specify } from './support.ts';

export interface DesignQuestion {
  readonly question: string;
  /** What decides: whether this invariant is kept, or whether the last command but `before` ends so. */
  readonly decides: { readonly invariant: string } | { readonly outcome: Observation['kind']; readonly before: number };
  /** Profiles in which the answer is no, and those whose proposal does not say. */
  readonly failing: readonly string[];
  readonly unsettled?: readonly string[];
  readonly why: string;
  readonly program: string;
}

const PRIVATE_GUEST = `vm.create vm=vm0 dev=kvm type=1
vcpu.create vcpu=vcpu0 vm=vm0 id=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=4 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=arena gmem=file0 offset=0
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
gpc.init gpc=gpc0 vcpu=vcpu0
`;

export const DESIGNS = PROFILES.filter((profile) => holdsIn(profile, { feature: 'direct-map' })).map(({ id }) => id);

const RFC_V1 = 'direct-map-rfc-v1';
const BY_HOST_ADDRESS = ['direct-map-v12', 'direct-map-v13'];
const STORE = 'guest.store vcpu=vcpu0 gpa=0 value=7\n';

export const DESIGN_QUESTIONS: readonly DesignQuestion[] = [
  {
    question: 'Is a page unreachable as soon as it has left the direct map?',
    decides: { invariant: 'direct-map/unreachable' },
    failing: [RFC_V1],
    why: 'The RFC of July 2024 flushes no TLB, for speed (patch 5 says so): what was zeroed just before stays readable.',
    program: `${PRIVATE_GUEST}gmem.fallocate fd=file0 mode=1 offset=0 length=0x1000\n`,
  },
  {
    question: 'Is a page out of the direct map although nobody has used it yet?',
    decides: { outcome: 'oops', before: 0 },
    failing: ['direct-map-v12'],
    why: 'v12 removes a page when it is first used. Its review asked for the simpler rule, which v13 is to keep.',
    program: `${PRIVATE_GUEST}gmem.fallocate fd=file0 mode=1 offset=0 length=0x1000\nkernel.load fd=file0 page=0 cpu=1 mode=architectural\n`,
  },
  {
    question: 'May two long-term users have one page, such as the clocks of two vCPUs?',
    decides: { outcome: 'ok', before: 2 },
    failing: [RFC_V1],
    unsettled: BY_HOST_ADDRESS,
    why: 'Without a count the first RFC must refuse the second cache. In v12 and v13 a cache shows what is at the host address, which nobody has said to be the guest’s memory.',
    program: `${PRIVATE_GUEST}vcpu.create vcpu=vcpu1 vm=vm0 id=1\ngpc.init gpc=gpc1 vcpu=vcpu1\ngpc.activate gpc=gpc0 gpa=0 length=8\ngpc.activate gpc=gpc1 gpa=8 length=8\ngpc.deactivate gpc=gpc0\ngpc.read gpc=gpc1\n`,
  },
  {
    question: 'Does a cache notice that its page was punched out?',
    decides: { invariant: 'pfncache/valid-is-current' },
    failing: [RFC_V1],
    unsettled: BY_HOST_ADDRESS,
    why: 'The RFC of July 2024 does not invalidate caches when pages of a file go; patch 9 of RFC v2 does.',
    program: `${PRIVATE_GUEST}gpc.activate gpc=gpc0 gpa=0 length=8\ngmem.fallocate fd=file0 mode=3 offset=0 length=0x1000\n`,
  },
  {
    question: 'Does a cache of shared memory notice that the frame became private?',
    decides: { invariant: 'pfncache/valid-is-current' },
    failing: [RFC_V1, ...BY_HOST_ADDRESS],
    why: 'A change of attributes invalidates no cache, in Linux 7.3 as well; patch 7 of RFC v2 does that.',
    program: `${PRIVATE_GUEST}attributes.set vm=vm0 address=0 size=0x1000 attributes=0 flags=0\ngpc.activate gpc=gpc0 gpa=0 length=8\nattributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0\n`,
  },
  {
    question: 'Does a page that could not leave the direct map leave it at the next try?',
    decides: { outcome: 'oops', before: 0 },
    failing: [RFC_V1],
    why: 'The entry that shows the page cannot be split, for want of memory. No design gives the page away then. But the RFC of July 2024 takes pages out only when they are new, so that whoever asks again gets a page that stays where it is.',
    program: `${PRIVATE_GUEST}fault.direct-map change=split\n${STORE}${STORE}kernel.load fd=file0 page=0 cpu=1 mode=architectural\n`,
  },
  {
    question: 'Is a page that cannot be put back kept from the allocator?',
    decides: { invariant: 'memory/free-is-present' },
    failing: BY_HOST_ADDRESS,
    why: 'RFC v2 marks it as poisoned, so that nobody gets it any more; the RFC of July 2024 stops with BUG_ON(). v12 has it that this cannot happen, since the entry was split when the page left: it warns, and frees a page that the next owner cannot touch.',
    program: `${PRIVATE_GUEST}${STORE}fault.direct-map change=restore\ngmem.fallocate fd=file0 mode=3 offset=0 length=0x1000\n`,
  },
];

export interface DesignFlaw extends Flaw {
  readonly why: string;
}

const STAYS_WHEN_FOUND =
  'Only pages that are new are taken out. One that could not leave, because the large entry that shows it could not be split, is given to whoever asks next as it is.';
const SPLIT_ONCE = `fault.direct-map change=split
vm.create vm=vm0 dev=kvm type=1
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=4 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=0 gmem=file0 offset=0
vcpu.create vcpu=vcpu0 vm=vm0 id=0
guest.load vcpu=vcpu0 gpa=0
vcpu.prefault vcpu=vcpu0 gpa=0 size=0x1000 flags=0
`;

const KEPT_WHEN_FREED =
  'Caches do not hear that the pages of a file go: one that has a page goes on using it when the next owner has it.';
const FREED_UNDER_CACHE = `vm.create vm=vm0 dev=kvm type=1
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=0 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=0 gmem=file0 offset=0
vcpu.create vcpu=vcpu0 vm=vm0 id=0
gpc.init gpc=gpc0 vcpu=vcpu0
gpc.activate gpc=gpc0 gpa=0 length=0
fd.close fd=file0
`;

const ABSENT_WHEN_FREED =
  'An entry that cannot be restored is warned of, and the page is freed all the same: its next owner cannot touch it.';

/** Each invariant that a design breaks on the simulator, which does what the design does. */
export const DESIGN_FLAWS: readonly DesignFlaw[] = [
  {
    profile: RFC_V1,
    invariant: 'direct-map/balanced',
    why: 'Caches do not hear that their slot goes: the page stays in the direct map, for nobody.',
    program: `vm.create vm=vm0 dev=kvm type=1
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=4 reserved=0
slot.set vm=vm0 api=v2 slot=0 flags=4 gpa=0 size=0x1000 hva=0 gmem=file0 offset=0
vcpu.create vcpu=vcpu0 vm=vm0 id=0
gpc.init gpc=gpc0 vcpu=vcpu0
gpc.activate gpc=gpc0 gpa=0 length=0
slot.set vm=vm0 api=v2 slot=0 flags=0 gpa=0 size=0 hva=0 gmem=none offset=0
`,
  },
  { profile: RFC_V1, invariant: 'direct-map/resident-is-absent', why: STAYS_WHEN_FOUND, program: SPLIT_ONCE },
  { profile: RFC_V1, invariant: 'memory/no-stale-mapping', why: KEPT_WHEN_FREED, program: FREED_UNDER_CACHE },
  { profile: RFC_V1, invariant: 'memory/free-is-present', why: KEPT_WHEN_FREED, program: FREED_UNDER_CACHE },
  {
    profile: RFC_V1,
    invariant: 'direct-map/unreachable',
    why: 'No TLB is flushed, for speed.',
    program: `vm.create vm=vm0 dev=kvm type=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=4 reserved=0
gmem.fallocate fd=file0 mode=1 offset=0 length=0x1000
`,
  },
  {
    profile: 'direct-map-v12',
    invariant: 'memory/free-is-present',
    why: ABSENT_WHEN_FREED,
    program: `fault.direct-map change=restore
vm.create vm=vm0 dev=kvm type=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=7 reserved=0
mem.map mapping=map0 fd=file0 length=1 offset=0 sharing=shared
host.load mapping=map0 offset=0
gmem.fallocate fd=file0 mode=3 offset=0 length=0x1000
`,
  },
  {
    profile: 'direct-map-v13',
    invariant: 'memory/free-is-present',
    why: ABSENT_WHEN_FREED,
    program: `fault.direct-map change=restore
vm.create vm=vm0 dev=kvm type=0
gmem.create file=file0 vm=vm0 size=0x1000 flags=4 reserved=0
gmem.fallocate fd=file0 mode=1 offset=0 length=0x1000
fd.close fd=file0
`,
  },
  ...[RFC_V1, ...BY_HOST_ADDRESS].map((profile) => ({
    profile,
    invariant: 'pfncache/valid-is-current',
    why: 'A change of attributes invalidates no cache, in Linux 7.3 as well.',
    program: `vm.create vm=vm0 dev=kvm type=1
slot.set vm=vm0 api=v2 slot=0 flags=0 gpa=0 size=0x1000 hva=arena gmem=none offset=0
vcpu.create vcpu=vcpu0 vm=vm0 id=0
gpc.init gpc=gpc0 vcpu=vcpu0
gpc.activate gpc=gpc0 gpa=0 length=0
attributes.set vm=vm0 address=0 size=0x1000 attributes=8 flags=0
`,
  })),
];

export const flawOf = (profile: string, invariant: string): DesignFlaw | undefined =>
  DESIGN_FLAWS.find((flaw) => flaw.profile === profile && flaw.invariant === invariant);

/** The specification of a profile, with no other invariants than these. */
export function specifyOnly(id: string, isWanted: (invariant: string) => boolean): Specification {
  const concedes = INVARIANTS.filter((each) => !isWanted(each.id)).map((each) => ({
    invariant: each.id,
    why: 'left out',
  }));
  return new Specification({ profile: { ...profileById(id), concedes }, machine: FULL_MACHINE }, CATALOGUE);
}

/** What the simulator, which does what the design does, observes of the design flaw’s program. */
export const observedByDesign = (flaw: DesignFlaw): readonly Observed[] => observedOf(flaw, simulatorTarget());

/** Only a fault that is injected leads there: the kernel has no memory to split an entry, or cannot restore one. */
export const takesInjection = (program: string): boolean => /^fault\./m.test(program);

export interface Answer {
  readonly answer: 'yes' | 'no' | 'not settled';
  /** What was seen, where the answer is no. */
  readonly seen: string;
}

/** What must be specified for the question to make sense. The command that decides by its outcome is what is asked. */
const leadingTo = (decides: DesignQuestion['decides'], program: Program): Program =>
  'outcome' in decides ? program.slice(0, -1 - decides.before) : program;

/** What the simulator, which does what the design does, comes to; not where the proposal does not say what should be. */
export function answerOf({ decides, program: text }: DesignQuestion, profile: string): Answer {
  const specification = specify(profile);
  const program = parse(specification, text);
  if (expectationsOf(specification, leadingTo(decides, program)).some(({ unmodelled }) => unmodelled !== undefined))
    return { answer: 'not settled', seen: '' };
  const observed = observedOf({ profile, program: text }, simulatorTarget());
  if ('outcome' in decides) {
    const outcome = observed.at(-1 - decides.before)?.outcome;
    const seen = outcome === undefined ? 'nothing' : printOutcome(outcome);
    return { answer: outcome?.kind === decides.outcome ? 'yes' : 'no', seen };
  }
  const broken = brokenAtEnd(decides.invariant, observed);
  return { answer: broken === undefined ? 'yes' : 'no', seen: broken ?? '' };
}

/** How the last command of a program broke the invariant, in words. */
export function brokenAtEnd(id: string, observed: readonly Observed[]): string | undefined {
  const invariant = INVARIANTS.find((each) => each.id === id);
  if (invariant === undefined) throw new Error(`there is no invariant '${id}'`);
  const [before, after = {}] = [observed.at(-2)?.facts, observed.at(-1)?.facts];
  return brokenBy(invariant, { before, after, failed: false });
}
