/** A task in a guest whose memory fails: what agent/task.c obeys, and what it answers, with names for error numbers. */
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Departure, Peer } from './agent.ts';
import { errnoName } from './errno.ts';
import type { QemuMachine } from './qemu.ts';

export class Task {
  /** How it ended. */
  readonly departed: Promise<Departure>;
  readonly #stream: Socket;
  readonly #waiting: ((answer: string) => void)[] = [];
  readonly #unasked: string[] = [];

  private constructor(stream: Socket, peer: Peer) {
    this.#stream = stream;
    this.departed = peer.departed;
    const lines = createInterface(stream);
    lines.on('line', (text) => {
      const line = text.replace(/^-(\d+)/, (_all, number: string) => `-${errnoName(Number(number))}`);
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#unasked.push(line);
      else waiting(line);
    });
    // That it is gone, `departed` says.
    for (const each of [stream, lines]) each.on('error', () => undefined);
  }

  /** Of a machine whose program is TASK. */
  static start(machine: QemuMachine): Promise<Task> {
    return machine.start((stream, peer) => new Task(stream, peer));
  }

  /** Its answer; that of `spin` and `idle` says that they have begun. */
  ask(order: string): Promise<string> {
    const answer = this.heard();
    this.#stream.write(`${order}\n`);
    return answer;
  }

  /** What it says next; how it went, where it says nothing any more. */
  heard(): Promise<string> {
    const said = this.#unasked.shift();
    if (said !== undefined) return Promise.resolve(said);
    return Promise.race([
      new Promise<string>((resolve) => this.#waiting.push(resolve)),
      this.departed.then(({ code, signal }) => `gone: ${signal ?? String(code)}`),
    ]);
  }
}
