/** Joins the boxes that arrive at SINK into the output tensors of a frame, one attempt apart from the other. */
import { type SegmentReader, scatter } from '../broker/activation.js';
import { ChairError } from '../broker/errors.js';
import type { ActivationHeader } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { allocTensor, boxDims, copyBox, itemBytes, type Tensor, wholeBox } from '../broker/tensor.js';

export type Tensors = Readonly<Record<string, Tensor>>;

interface Partial {
  readonly outputs: Record<string, Tensor>;
  readonly missing: Set<number>;
}

export class Assembly {
  readonly #frames = new Map<number, Map<number, Partial>>();

  /** Begins an attempt. Outputs that are inputs of the model (wires from SOURCE to SINK) are there at once: returned when these are all. */
  begin(plan: Plan, frame: number, attempt: number, inputs: Tensors): Tensors | undefined {
    const partial = this.#partial(plan, frame, attempt);
    for (const [index, wire] of plan.wires.entries()) {
      if (wire.fromStage !== SOURCE || wire.toStage !== SINK) continue;
      const info = plan.outputs[wire.input];
      const source = inputs[plan.inputs[wire.output]?.name ?? ''];
      const target = partial.outputs[info?.name ?? ''];
      if (info === undefined || source === undefined || target === undefined) continue;
      copyBox(source.bytes, wholeBox(source.dims), target.bytes, wholeBox(info.dims), wire.box, itemBytes(info.dtype));
      partial.missing.delete(index);
    }
    return partial.missing.size === 0 ? partial.outputs : undefined;
  }

  /**
   * Puts one box into its place. Returns the outputs when it was the last one of its attempt.
   * Throws CODEC_INVALID when the message does not fit its wire, SEAT_UNKNOWN when the wire does not end here.
   */
  add(plan: Plan, header: ActivationHeader, data: SegmentReader): Tensors | undefined {
    const wire = plan.wires[header.wire];
    const info = wire?.toStage === SINK ? plan.outputs[wire.input] : undefined;
    if (wire === undefined || info === undefined) {
      throw new ChairError('SEAT_UNKNOWN', `wire ${header.wire} of ${plan.deployment} does not end at the dispatcher`);
    }
    const dims = boxDims(wire.box);
    if (header.dtype !== info.dtype || dims.join() !== header.dims.join()) {
      throw new ChairError('CODEC_INVALID', `a box of '${info.name}' does not fit its wire`, {
        expected: `${info.dtype}[${dims.join()}]`,
        came: `${header.dtype}[${header.dims.join()}]`,
      });
    }
    const partial = this.#partial(plan, header.frame, header.attempt);
    const target = partial.outputs[info.name];
    if (target === undefined || !partial.missing.has(header.wire)) return undefined;
    scatter(data, header, itemBytes(info.dtype), target.bytes, wholeBox(info.dims), wire.box);
    data.discard();
    partial.missing.delete(header.wire);
    return partial.missing.size === 0 ? partial.outputs : undefined;
  }

  /** Nothing of this attempt is wanted any more; without an attempt, nothing of the frame. */
  drop(frame: number, attempt?: number): void {
    if (attempt === undefined) this.#frames.delete(frame);
    else this.#frames.get(frame)?.delete(attempt);
  }

  get size(): number {
    return this.#frames.size;
  }

  #partial(plan: Plan, frame: number, attempt: number): Partial {
    const attempts = this.#frames.get(frame) ?? new Map<number, Partial>();
    this.#frames.set(frame, attempts);
    const known = attempts.get(attempt);
    if (known !== undefined) return known;
    const outputs = Object.fromEntries(plan.outputs.map((info) => [info.name, allocTensor(info.dtype, info.dims)]));
    const missing = new Set([...plan.wires.keys()].filter((index) => plan.wires[index]?.toStage === SINK));
    const partial = { outputs, missing };
    attempts.set(attempt, partial);
    return partial;
  }
}
