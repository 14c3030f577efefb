/**
 * Commands that somebody recorded, with what came of them, one JSON object a line:
 *
 *     {"command":"status.announce guest=guest0 gpa=0x1000 pages=1 attributes=0","outcome":{"kind":"ok"}}
 *
 * `outcome` and `facts` are as in the protocol of process targets, and may be left out.
 */
import { parseCommand, ProgramError } from '../../model/core/program.ts';
import type { AnyCommand, Specification } from '../../model/core/specification.ts';
import type { Label } from '../../model/core/state.ts';
import type { LogEntry } from '../adapter.ts';
import { Breach, observation, type Answered } from './protocol.ts';

const WANTED =
  'write {"command":"NAME argument=value …","outcome":{…},"facts":{…}}, outcome and facts where they are known';

interface Fields {
  readonly command?: unknown;
  readonly outcome?: unknown;
  readonly facts?: unknown;
}

export class Recording {
  readonly #specification: Specification;
  readonly #labels = new Map<Label, number>();

  constructor(specification: Specification) {
    this.#specification = specification;
  }

  read(line: number, text: string): LogEntry {
    try {
      const { command, ...rest } = fields(text);
      const { outcome, facts } = cameOf(rest);
      return { line, kind: 'command', command: this.#command(command, line), came: outcome, facts };
    } catch (error) {
      if (error instanceof Breach || error instanceof ProgramError)
        return { line, kind: 'malformed', why: error.message };
      throw error;
    }
  }

  #command(text: unknown, line: number): AnyCommand {
    if (typeof text !== 'string') throw new Breach(`command: ${WANTED}`);
    return parseCommand(this.#specification, text.trim(), line, this.#labels);
  }
}

function fields(text: string): Fields {
  try {
    return JSON.parse(text) as Fields;
  } catch (error) {
    throw new Breach(`not JSON: ${(error as Error).message}; ${WANTED}`);
  }
}

function cameOf({ outcome, facts }: Fields): Partial<Answered> {
  if (outcome !== undefined) return observation({ outcome, ...(facts === undefined ? {} : { facts }) }, '');
  if (facts !== undefined) throw new Breach('facts: there without an outcome');
  return {};
}
