import type { Rule, Specification } from '../model/core/specification.ts';

/** How often each rule decided a command that was executed and checked. */
export class Coverage {
  readonly #hits = new Map<string, number>();

  constructor(specification: Specification) {
    for (const { id } of specification.rules()) this.#hits.set(id, 0);
  }

  hit(rule: string, times = 1): void {
    this.#hits.set(rule, (this.#hits.get(rule) ?? 0) + times);
  }

  /** By rule. */
  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#hits);
  }

  hits(rule: string): number {
    return this.#hits.get(rule) ?? 0;
  }

  /** Rules of the specification that never decided, in its order. */
  missing(specification: Specification): readonly Rule[] {
    return specification.rules().filter(({ id }) => this.hits(id) === 0);
  }
}
