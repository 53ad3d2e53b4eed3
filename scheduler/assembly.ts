/** Joins the boxes that arrive at SINK into the output tensors of a frame, one attempt apart from the other. */
import { type SegmentReader, scatter } from '../broker/activation.js';
import { ChairError } from '../broker/errors.js';
import type { ActivationHeader } from '../broker/messages.js';
import { type CodedInput, codedInputs, isEnough, recover } from '../broker/parity.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { allocTensor, type Box, boxDims, copyBox, itemBytes, type Tensor, wholeBox } from '../broker/tensor.js';

export type Tensors = Readonly<Record<string, Tensor>>;

interface Partial {
  readonly outputs: Record<string, Tensor>;
  /** Wires whose boxes are in. */
  readonly arrived: Set<number>;
  /** By wire: of outputs that a coded stage gives. */
  readonly parities: Map<number, Tensor>;
}

/** What a plan brings to the dispatcher. */
interface Sink {
  readonly wires: number;
  readonly coded: readonly CodedInput[];
}

export class Assembly {
  readonly #frames = new Map<number, Map<number, Partial>>();
  readonly #sinks = new WeakMap<Plan, Sink>();
  /** Results that were completed without a part, from a parity. */
  recovered = 0;

  /** Begins an attempt. Outputs that are inputs of the model (wires from SOURCE to SINK) are there at once: returned when these are all. */
  begin(plan: Plan, frame: number, attempt: number, inputs: Tensors): Tensors | undefined {
    const partial = this.#partial(plan, frame, attempt);
    let changed = false;
    for (const [index, wire] of plan.wires.entries()) {
      if (wire.fromStage !== SOURCE || wire.toStage !== SINK) continue;
      const info = plan.outputs[wire.input];
      const source = inputs[plan.inputs[wire.output]?.name ?? ''];
      const target = partial.outputs[info?.name ?? ''];
      if (info === undefined || source === undefined || target === undefined) continue;
      copyBox(source.bytes, wholeBox(source.dims), target.bytes, wholeBox(info.dims), wire.box, itemBytes(info.dtype));
      partial.arrived.add(index);
      changed = true;
    }
    return changed ? this.#outputs(plan, partial) : undefined;
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
    if (target === undefined || partial.arrived.has(header.wire)) return undefined;
    const parity = this.#sink(plan).coded.some((coded) => coded.parity === header.wire);
    const into = parity ? allocTensor(info.dtype, dims) : target;
    if (parity) partial.parities.set(header.wire, into);
    scatter(data, header, itemBytes(info.dtype), into.bytes, parity ? wire.box : wholeBox(info.dims), wire.box);
    partial.arrived.add(header.wire);
    return this.#outputs(plan, partial);
  }

  /** All outputs, when enough of their boxes are in. */
  #outputs(plan: Plan, { outputs, arrived, parities }: Partial): Tensors | undefined {
    const { wires, coded } = this.#sink(plan);
    if (!isEnough(wires, coded, arrived)) return undefined;
    let recovered = false;
    for (const { input, axis, parts, parity } of coded) {
      const missing = parts.find((wire) => !arrived.has(wire));
      const target = outputs[plan.outputs[input]?.name ?? ''];
      const sum = parities.get(parity);
      if (missing === undefined || target === undefined || sum === undefined) continue;
      const boxOf = (wire: number): Box => plan.wires[wire]?.box ?? wholeBox(target.dims);
      const others = parts.filter((wire) => wire !== missing).map(boxOf);
      const { dtype, bytes, dims } = target;
      recover({ dtype, axis, target: bytes, holder: wholeBox(dims), missing: boxOf(missing), others, parity: sum.bytes });
      recovered = true;
    }
    if (recovered) this.recovered++;
    return outputs;
  }

  #sink(plan: Plan): Sink {
    const known = this.#sinks.get(plan);
    if (known !== undefined) return known;
    const wires = plan.wires.filter((wire) => wire.toStage === SINK).length;
    const sink = { wires, coded: codedInputs(plan.stages, plan.wires, SINK, 0) };
    this.#sinks.set(plan, sink);
    return sink;
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
    const partial = { outputs, arrived: new Set<number>(), parities: new Map<number, Tensor>() };
    attempts.set(attempt, partial);
    return partial;
  }
}
