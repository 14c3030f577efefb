/** QEMU's monitor for programs, through which the commands of the one for people can be given. Source: docs/interop/qmp-spec.txt of QEMU. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

interface Answer {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

export class Monitor {
  readonly #socket: Socket;
  readonly #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    const lines = createInterface(socket);
    lines.on('line', (line) => this.#take(JSON.parse(line) as Answer));
    socket.on('close', () => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('QEMU is gone'));
    });
    // That it is gone, `close` says.
    for (const each of [socket, lines]) each.on('error', () => undefined);
  }

  static async connect(path: string): Promise<Monitor> {
    const socket = connect(path);
    await once(socket, 'connect');
    const monitor = new Monitor(socket);
    await monitor.#execute('qmp_capabilities');
    return monitor;
  }

  /** What the command prints. Commands are answered in order. */
  async command(line: string): Promise<string> {
    return String(await this.#execute('human-monitor-command', { 'command-line': line }));
  }

  #execute(execute: string, args: object = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) reject(new Error('QEMU is gone'));
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    });
  }

  /** A greeting and events are no answers. */
  #take(answer: Answer): void {
    if (!('return' in answer) && answer.error === undefined) return;
    const { resolve, reject } = this.#waiting.shift() ?? {};
    if (answer.error === undefined) resolve?.(answer.return);
    else reject?.(new Error(`QEMU: ${answer.error.desc}`));
  }
}
