import { describe, expect, it } from '@jest/globals';
import { placesFor } from './memory-limit.ts';

const mount = (at: string, type: string, options: string, root = '/'): string =>
  `31 24 0:27 ${root} ${at} rw,nosuid,relatime shared:9 - ${type} ${type} ${options}`;

const foldersFor = (mounts: readonly string[], ...cgroup: readonly string[]): readonly string[] =>
  placesFor(mounts.join('\n'), cgroup.join('\n')).map(
    ({ folder, version }) => `${version.limit === 'memory.max' ? 'v2' : 'v1'} ${folder}`,
  );

describe('a cgroup for agents', () => {
  it('is a child of our own in the first version of cgroups', () => {
    const mounts = [
      mount('/proc', 'proc', 'rw'),
      mount('/sys/fs/cgroup/cpu', 'cgroup', 'rw,cpu,cpuacct'),
      mount('/sys/fs/cgroup/memory', 'cgroup', 'rw,memory'),
    ];
    expect(foldersFor(mounts, '5:cpu,cpuacct:/a', '4:memory:/jobs/a')).toEqual(['v1 /sys/fs/cgroup/memory/jobs/a']);
  });

  it('is a child or a sibling in the second version', () => {
    const mounts = [mount('/sys/fs/cgroup', 'cgroup2', 'rw,nsdelegate')];
    expect(foldersFor(mounts, '0::/app.slice/a.scope')).toEqual([
      'v2 /sys/fs/cgroup/app.slice/a.scope',
      'v2 /sys/fs/cgroup/app.slice',
    ]);
    expect(foldersFor(mounts, '0::/')).toEqual(['v2 /sys/fs/cgroup']);
  });

  it('may be in either version where both are mounted', () => {
    const mounts = [mount('/cg/memory', 'cgroup', 'rw,memory'), mount('/cg/unified', 'cgroup2', 'rw')];
    expect(foldersFor(mounts, '4:memory:/a', '0::/')).toEqual(['v1 /cg/memory/a', 'v2 /cg/unified']);
  });

  it('lies below what a container sees of the mount, and nowhere else', () => {
    const mounts = [mount('/sys/fs/cgroup/memory', 'cgroup', 'rw,memory', '/docker/1')];
    expect(foldersFor(mounts, '4:memory:/docker/1/a')).toEqual(['v1 /sys/fs/cgroup/memory/a']);
    expect(foldersFor(mounts, '4:memory:/docker/1')).toEqual(['v1 /sys/fs/cgroup/memory']);
    expect(foldersFor(mounts, '4:memory:/docker/10')).toEqual([]);
  });

  it('is not to be had without a mount, or without a cgroup', () => {
    expect(foldersFor([mount('/proc', 'proc', 'rw')], '0::/a')).toEqual([]);
    expect(foldersFor([mount('/cg', 'cgroup2', 'rw')])).toEqual([]);
    expect(placesFor('', '')).toEqual([]);
  });
});
