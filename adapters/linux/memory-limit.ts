/**
 * A bound on what agents on this machine take of its memory, that of the kernel on their behalf included: a cgroup of
 * their own, in either version of cgroups. Without one, a program of which the bounds of the model are wrong, or that
 * meets a leak of the kernel, takes memory from others before it is stopped.
 */
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** What an agent is given: programs take at most 64 MiB by the count of the model, and the agent a few more. */
export const AGENT_MEMORY = 256 << 20;

interface Version {
  /** The file that takes the limit in bytes. */
  readonly limit: string;
  /** One that bounds swap, where the kernel has swap: what to write there, for a limit. */
  readonly swap: readonly [file: string, content: (limit: number) => number];
  /** The file with a line `oom_kill N`. */
  readonly events: string;
}

/** Source: Documentation/admin-guide/cgroup-v1/memory.rst; Documentation/admin-guide/cgroup-v2.rst. */
const V1: Version = {
  limit: 'memory.limit_in_bytes',
  // Bounds memory and swap together.
  swap: ['memory.memsw.limit_in_bytes', (limit) => limit],
  events: 'memory.oom_control',
};
const V2: Version = { limit: 'memory.max', swap: ['memory.swap.max', () => 0], events: 'memory.events' };

/** A cgroup that may be given a child with a limit of its own. */
interface Place {
  readonly version: Version;
  readonly folder: string;
}

/**
 * Where this process could make one. `mountinfo` and `cgroup` are the files of those names in /proc/self. In version 2 a
 * cgroup with processes limits no children, unless it is the root, so there it is a sibling.
 */
export function placesFor(mountinfo: string, cgroup: string): readonly Place[] {
  const own = cgroup
    .split('\n')
    .map((line) => /^\d+:([^:]*):(.*)$/.exec(line))
    .filter((match) => match !== null)
    .map(([, controllers = '', path = '']) => ({ controllers: controllers.split(','), path }));
  const pathIn = (controller: string): string | undefined =>
    own.find(({ controllers }) => controllers.includes(controller))?.path;
  return mountinfo.split('\n').flatMap((line): Place[] => {
    const [mount = '', source = ''] = line.split(' - ');
    const [, , , root = '', at = ''] = mount.split(' ');
    const [type, , options = ''] = source.split(' ');
    // What is outside of the mount is not to be reached.
    const folderOf = (path: string | undefined): string | undefined => {
      const below = path === undefined ? '..' : relative(root, path);
      return below.startsWith('..') ? undefined : join(at, below);
    };
    if (type === 'cgroup' && options.split(',').includes('memory')) {
      const folder = folderOf(pathIn('memory'));
      return folder === undefined ? [] : [{ version: V1, folder }];
    }
    const folder = type === 'cgroup2' ? folderOf(pathIn('')) : undefined;
    if (folder === undefined) return [];
    return [folder, ...(folder === at ? [] : [dirname(folder)])].map((each) => ({ version: V2, folder: each }));
  });
}

const PREFIX = 'gmem-conformance-';
let count = 0;

/** How long, and how often, to wait for killed processes before a cgroup can be removed. */
const ATTEMPTS = 100;
const PAUSE_MS = 10;

const pause = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);

export class MemoryLimit {
  /** `memory limit of 256 MiB`. */
  readonly inWords: string;
  readonly #folder: string;
  readonly #version: Version;
  readonly #atExit = (): void => this.remove();

  private constructor(bytes: number, folder: string, version: Version) {
    this.inWords = `memory limit of ${bytes / (1 << 20)} MiB`;
    this.#folder = folder;
    this.#version = version;
    process.once('exit', this.#atExit);
  }

  /** Undefined where this process may not make a cgroup that limits memory. */
  static create(bytes = AGENT_MEMORY): MemoryLimit | undefined {
    for (const { version, folder } of ownPlaces()) {
      const child = join(folder, `${PREFIX}${process.pid}-${++count}`);
      try {
        accessSync(join(folder, 'cgroup.procs'), constants.W_OK);
        removeLeftBehind(folder);
        mkdirSync(child);
      } catch {
        continue;
      }
      try {
        put(child, version.limit, bytes);
        const [swap, content] = version.swap;
        if (existsSync(join(child, swap))) put(child, swap, content(bytes));
        return new MemoryLimit(bytes, child, version);
      } catch {
        rmdirSync(child);
      }
    }
    return undefined;
  }

  /** Puts a process under the limit, to be done before it takes memory. One that has ended already is no error. */
  admit(pid: number): void {
    try {
      put(this.#folder, 'cgroup.procs', pid);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  /** How many processes the kernel has killed to keep to the limit; undefined where the cgroup is gone. */
  get kills(): number | undefined {
    const events = contentOf(join(this.#folder, this.#version.events));
    return events === undefined ? undefined : Number(/^oom_kill (\d+)$/m.exec(events)?.[1] ?? 0);
  }

  /** Ends what is still in it, and takes it away. What the kernel does not let go of stays, for the next run to remove. */
  remove(): void {
    process.off('exit', this.#atExit);
    for (let attempt = 0; attempt < ATTEMPTS && !isRemoved(this.#folder); attempt++) {
      for (const pid of membersOf(this.#folder)) end(pid);
      pause();
    }
  }
}

/** Files of a cgroup are there or not; none can be made. */
const put = (folder: string, file: string, number: number): void =>
  writeFileSync(join(folder, file), `${number}`, { flag: 'r+' });

const ownPlaces = (): readonly Place[] =>
  placesFor(contentOf('/proc/self/mountinfo') ?? '', contentOf('/proc/self/cgroup') ?? '');

function isRemoved(folder: string): boolean {
  try {
    rmdirSync(folder);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'EBUSY';
  }
  return true;
}

const membersOf = (folder: string): readonly number[] =>
  (contentOf(join(folder, 'cgroup.procs')) ?? '').split('\n').filter(Boolean).map(Number);

/** Undefined where there is no such file. */
function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has just ended by itself.
  }
}

/** Cgroups of processes that were killed before they could remove them. Those with members are left alone. */
function removeLeftBehind(folder: string): void {
  for (const name of readdirSync(folder)) {
    const pid = name.startsWith(PREFIX) ? Number.parseInt(name.slice(PREFIX.length), 10) : Number.NaN;
    if (!Number.isNaN(pid) && !existsSync(`/proc/${pid}`)) isRemoved(join(folder, name));
  }
}
