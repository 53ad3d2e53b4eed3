/**
 * Writes the graph of one part: walks the stage's makings forwards with the intervals that `demand.ts` found.
 * Names and constants come from the nodes and the lengths of intervals, never from where a part lies: equal bands give equal graphs.
 */
import type { AttributeProto } from 'onnx-buf';
import { type DType, itemBytes } from '../../broker/tensor.js';
import type { Weight } from '../model.js';
import { type AttributeValue, attribute } from '../onnx/attributes.js';
import type { GraphNode, GraphValue } from '../onnx/encode.js';
import { sumDims, type WeightSum } from '../onnx/weight-sum.js';
import type { Selection } from '../onnx/weights.js';
import type { Extent, PartDemand } from './demand.js';
import { type Band, bandDims, extentOf, type Interval, inUnits, sameInterval } from './interval.js';
import { type ModelIndex, readsOf } from './model-index.js';
import type { DenseParity, GraphWriter, InputNeed, NodeView } from './rules/rule.js';
import type { Making } from './stage.js';

/** An initializer of a part: bytes made here, a selection of one of the model's weights (undefined: all of it), or intervals of one added up. */
export interface PartWeight {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly from:
    | { readonly bytes: Uint8Array }
    | { readonly weight: Weight; readonly selection: Selection | undefined }
    | { readonly weight: Weight; readonly sum: WeightSum };
}

export interface PartGraph {
  readonly nodes: readonly GraphNode[];
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
  readonly weights: readonly PartWeight[];
}

/** The graph of a part; its inputs and outputs are the part's ports, in order. */
export function partGraph(part: PartDemand): PartGraph {
  return new PartWriter(part).graph();
}

/** The value name of a partial inside a slice does not say which part it is: so equal parts are equal. */
export function partialPort(index: ModelIndex, tensor: string): string {
  return `${tensor}${index.mark}partial`;
}

/** Intervals of one axis of a weight that make up a band's interval. */
function selectionOf(weight: Weight, band: Band, interval: Interval): Selection {
  const units = extentOf(band, weight.dims);
  return weight.dims.map((d, axis) => {
    if (axis !== band.axis) return [[0, d] as const];
    return Array.from(
      { length: band.outer },
      (_, o) => [(o * units + interval[0]) * band.inner, (o * units + interval[1]) * band.inner] as const,
    );
  });
}

function layoutOf({ groups, inPerGroup, outPerGroup }: DenseParity): NonNullable<WeightSum['dense']> {
  return { groups, inPerGroup, outPerGroup };
}

class PartWriter implements GraphWriter {
  readonly #part: PartDemand;
  readonly #nodes: GraphNode[] = [];
  readonly #weights = new Map<string, PartWeight>();
  readonly #crops = new Map<string, string>();
  #counter = 0;

  constructor(part: PartDemand) {
    this.#part = part;
  }

  graph(): PartGraph {
    const { walk, leaving } = this.#part;
    const inputs = this.#part.entering.flatMap((tensor) => this.#enter(tensor));
    for (const [i, making] of walk.makings.entries()) {
      const interval = this.#part.intervals.get(i);
      if (interval !== undefined) this.#make(i, making, interval);
    }
    const outputs = leaving.map((tensor): GraphValue => {
      const partial = walk.holdings.get(tensor)?.kind === 'partial';
      const info = walk.index.model.tensors.get(tensor);
      const value = { name: partial ? partialPort(walk.index, tensor) : tensor };
      if (info === undefined) return value;
      return { ...value, dtype: info.dtype, dims: partial ? info.dims : this.#dims(tensor, info.dims) };
    });
    return { nodes: this.#nodes, inputs, outputs, weights: [...this.#weights.values()] };
  }

  #dims(tensor: string, dims: readonly number[]): readonly number[] {
    const extent = this.#part.extents.get(tensor) ?? 'all';
    return extent === 'all' ? dims : bandDims(dims, extent.band, extent.interval);
  }

  /** Graph inputs of an entering tensor; partials are merged first of all. */
  #enter(tensor: string): GraphValue[] {
    const info = this.#part.walk.index.model.tensors.get(tensor);
    if (info === undefined) return [];
    const dims = this.#dims(tensor, info.dims);
    const partials = this.#part.walk.held.get(tensor);
    if (partials === undefined) return [{ name: tensor, dtype: info.dtype, dims }];
    this.add(partials.merge, partials.names, {}, tensor);
    return partials.names.map((name) => ({ name, dtype: info.dtype, dims }));
  }

  #make(i: number, making: Making, interval: Interval | 'all'): void {
    const view = this.#part.walk.index.views[making.node];
    if (view === undefined) return;
    const { node } = view;
    if (making.kind === 'whole' || interval === 'all') {
      for (const name of readsOf(node)) this.#weightWhole(name);
      this.#nodes.push({
        op: node.op,
        domain: node.domain,
        name: node.name,
        inputs: node.inputs,
        outputs: node.outputs,
        attributes: node.attributes,
      });
      return;
    }
    const needs = making.kind === 'band' ? making.banding.inputs : making.reducing.inputs;
    const needed = needs.map((need) => (typeof need === 'object' ? need.need(interval) : undefined));
    const first = this.#part.biased.has(i);
    const sums = this.#part.sums?.get(i) ?? [];
    const dense = making.kind === 'band' && sums.length > 1 ? making.banding.parity : undefined;
    const inputs = needs.map((need, j) => this.#operand(node.inputs[j] ?? '', need, needed[j], sums, j === 1 ? dense : undefined));
    if (making.kind === 'partial') {
      const output = partialPort(this.#part.walk.index, node.outputs[0] ?? '');
      making.reducing.write(this, { inputs, needs: needed, out: interval, output, first });
    } else {
      const { write } = dense ?? making.banding;
      write(this, { inputs, needs: needed, out: interval, output: node.outputs[making.output] ?? '', first });
    }
  }

  /** The name of a value that holds exactly what a node needs of an input. */
  #operand(name: string, need: InputNeed, interval: Interval | undefined, sums: readonly Interval[], dense?: DenseParity): string {
    if (name === '' || need === 'drop') return '';
    const weight = this.#part.walk.index.model.weights.get(name);
    if (need === 'all') {
      this.#weightWhole(name);
      return name;
    }
    if (interval === undefined) return '';
    if (weight !== undefined && sums.length > 1) {
      const { axis } = need.band;
      return this.#weightSum(weight, dense === undefined ? { axis, intervals: sums } : { axis, intervals: sums, dense: layoutOf(dense) });
    }
    if (weight !== undefined) return this.#weightBand(weight, need.band, interval);
    return this.#crop(name, need.band, interval);
  }

  #weightWhole(name: string): void {
    const weight = this.#part.walk.index.model.weights.get(name);
    if (weight === undefined || this.#weights.has(name)) return;
    this.#weights.set(name, { name, dtype: weight.dtype, dims: weight.dims, from: { weight, selection: undefined } });
  }

  #weightBand(weight: Weight, band: Band, interval: Interval): string {
    if (sameInterval(interval, [0, extentOf(band, weight.dims)])) {
      this.#weightWhole(weight.name);
      return weight.name;
    }
    const key = `${weight.name}\n${band.axis},${band.outer},${band.inner},${interval.join()}`;
    const known = this.#crops.get(key);
    if (known !== undefined) return known;
    const name = this.fresh(weight.name);
    this.#crops.set(key, name);
    const dims = bandDims(weight.dims, band, interval);
    this.#weights.set(name, { name, dtype: weight.dtype, dims, from: { weight, selection: selectionOf(weight, band, interval) } });
    return name;
  }

  /** Of a parity: the parts' intervals of a weight added up. */
  #weightSum(weight: Weight, sum: WeightSum): string {
    const key = `${weight.name}\n${sum.axis},${sum.intervals.join('+')}`;
    const known = this.#crops.get(key);
    if (known !== undefined) return known;
    const name = this.fresh(weight.name);
    this.#crops.set(key, name);
    this.#weights.set(name, { name, dtype: weight.dtype, dims: sumDims(weight.dims, sum), from: { weight, sum } });
    return name;
  }

  /** An interval of an activation, cut out of what the part holds of it. */
  #crop(tensor: string, band: Band, interval: Interval): string {
    const dims = this.#part.walk.index.model.tensors.get(tensor)?.dims ?? [];
    const extent: Extent = this.#part.extents.get(tensor) ?? 'all';
    const own: Interval = extent === 'all' ? [0, extentOf(band, dims)] : inUnits(extent.interval, extent.band, band);
    if (sameInterval(own, interval)) return tensor;
    const from = interval[0] - own[0];
    const length = interval[1] - interval[0];
    const key = `${tensor}\n${band.axis},${band.outer},${band.inner},${from},${length}`;
    const known = this.#crops.get(key);
    if (known !== undefined) return known;
    const name = this.fresh(tensor);
    this.#crops.set(key, name);
    if (band.outer === 1) {
      this.slice(tensor, band.axis, [from * band.inner, (from + length) * band.inner], name);
      return name;
    }
    // Blocks: open the axis, slice the units, close it again.
    const held = bandDims(dims, band, own);
    const open = [...held.slice(0, band.axis), band.outer, own[1] - own[0], band.inner, ...held.slice(band.axis + 1)];
    const opened = this.fresh(tensor);
    this.reshape(tensor, open, opened);
    this.reshape(this.slice(opened, band.axis + 1, [from, from + length]), bandDims(dims, band, interval), name);
    return name;
  }

  fresh(stem: string): string {
    return `${stem}${this.#part.walk.index.mark}cut${++this.#counter}`;
  }

  add(op: string, inputs: readonly string[], attributes: Readonly<Record<string, AttributeValue>> = {}, output?: string): string {
    const name = output ?? this.fresh(inputs[0] ?? op);
    const map = new Map(Object.entries(attributes).map(([key, value]) => [key, attribute(key, value)]));
    this.#nodes.push({ op, inputs, outputs: [name], attributes: map });
    return name;
  }

  copy(
    view: NodeView,
    inputs: readonly string[],
    output: string,
    attributes: Readonly<Record<string, AttributeValue | AttributeProto | undefined>> = {},
  ): void {
    const map = new Map(view.node.attributes);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined) map.delete(key);
      else map.set(key, isProto(value) ? value : attribute(key, value));
    }
    const used = [...inputs];
    while (used.length > 0 && used.at(-1) === '') used.pop();
    this.#nodes.push({ op: view.node.op, domain: view.node.domain, inputs: used, outputs: [output], attributes: map });
  }

  ints(values: readonly number[]): string {
    return this.#constant('int64', [values.length], new Uint8Array(BigInt64Array.from(values, BigInt).buffer));
  }

  floats(values: readonly number[], dtype: DType, dims: readonly number[] = [values.length]): string {
    if (dtype === 'float64') return this.#constant(dtype, dims, new Uint8Array(Float64Array.from(values).buffer));
    const single = this.#constant('float32', dims, new Uint8Array(Float32Array.from(values).buffer));
    // float16 and bfloat16 constants are made by the engine: exact enough, and no rounding code here.
    return dtype === 'float32' ? single : this.add('Cast', [single], { to: dtype === 'float16' ? 10 : 16 });
  }

  #constant(dtype: DType, dims: readonly number[], bytes: Uint8Array): string {
    const key = `${dtype}[${dims.join()}]${Buffer.from(bytes).toString('hex')}`;
    const known = this.#crops.get(key);
    if (known !== undefined) return known;
    const name = this.fresh(`const${itemBytes(dtype)}`);
    this.#crops.set(key, name);
    this.#weights.set(name, { name, dtype, dims, from: { bytes } });
    return name;
  }

  slice(value: string, axis: number, [start, end]: Interval, output?: string): string {
    if (this.#opset() < 10) return this.add('Slice', [value], { starts: [start], ends: [end], axes: [axis] }, output);
    return this.add('Slice', [value, this.ints([start]), this.ints([end]), this.ints([axis])], {}, output ?? this.fresh(value));
  }

  reshape(value: string, dims: readonly number[], output: string): void {
    if (this.#opset() < 5) this.add('Reshape', [value], { shape: [...dims] }, output);
    else this.add('Reshape', [value, this.ints(dims)], {}, output);
  }

  #opset(): number {
    return this.#part.walk.index.model.opsets.find((o) => o.domain === '' || o.domain === 'ai.onnx')?.version ?? 1;
  }
}

function isProto(value: AttributeValue | AttributeProto): value is AttributeProto {
  return typeof value === 'object' && '$typeName' in value;
}
