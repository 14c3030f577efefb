/** The first and only file system of a guest that runs the agent. */
import { readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';
import { cpio, type Entry } from './cpio.ts';
import type { Module } from './modules.ts';

export interface Pieces {
  /** Path of the static executable that is process 1 of the guest. */
  readonly init: string;
  /** Path of the static executable that it starts. */
  readonly agent: string;
  /** In the order in which init loads them. */
  readonly modules: readonly Module[];
}

export function initramfs({ init, agent, modules }: Pieces): Buffer {
  // Level 1: the guest, which may be emulated, spends its time on what the host would save.
  return gzipSync(
    cpio([
      { kind: 'folder', path: 'dev' },
      { kind: 'device', path: 'dev/console', major: 5, minor: 1 },
      { kind: 'file', path: 'init', data: readFileSync(init), executable: true },
      { kind: 'file', path: 'agent', data: readFileSync(agent), executable: true },
      ...moduleEntries(modules),
    ]),
    { level: 1 },
  );
}

function moduleEntries(modules: readonly Module[]): readonly Entry[] {
  const path = ({ name }: Module) => `modules/${name}.ko`;
  const order = modules.map((module) => `/${path(module)}\n`).join('');
  return [
    { kind: 'folder', path: 'modules' },
    { kind: 'file', path: 'modules/order', data: Buffer.from(order) },
    ...modules.map((module): Entry => ({ kind: 'file', path: path(module), data: module.image })),
  ];
}
