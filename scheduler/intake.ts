/** Frames as they arrive from clients: one message per input tensor, checked against the deployment, complete when all inputs are here. */
import type { SegmentReader } from '../broker/activation.js';
import type { Buffers } from '../broker/buffers.js';
import { ChairError } from '../broker/errors.js';
import type { SubmitHeader } from '../broker/messages.js';
import { type Tensor, type TensorInfo, tensorBytes } from '../broker/tensor.js';
import type { Tensors } from './assembly.js';

/** Frames with some inputs here and others not: more than this, or older than that, are forgotten (the client sends them again). */
const MOST_PARTIAL = 256;
const PARTIAL_MS = 30_000;

export interface WholeFrame {
  /** In memory of `Buffers`, each tensor in its own. */
  readonly inputs: Tensors;
  /** With what is free in that memory. */
  readonly bytes: number;
}

export class Intake {
  readonly #inputs: readonly TensorInfo[];
  readonly #buffers: Buffers;
  readonly #partial = new Map<string, { readonly inputs: Record<string, Tensors[string]>; readonly atMs: number }>();

  /** `buffers`: what lanes are read into. */
  constructor(inputs: readonly TensorInfo[], buffers: Buffers) {
    this.#inputs = inputs;
    this.#buffers = buffers;
  }

  /** Returns the frame when this was its last input. Throws FRAME_INVALID. */
  add(header: SubmitHeader, data: SegmentReader, nowMs: number): WholeFrame | undefined {
    this.#check(header);
    const tensor = this.#read(header, data);
    const key = `${header.client} ${header.sequence}`;
    const inputs = this.#partial.get(key)?.inputs ?? {};
    inputs[header.input] = tensor;
    if (Object.keys(inputs).length < this.#inputs.length) {
      this.#partial.set(key, { inputs, atMs: nowMs });
      this.#evict(nowMs);
      return undefined;
    }
    this.#partial.delete(key);
    const bytes = Object.values(inputs).reduce((sum, { bytes: { buffer } }) => sum + buffer.byteLength, 0);
    return { inputs, bytes };
  }

  /** Where it was read, if that is memory of its own; else copied into some. */
  #read({ dtype, dims }: SubmitHeader, data: SegmentReader): Tensor {
    const whole = data.adopt();
    if (whole !== undefined) return { dtype, dims, bytes: whole };
    const bytes = this.#buffers.take(tensorBytes(dtype, dims));
    data.copyTo(bytes, 0, bytes.length);
    return { dtype, dims, bytes };
  }

  #check(header: SubmitHeader): void {
    const wanted = this.#inputs.map((info) => `${info.name}: ${info.dtype}[${info.dims.join(',')}]`).join(', ');
    const info = this.#inputs.find((input) => input.name === header.input);
    const came = `${header.input}: ${header.dtype}[${header.dims.join(',')}]`;
    if (info === undefined || info.dtype !== header.dtype || info.dims.join() !== header.dims.join()) {
      throw new ChairError('FRAME_INVALID', `the frame does not fit deployment '${header.deployment}'`, { expected: wanted, came });
    }
    if (header.inputCount !== this.#inputs.length) {
      const count = `${header.inputCount} inputs`;
      throw new ChairError('FRAME_INVALID', `the frame does not fit deployment '${header.deployment}'`, { expected: wanted, came: count });
    }
  }

  #evict(nowMs: number): void {
    for (const [key, { atMs }] of this.#partial) {
      if (this.#partial.size <= MOST_PARTIAL && nowMs - atMs < PARTIAL_MS) return;
      this.#partial.delete(key);
    }
  }
}
