/**
 * What a rule says about an operator. One operator, one rule, in one table (`table.ts`).
 * A rule never sees bytes of large weights and never knows which part it writes: it states intervals and writes nodes.
 */
import type { AttributeProto } from 'onnx-buf';
import type { DType } from '../../../broker/tensor.js';
import type { ModelNode, Weight } from '../../model.js';
import type { AttributeValue } from '../../onnx/attributes.js';
import type { Band, Interval } from '../interval.js';

/** An input or output of a node, activation or weight. */
export interface Operand {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
}

/** A node with all that a rule may ask about it. */
export interface NodeView {
  readonly node: ModelNode;
  readonly index: number;
  /** Version of the node's operator set. */
  readonly opset: number;
  /** Undefined when omitted, or when it is no tensor of a known shape. */
  input(index: number): Operand | undefined;
  output(index: number): Operand | undefined;
  /** The constant behind an input. */
  weight(index: number): Weight | undefined;
  /** Values of a small constant input (integers or float32); undefined when omitted. Throws a `RuleRefusal` when it is computed at run time: then nothing is known of other runs. */
  constants(index: number): number[] | undefined;
  /** True when something uses this output. */
  used(output: number): boolean;
}

/** Thrown by rules (and only by them) to say that a node cannot be cut so; caught where rules are called. */
export class RuleRefusal extends Error {}

/** What a banded node needs of one input. */
export interface BandedInput {
  readonly band: Band;
  /** Interval of the input for an interval of the output; undefined: nothing of it (the input is left out). */
  readonly need: (out: Interval) => Interval | undefined;
}

/** `all`: the whole tensor. `drop`: the rule writes this input itself (shapes, axes, pads). */
export type InputNeed = BandedInput | 'all' | 'drop';

/** How one output of a node is made in bands. */
export interface Banding {
  /** One entry per node input. */
  readonly inputs: readonly InputNeed[];
  /** Writes nodes that produce exactly `io.out` into `io.output`. */
  readonly write: (writer: GraphWriter, io: BandIO) => void;
  /** Units really computed for an interval, when more than the interval itself (the rule crops). */
  readonly computed?: (out: Interval) => number;
  /** Of a coded stage: how a parity of several parts is written where it is not the node itself with weights added up. */
  readonly parity?: DenseParity;
}

/** The parity of a grouped convolution: parts of different groups read different inputs, so it reads all of them, by one convolution without groups. */
export interface DenseParity {
  /** The weights of output channel `o` stand at input channels `[g, g + 1) * inPerGroup` of the sum, g = floor(o / outPerGroup). */
  readonly groups: number;
  readonly inPerGroup: number;
  readonly outPerGroup: number;
  readonly write: Banding['write'];
}

/** How a node that reduces over the band makes a partial of its whole output: parts are merged by this variadic operator. */
export type MergeOp = 'Sum' | 'Max' | 'Min';

export interface Reducing {
  /** Intervals are those of the reduced band itself. */
  readonly inputs: readonly InputNeed[];
  readonly merge: MergeOp;
  /** `io.out` is the interval that is reduced; `io.first` is true in the one part that adds the bias. */
  readonly write: (writer: GraphWriter, io: BandIO) => void;
}

export interface BandIO {
  /** Value names, one per node input, each holding exactly what was needed; '' when left out. */
  readonly inputs: readonly string[];
  /** The interval that each banded input holds. */
  readonly needs: readonly (Interval | undefined)[];
  readonly out: Interval;
  readonly output: string;
  readonly first: boolean;
}

/** Where rules write a part's nodes. Names are derived from the node's own, never from the part: equal parts must give equal bytes. */
export interface GraphWriter {
  /** A node of the standard domain; returns its first output. */
  add(op: string, inputs: readonly string[], attributes?: Readonly<Record<string, AttributeValue>>, output?: string): string;
  /** The model's node again, with other inputs and output; `attributes` replace those of the same name (undefined removes). */
  copy(
    view: NodeView,
    inputs: readonly string[],
    output: string,
    attributes?: Readonly<Record<string, AttributeValue | AttributeProto | undefined>>,
  ): void;
  /** A fresh value name that starts with `stem`. */
  fresh(stem: string): string;
  ints(values: readonly number[]): string;
  floats(values: readonly number[], dtype: DType, dims?: readonly number[]): string;
  /** Slice `[start, end)` of a value along an axis; `output` names the result. */
  slice(value: string, axis: number, interval: Interval, output?: string): string;
  /** A Reshape to fixed dims. */
  reshape(value: string, dims: readonly number[], output: string): void;
}

export interface Rule {
  /**
   * How output `output` is made in bands of `band`. Throws RuleRefusal with the reason when it cannot be.
   * Called once per model, node and kind of cut: it may be slow.
   */
  readonly band: (view: NodeView, output: number, band: Band) => Banding;
  /** For operators that reshape: bands of an output for a band of an input (others are found by trying each axis). */
  readonly forward?: (view: NodeView, input: number, band: Band, output: number) => Band | undefined;
  /** The other way, into coarser units: the band of input 0 whose units are made of whole units of an output's band. */
  readonly backward?: (view: NodeView, band: Band) => Band | undefined;
  /** How the node reduces over the band that input `input` is held in. */
  readonly reduce?: (view: NodeView, input: number, band: Band) => Reducing;
  /** Contracts over an axis with weights: what the cuts `inputs` and `pair` are made for. Returns the input and the axis that is contracted. */
  readonly contraction?: (view: NodeView) => { readonly input: number; readonly axis: number } | undefined;
  /** Bands that are natural for the operator, by kind of cut. */
  readonly anchors?: (view: NodeView) => {
    readonly spatial?: { readonly input: readonly number[]; readonly output: readonly number[] };
    readonly channels?: { readonly input?: Band; readonly output?: Band };
  };
}

export function refuse(reason: string): never {
  throw new RuleRefusal(reason);
}

export const identity = (out: Interval): Interval => out;

/** Needs the same interval of `band`. */
export function same(band: Band): BandedInput {
  return { band, need: identity };
}

/** Rules of node with a single meaningful output call this first. */
export function onlyFirst(view: NodeView, output: number): void {
  if (output !== 0) refuse(`output ${output} of ${view.node.op} cannot be made in bands`);
}

export function need(operand: Operand | undefined, what: string): Operand {
  return operand ?? refuse(`${what} has no known shape`);
}
