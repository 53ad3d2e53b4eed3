/** The bare engine on a device of the testbed, driven from here. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { ChairError } from '../../broker/errors.js';
import type { Device } from '../testbed/testbed.js';

const PROGRAM = fileURLToPath(new URL('../../models/engine/bare-engine.mjs', import.meta.url));

export interface BareOptions {
  readonly threads?: number;
  /** The engine's own default is true; agents load with false. */
  readonly prepack?: boolean;
}

interface Answer {
  readonly ms: readonly number[];
  readonly anonymousKib: number;
}

export class BareEngine {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  anonymousKib = 0;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>) {
    this.#child = child;
    this.#lines = lines;
  }

  /** Resolves when all models are loaded. Throws ENGINE_LOAD_FAILED. */
  static async start(device: Device, models: readonly string[], { threads = 1, prepack = true }: BareOptions = {}): Promise<BareEngine> {
    const [program = '', ...args] = device.command([process.execPath, PROGRAM, String(threads), prepack ? '1' : '0', ...models]);
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    device.own(child);
    const bare = new BareEngine(child, createInterface({ input: child.stdout })[Symbol.asyncIterator]());
    await bare.#answer();
    return bare;
  }

  /** Milliseconds of each run. */
  async run(runs: number, model = 0): Promise<readonly number[]> {
    this.#child.stdin?.write(`${JSON.stringify({ model, runs })}\n`);
    const { ms, anonymousKib } = await this.#answer();
    this.anonymousKib = anonymousKib;
    return ms;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGKILL');
    await ended;
  }

  async #answer(): Promise<Answer> {
    const { value, done } = await this.#lines.next();
    if (done === true) throw new ChairError('ENGINE_LOAD_FAILED', 'the bare engine ended (not enough memory on its device?)');
    return JSON.parse(String(value)) as Answer;
  }
}
