/** A complete target: an implementation of four commands, the adapter around it, and the rules it is held against. */
import type { Observed, Target } from '../../adapters/adapter.ts';
import { specificationFor } from '../../conformance/subject.ts';
import type { Command } from '../../model/catalogue.ts';
import { fails, ok, type Errno, type Outcome } from '../../model/core/outcome.ts';
import { FULL_MACHINE, type Machine } from '../../model/core/profile.ts';
import type { AnyCommand, Specification } from '../../model/core/specification.ts';
import { DEVICE, OTHER, type Label } from '../../model/core/state.ts';

/* The implementation. It knows numbers, and nothing of labels, rules or profiles. */

type OpenFile = { readonly kind: 'kvm' | 'null' | 'vm' } | { readonly kind: 'gmem'; readonly size: bigint };

export class Toy {
  readonly #files: (OpenFile | undefined)[] = [{ kind: 'kvm' }, { kind: 'null' }];

  /** The lowest free number, as a kernel gives them out: closed descriptors are reused at once. */
  #open(file: OpenFile): number {
    const free = this.#files.findIndex((each) => each === undefined);
    const fd = free < 0 ? this.#files.length : free;
    this.#files[fd] = file;
    return fd;
  }

  /** What a file of another kind answers to an ioctl. */
  #refuse(fd: number): Errno {
    const file = this.#files[fd];
    if (file === undefined) return 'EBADF';
    return file.kind === 'kvm' ? 'EINVAL' : 'ENOTTY';
  }

  createVm(kvm: number, type: bigint): number | Errno {
    if (this.#files[kvm]?.kind !== 'kvm') return this.#refuse(kvm);
    return type === 0n ? this.#open({ kind: 'vm' }) : 'EINVAL';
  }

  createGmem(vm: number, size: bigint, flags: bigint): number | Errno {
    if (this.#files[vm]?.kind !== 'vm') return this.#refuse(vm);
    if ((flags & ~3n) !== 0n) return 'EINVAL';
    if (this.isBadSize(size)) return 'EINVAL';
    return this.#open({ kind: 'gmem', size });
  }

  isBadSize(size: bigint): boolean {
    return BigInt.asIntN(64, size) <= 0n || size % 4096n !== 0n;
  }

  stat(fd: number, field: 'size' | 'mode' | 'blocks'): bigint | Errno {
    const file = this.#files[fd];
    if (file === undefined) return 'EBADF';
    const size = file.kind === 'gmem' ? file.size : 0n;
    return { size, mode: 0o100_600n, blocks: 0n }[field];
  }

  close(fd: number): 'EBADF' | undefined {
    if (this.#files[fd] === undefined) return 'EBADF';
    this.#files[fd] = undefined;
    return undefined;
  }
}

/* The adapter. It translates, and decides nothing. */

/** One program on one fresh implementation. */
class Run {
  readonly #toy: Toy;
  /** Open before a program starts: /dev/kvm, and a file that is not KVM's. */
  readonly #fds = new Map<Label, number>([
    [DEVICE, 0],
    [OTHER, 1],
  ]);

  constructor(toy: Toy) {
    this.#toy = toy;
  }

  /** A label that is not open stands for the descriptor −1. */
  #fd(label: Label): number {
    return this.#fds.get(label) ?? -1;
  }

  /** A command that fails opens nothing: its label stays closed for the rest of the program. */
  #opened(label: Label, fd: number | Errno): Outcome {
    if (typeof fd === 'string') return fails(fd);
    this.#fds.set(label, fd);
    return ok();
  }

  execute(command: Command): Outcome {
    switch (command.name) {
      case 'vm.create': {
        const { vm, dev, type } = command.args;
        return this.#opened(vm, this.#toy.createVm(this.#fd(dev), type));
      }
      case 'gmem.create': {
        const { file, vm, size, flags } = command.args;
        return this.#opened(file, this.#toy.createGmem(this.#fd(vm), size, flags));
      }
      case 'file.stat': {
        const value = this.#toy.stat(this.#fd(command.args.fd), command.args.field);
        return typeof value === 'string' ? fails(value) : ok(value);
      }
      case 'fd.close': {
        const error = this.#toy.close(this.#fd(command.args.fd));
        this.#fds.delete(command.args.fd);
        return error === undefined ? ok() : fails(error);
      }
      default:
        throw new Error(`the toy has no ${command.name}`);
    }
  }
}

export const TOY_COMMANDS: readonly string[] = ['vm.create', 'gmem.create', 'file.stat', 'fd.close'];

/** Nothing but VMs of type DEFAULT. */
export const TOY_MACHINE: Machine = { ...FULL_MACHINE, vmTypes: 1n };

function* observe(run: Run, program: readonly AnyCommand[]): Iterable<Observed> {
  for (const command of program) yield { outcome: run.execute(command as Command) };
}

export const toyTarget = (create: () => Toy = () => new Toy()): Target => ({
  name: 'toy',
  capabilities: new Set(),
  machine: TOY_MACHINE,
  missing: { facts: 'the toy does not show its inside' },
  execute: (program) => observe(new Run(create()), program),
});

/** The rules of the commands that the toy has. */
export const toySpecification = (profile: string): Specification =>
  specificationFor(toyTarget(), { profile, commands: TOY_COMMANDS });
