import { describe, expect, test } from '@jest/globals';
import { CommanderError } from 'commander';
import { UnavailableError } from '../adapters/adapter.ts';
import { UsageError } from './errors.ts';
import { endingOf } from './status.ts';

const INVOCATION = { command: 'gmem-conformance run', version: '1.2.3', modelHash: () => 'abc' };

describe('the end of a command that throws', () => {
  test('is a usage error where the caller can help it', () => {
    expect(endingOf(new UsageError('say please'), INVOCATION)).toEqual({ status: 2, message: 'error: say please' });
    expect(endingOf(new CommanderError(1, 'commander.unknownOption', ''), INVOCATION)).toEqual({ status: 2 });
  });

  test('is success for --help', () => {
    expect(endingOf(new CommanderError(0, 'commander.helpDisplayed', ''), INVOCATION)).toEqual({ status: 0 });
  });

  test('is inconclusive where the target is not available', () => {
    expect(endingOf(new UnavailableError('no /dev/kvm'), INVOCATION).status).toBe(3);
  });

  test('steers no terminal, whatever the message quotes', () => {
    const evil = 'no \u001b]0;mine\u0007 and \u202e';
    for (const error of [new UsageError(evil), new UnavailableError(evil), new Error(evil)])
      expect(endingOf(error, INVOCATION).message).toContain('no \\u{1b}]0;mine\\u{7} and \\u{202e}');
  });

  test('is a defect otherwise, with all that a report needs', () => {
    const { status, message } = endingOf(new TypeError('boom'), INVOCATION);
    expect(status).toBe(4);
    expect(message).toMatch(/^error: TypeError: boom\n +at /);
    expect(message).toMatch(
      /this is a defect of the kit, please report it[^]*gmem-conformance run[^]*1\.2\.3, model abc/,
    );
    expect(endingOf('thrown text', INVOCATION).message).toContain('error: thrown text');
  });
});
