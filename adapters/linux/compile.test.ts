import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AGENT, compile, CompileFailed, compilerVersion, NoCompiler } from './compile.ts';

function compilerIsMissing(): boolean {
  try {
    compilerVersion();
    return false;
  } catch {
    return true;
  }
}

const describeCompiler = compilerIsMissing() ? describe.skip : describe;

const { CC, XDG_CACHE_HOME } = process.env;
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gmem-compile-'));
  process.env['XDG_CACHE_HOME'] = folder;
});
afterEach(() => {
  rmSync(folder, { recursive: true });
  for (const [name, before] of Object.entries({ CC, XDG_CACHE_HOME }))
    if (before === undefined) Reflect.deleteProperty(process.env, name);
    else process.env[name] = before;
});

test('without a compiler it is said what to install', () => {
  process.env['CC'] = '/nowhere/cc -pipe';
  expect(() => compile(AGENT)).toThrow(NoCompiler);
  expect(() => compile(AGENT)).toThrow(
    "there is no C compiler '/nowhere/cc': set CC, or apt-get install gcc libc6-dev",
  );
});

describeCompiler(`compiling${compilerIsMissing() ? ' (skipped: there is no C compiler)' : ''}`, () => {
  const cached = () => readdirSync(join(folder, 'gmem-conformance'));

  test('is done once', () => {
    const path = compile(AGENT);
    const { ino, mode } = statSync(path);
    expect(mode & 0o111).not.toBe(0);
    expect(compile(AGENT)).toBe(path);
    expect(statSync(path).ino).toBe(ino);
    expect(cached()).toHaveLength(1);
  }, 30_000);

  test('is done again with other flags', () => {
    const quick = { ...AGENT, flags: ['-O0', '-w'] };
    expect(compile(quick)).not.toBe(compile({ ...quick, flags: ['-O0', '-w', '-g'] }));
    expect(cached()).toHaveLength(2);
  }, 30_000);

  test('that fails says what the compiler said, and leaves nothing', () => {
    const broken = { ...AGENT, flags: [...AGENT.flags, '-DPROTOCOL_VERSION='] };
    expect(() => compile(broken)).toThrow(CompileFailed);
    expect(() => compile(broken)).toThrow(/^\S+ cannot build agent:\n(.|\n)*PROTOCOL_VERSION/);
    expect(cached()).toEqual([]);
  }, 30_000);
});
