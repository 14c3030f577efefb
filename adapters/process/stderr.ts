/** What an implementation writes to standard error: shown to whoever wants to see it, and the end of it kept. */
import { harmless } from './lines.ts';

const KEPT_CHARACTERS = 4096;
/** Whoever writes more is not read by anybody. */
const SHOWN_CHARACTERS = 1024 * 1024;

export class Stderr {
  readonly #show: (text: string) => void;
  #end = '';
  #shown = 0;

  constructor(show: (text: string) => void = () => undefined) {
    this.#show = show;
  }

  readonly add = (written: string): void => {
    const text = harmless(written);
    this.#end = (this.#end + text).slice(-KEPT_CHARACTERS);
    if (this.#shown > SHOWN_CHARACTERS) return;
    this.#shown += text.length;
    this.#show(text);
    if (this.#shown > SHOWN_CHARACTERS) this.#show('\n(what the implementation writes from here on is not shown)\n');
  };

  get end(): string {
    return this.#end;
  }
}
