/** What can be tested, by the names that the command line takes. */
import { UnavailableError, type Target } from './adapter.ts';
import { kvmUnavailable, openKvm } from './linux/kvm.ts';
import { openQemu, qemuUnavailable } from './linux/qemu-target.ts';
import { mutantById, MUTANTS } from './mutants/index.ts';
import { ProcessTarget } from './process/target.ts';
import { referenceTarget } from './reference/reference.ts';
import { simulatorTarget } from './simulator/index.ts';

export interface TargetEntry {
  /** As on the command line. `mutant:ID` stands for every name that begins with `mutant:`. */
  readonly name: string;
  readonly summary: string;
  /** Why it cannot be tested from here, or undefined where it can. Asks, and changes nothing. */
  unavailable?(): string | undefined;
  /** Set where opening takes seconds, so that a list of targets does not. */
  readonly heavy?: true;
  /** Set where the name holds a command that opening executes, so that only the caller may choose it, and no file. */
  readonly executes?: true;
  /** Makes it ready to execute programs. */
  open(options: OpenOptions): Target | Promise<Target>;
}

/** What the caller may say of a target besides its name. */
export interface TargetOptions {
  /** Path of a kernel image, and of its modules. */
  readonly kernel?: string | undefined;
  readonly modules?: string | undefined;
  /** Added to the kernel's command line. */
  readonly append?: string | undefined;
  /** How long a process may take to say who it is. */
  readonly timeLimitMs?: number | undefined;
  /** Sees what a process writes to standard error. */
  readonly onStderr?: ((text: string) => void) | undefined;
}

interface OpenOptions extends TargetOptions {
  /** What follows the colon of a name. */
  readonly argument: string;
}

export const TARGETS: readonly TargetEntry[] = [
  {
    name: 'simulator',
    summary: 'a host machine built from mechanisms: frames, page tables, reference counts, locks',
    open: () => simulatorTarget(),
  },
  { name: 'reference', summary: 'the specification itself', open: () => referenceTarget() },
  {
    name: 'mutant:ID',
    summary: `one of ${MUTANTS.length} implementations that are wrong in a known way`,
    open: ({ argument }) => openMutant(argument),
  },
  {
    name: 'kvm',
    summary: 'the kernel of this machine, through /dev/kvm',
    unavailable: kvmUnavailable,
    open: openKvm,
  },
  {
    name: 'qemu',
    summary: 'a kernel image in a virtual machine: --kernel IMAGE, and --modules FOLDER where they are not built in',
    heavy: true,
    unavailable: qemuUnavailable,
    open: openQemu,
  },
  {
    name: 'process:CMD',
    summary: 'a program in any language, over its standard input and output: "process:CMD ARGS"',
    executes: true,
    open: ({ argument, timeLimitMs: helloMs, onStderr }) => ProcessTarget.open(argument, { helloMs, onStderr }),
  },
];

/** Whether the entry stands for many targets. */
export const isFamily = ({ name }: TargetEntry): boolean => name.includes(':');

/**
 * The target, ready to execute programs. Throws a RangeError for a name that nothing has, and an UnavailableError where
 * what has it cannot be tested from here.
 */
export async function targetByName(name: string, options: TargetOptions = {}): Promise<Target> {
  const entry = entryOf(name);
  if (entry === undefined)
    throw new RangeError(`unknown target '${name}'; known are ${TARGETS.map((each) => each.name).join(', ')}`);
  const reason = entry.unavailable?.();
  if (reason !== undefined) throw new UnavailableError(`target '${name}' is not available: ${reason}`);
  return entry.open({ ...options, argument: isFamily(entry) ? name.slice(prefixOf(entry).length) : '' });
}

/** Whether opening the target executes a command that stands in its name. */
export const executesItsName = (name: string): boolean => entryOf(name)?.executes === true;

const entryOf = (name: string): TargetEntry | undefined =>
  TARGETS.find((each) => (isFamily(each) ? name.startsWith(prefixOf(each)) : name === each.name));

/** `mutant:` of `mutant:ID`. */
const prefixOf = ({ name }: TargetEntry): string => name.slice(0, name.indexOf(':') + 1);

function openMutant(id: string): Target {
  const mutant = mutantById(id);
  if (mutant === undefined)
    throw new RangeError(`unknown mutant '${id}'; \`gmem-conformance mutants --list\` names them`);
  return mutant.target;
}
