import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { U64_MAX } from '../../model/core/abi.ts';
import { Breach, encodeRun, parseHello, parseObservations } from './protocol.ts';

const HELLO = { type: 'hello', protocol: 1, name: 'mine' };
const OK = { outcome: { kind: 'ok' } };

const observations = (list: readonly unknown[], rest: object = {}): string =>
  JSON.stringify({ type: 'observations', id: 3, observations: list, ...rest });
const outcome = (value: unknown): string => observations([OK, { outcome: value }]);
const read = (answer: string, wanted = 2) => parseObservations(answer, 3, wanted);

describe('an answer that is none is told from where it is wrong', () => {
  it.each([
    ['{', /^not JSON: /],
    ['null', /^not a JSON object$/],
    ['[1]', /^not a JSON object$/],
    ['{}', /^type: wanted "observations", and it is not there$/],
    ['{"type":["observations"]}', /^type: wanted "observations", and it is \["observations"\]$/],
    ['{"type":"hello"}', /^type: wanted "observations", and it is "hello"$/],
    [observations([OK, OK], { id: '3' }), /^id: Invalid input: expected number, received string$/],
    [observations([OK, OK], { id: 4 }), /^id: wanted 3, that of the run, and it is 4$/],
    [observations([OK, OK], { observations: {} }), /^observations: .*expected array/],
    [observations([OK, OK, OK]), /^observations: 3, for 2 commands$/],
    [observations([OK]), /^observations: 1, for 2 commands$/],
    [observations([OK, 7]), /^observations\[1\]: .*expected object/],
    [observations([OK, {}]), /^observations\[1\]\.outcome: /],
    [outcome({ kind: 'maybe' }), /^observations\[1\]\.outcome\.kind: .*'ok' \| 'errno'/],
    [outcome({ kind: 'ok', value: 4096 }), /^observations\[1\]\.outcome\.value: write a string of decimal digits/],
    [outcome({ kind: 'ok', value: null }), /^observations\[1\]\.outcome\.value: write a string/],
    [outcome({ kind: 'ok', value: '-1' }), /^observations\[1\]\.outcome\.value: write a string/],
    [outcome({ kind: 'ok', value: '18446744073709551616' }), /^observations\[1\]\.outcome\.value: write a string/],
    [outcome({ kind: 'ok', value: '0x' }), /^observations\[1\]\.outcome\.value: write a string/],
    [outcome({ kind: 'ok', value: '007' }), /^observations\[1\]\.outcome\.value: write a string/],
    [outcome({ kind: 'errno' }), /^observations\[1\]\.outcome\.errno: write the name of an error, such as "EINVAL"$/],
    [outcome({ kind: 'errno', errno: 22 }), /^observations\[1\]\.outcome\.errno: write the name of an error/],
    [outcome({ kind: 'errno', errno: '22' }), /^observations\[1\]\.outcome\.errno: write the name of an error/],
    [outcome({ kind: 'mmio', gpa: '0' }), /^observations\[1\]\.outcome\.write: .*expected boolean/],
    [outcome({ kind: 'memory-fault', errno: 'EFAULT', gpa: '0' }), /^observations\[1\]\.outcome\.private: /],
    [outcome({ kind: 'signal', signal: 'bus' }), /^observations\[1\]\.outcome\.signal: write the name of a signal/],
    [
      observations([{ outcome: { kind: 'crash', message: 'x' } }, OK]),
      /^observations\[1\]: behind crash there are none$/,
    ],
    [observations([OK, { ...OK, facts: [] }]), /^observations\[1\]\.facts: /],
    [observations([OK, { ...OK, facts: { vms: 1 } }]), /^observations\[1\]\.facts\.vms: .*expected array/],
    [observations([OK, { ...OK, facts: { vms: [{ vm: 'a' }, {}] } }]), /^observations\[1\]\.facts\.vms\[1\]\.vm: /],
    [observations([OK, { ...OK, facts: { poisoned: [1.5] } }]), /^observations\[1\]\.facts\.poisoned\[0\]: /],
    [observations([OK, { ...OK, facts: { poisoned: [-1] } }]), /^observations\[1\]\.facts\.poisoned\[0\]: /],
  ])('%s', (answer, message) => {
    expect(() => read(answer)).toThrow(Breach);
    expect(() => read(answer)).toThrow(message);
  });

  it.each([
    [{ ...HELLO, protocol: undefined }, /^protocol: wanted 1, the version of the protocol that the kit speaks$/],
    [{ ...HELLO, name: 7 }, /^name: .*expected string/],
    [{ ...HELLO, name: 'x'.repeat(5000) }, /^name: Too big/],
    [{ ...HELLO, profile: 'linux-2.6' }, /^profile: .*"linux-6\.18"/],
    [{ ...HELLO, commands: ['fd.close', 'fd.open'] }, /^commands\[1\]: .*"fd\.close"/],
    [{ ...HELLO, capabilities: ['magic'] }, /^capabilities\[0\]: .*"facts"/],
    [{ ...HELLO, missing: { facts: 1 } }, /^missing\.facts: /],
    [{ ...HELLO, machine: { vmTypes: '0x20' } }, /^machine\.vmTypes: wanted 0x1 or 0x3$/],
    [{ ...HELLO, machine: { guestPhysicalBits: 64 } }, /^machine\.guestPhysicalBits: Too big/],
    [{ ...HELLO, machine: { maxVcpus: '0' } }, /^machine\.maxVcpus: wanted 0x1 to 0x100000000$/],
  ])('%j', (answer, message) => {
    expect(() => parseHello(JSON.stringify(answer))).toThrow(Breach);
    expect(() => parseHello(JSON.stringify(answer))).toThrow(message);
  });
});

describe('an answer', () => {
  it('holds every number of 64 bits, in decimal and in hex', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: U64_MAX }), fc.boolean(), (value, isHex) => {
        const text = isHex ? `0x${value.toString(16)}` : `${value}`;
        expect(read(outcome({ kind: 'ok', value: text }))[1]).toEqual({ outcome: { kind: 'ok', value } });
      }),
    );
    expect(read(outcome({ kind: 'ok', value: '0x00Ff' }))[1]).toEqual({ outcome: { kind: 'ok', value: 255n } });
  });

  it('may have fields that nobody knows, and names of errors that no rule has', () => {
    const answer = observations(
      [{ ...OK, mood: 'good', facts: { weather: 1 } }, { outcome: { kind: 'errno', errno: 'ENOSPC' } }],
      {
        ['__proto__']: 1,
      },
    );
    expect(read(answer)).toEqual([{ ...OK, facts: {} }, { outcome: { kind: 'errno', errno: 'ENOSPC' } }]);
  });

  it.each(['crash', 'unsupported'])('ends with %s, whose words steer no terminal', (kind) => {
    const answer = observations([{ outcome: { kind, message: 'no\u001b[31m\u202e\r' } }]);
    expect(read(answer)).toEqual([{ outcome: { kind, message: 'no?[31m??' } }]);
  });

  it('has facts as the model has them', () => {
    const slot = { vm: 'vm0', slot: 0, baseGfn: 16, pages: 4, gmem: false, file: null, firstPage: 0 };
    const cache = { gpc: 'gpc0', vm: 'vm0', gfn: null, active: false, valid: false, frame: 7 };
    const [{ facts } = {}] = read(observations([{ ...OK, facts: { slots: [slot], caches: [cache] } }, OK]));
    expect(facts).toEqual({
      slots: [{ ...slot, file: undefined }],
      caches: [{ ...cache, gfn: undefined }],
    });
  });

  it('to hello says as much as it likes', () => {
    expect(parseHello(JSON.stringify(HELLO))).toEqual({ ...HELLO, capabilities: [], missing: {}, machine: {} });
    const machine = { vmTypes: '1', maxVcpus: '0x10' };
    expect(parseHello(JSON.stringify({ ...HELLO, machine })).machine).toEqual({ vmTypes: 1n, maxVcpus: 16n });
  });
});

it('a command that the protocol has not is a mistake of the caller', () => {
  expect(() => encodeRun(1, [{ name: 'vm.destroy', args: {} }])).toThrow(/no command 'vm\.destroy'/);
});
