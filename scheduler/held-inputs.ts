/**
 * Memory of frames' inputs, which goes back to where it came from when the frame is answered and nothing of it is being sent any more: else each frame costs its gateway
 * new memory, whose pages are made while the kernel copies into it. Where it is not certain that nobody reads it, the garbage collector gets it.
 */
import type { Buffers } from '../broker/buffers.js';
import type { Tensors } from './assembly.js';

interface Held {
  readonly inputs: Tensors;
  /** Messages of it that have not left. */
  sending: number;
  answered: boolean;
  /** A message broke off: who reads of it is not known. */
  broken: boolean;
}

export class HeldInputs {
  readonly #buffers: Pick<Buffers, 'give'>;
  readonly #frames = new Map<number, Held>();

  constructor(buffers: Pick<Buffers, 'give'>) {
    this.#buffers = buffers;
  }

  /** A message that looks at the inputs of this frame goes out; it resolves when nothing of it is looked at any more. */
  sending(frame: number, inputs: Tensors, sent: Promise<unknown>): void {
    const held = this.#frames.get(frame) ?? { inputs, sending: 0, answered: false, broken: false };
    this.#frames.set(frame, held);
    held.sending++;
    sent.then(
      () => this.#left(frame, held),
      () => {
        held.broken = true;
        this.#left(frame, held);
      },
    );
  }

  /** It is answered: never sent again. */
  answered(frame: number): void {
    const held = this.#frames.get(frame);
    if (held === undefined) return;
    held.answered = true;
    this.#settle(frame, held);
  }

  /** Frames whose memory is held. */
  get size(): number {
    return this.#frames.size;
  }

  #left(frame: number, held: Held): void {
    held.sending--;
    this.#settle(frame, held);
  }

  #settle(frame: number, held: Held): void {
    if (!held.answered || held.sending > 0 || !this.#frames.delete(frame) || held.broken) return;
    for (const { bytes } of Object.values(held.inputs)) this.#buffers.give(bytes);
  }
}
