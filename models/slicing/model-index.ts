/** What every analysis asks of a model again and again, computed once per model. */
import { type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import { nodeMacs } from '../macs.js';
import type { Model, ModelNode, Weight } from '../model.js';
import { inlineNumbers } from '../onnx/weights.js';
import { type NodeView, type Operand, type Rule, RuleRefusal } from './rules/rule.js';
import { ruleOf } from './rules/table.js';

/** Later than every node: the tensor is an output of the model. */
export const USED_BY_MODEL = Number.MAX_SAFE_INTEGER;

export interface ModelIndex {
  readonly model: Model;
  readonly views: readonly NodeView[];
  readonly rules: readonly (Rule | undefined)[];
  /** MACs of each node, and sums before it: `macsBefore[i]` = nodes `[0, i)`. */
  readonly macs: readonly number[];
  readonly macsBefore: readonly number[];
  /** Index of the node that makes a tensor; absent for model inputs and weights. */
  readonly producer: ReadonlyMap<string, number>;
  /** Nodes that read a tensor (also from inside subgraphs), ascending. */
  readonly consumers: ReadonlyMap<string, readonly number[]>;
  /** Activations that no node after this one reads, by node: their memory is free then. */
  readonly frees: readonly (readonly string[])[];
  /** Bytes of every activation. */
  readonly bytes: ReadonlyMap<string, number>;
  /** The weights each node reads (also from inside subgraphs), with the index of the input (-1: captured), and whether they may be read more than once: by several nodes, or for several outputs of one. */
  readonly weightReads: readonly (readonly { readonly input: number; readonly weight: Weight; readonly shared: boolean }[])[];
  /** Last reader of a tensor, USED_BY_MODEL for model outputs; absent when nothing reads it. */
  readonly lastUse: ReadonlyMap<string, number>;
  /** Stands in every name that slices make up, and in none of the model's: '/' unless the model takes pains. */
  readonly mark: string;
}

const indexes = new WeakMap<Model, ModelIndex>();

export function indexOf(model: Model): ModelIndex {
  let index = indexes.get(model);
  if (index === undefined) {
    index = buildIndex(model);
    indexes.set(model, index);
  }
  return index;
}

/** All names a node reads: inputs and what its subgraphs capture. */
export function readsOf(node: ModelNode): readonly string[] {
  return node.captured.length === 0 ? node.inputs : [...node.inputs, ...node.captured];
}

function buildIndex(model: Model): ModelIndex {
  const producer = new Map<string, number>();
  const consumers = new Map<string, number[]>();
  model.nodes.forEach((node, i) => {
    for (const name of node.outputs) if (name !== '') producer.set(name, i);
    for (const name of new Set(readsOf(node))) {
      if (name === '') continue;
      const list = consumers.get(name);
      if (list === undefined) consumers.set(name, [i]);
      else list.push(i);
    }
  });
  const lastUse = new Map<string, number>();
  for (const [name, list] of consumers) lastUse.set(name, list.at(-1) ?? 0);
  for (const output of model.outputs) lastUse.set(output.name, USED_BY_MODEL);
  const frees: string[][] = model.nodes.map(() => []);
  for (const [name, node] of lastUse) if (model.tensors.has(name)) frees[node]?.push(name);
  const timesRead = new Map<string, number>();
  for (const name of model.nodes.flatMap(readsOf)) timesRead.set(name, (timesRead.get(name) ?? 0) + 1);
  const weightReads = model.nodes.map((node) =>
    readsOf(node).flatMap((name, i) => {
      const weight = model.weights.get(name);
      const shared = (timesRead.get(name) ?? 0) > 1 || node.outputs.length > 1;
      return weight === undefined ? [] : [{ input: i < node.inputs.length ? i : -1, weight, shared }];
    }),
  );
  const macs = model.nodes.map((node) => nodeMacs(model, node));
  const macsBefore = [0];
  for (const m of macs) macsBefore.push((macsBefore.at(-1) ?? 0) + m);
  return {
    model,
    views: model.nodes.map((node, i) => viewOf(model, node, i, lastUse)),
    rules: model.nodes.map(ruleOf),
    macs,
    macsBefore,
    producer,
    consumers,
    lastUse,
    mark: markOf(model),
    frees,
    weightReads,
    bytes: new Map([...model.tensors].map(([name, info]) => [name, tensorBytes(info.dtype, info.dims)])),
  };
}

function markOf(model: Model): string {
  const names = [...model.inputs.map((i) => i.name), ...model.nodes.flatMap((node) => [...readsOf(node), ...node.outputs])];
  let mark = '/';
  while (names.some((name) => ['cut', 'partial', 'parity'].some((word) => name.includes(`${mark}${word}`)))) mark += '/';
  return mark;
}

/** Shape of an activation or weight. */
export function operandOf(model: Model, name: string): Operand | undefined {
  return model.tensors.get(name) ?? model.weights.get(name);
}

function viewOf(model: Model, node: ModelNode, index: number, lastUse: ReadonlyMap<string, number>): NodeView {
  const domain = node.domain === 'ai.onnx' ? '' : node.domain;
  const named = (name: string | undefined): TensorInfo | Weight | undefined =>
    name === undefined || name === '' ? undefined : (model.tensors.get(name) ?? model.weights.get(name));
  return {
    node,
    index,
    opset: model.opsets.find((o) => (o.domain === 'ai.onnx' ? '' : o.domain) === domain)?.version ?? 1,
    input: (i) => named(node.inputs[i]),
    output: (i) => named(node.outputs[i]),
    weight: (i) => model.weights.get(node.inputs[i] ?? ''),
    constants(i) {
      const name = node.inputs[i] ?? '';
      if (name === '') return undefined;
      const weight = model.weights.get(name);
      const values = weight === undefined ? undefined : inlineNumbers(weight);
      if (values === undefined) throw new RuleRefusal(`input ${i} is computed at run time`);
      return values;
    },
    used: (i) => lastUse.has(node.outputs[i] ?? ''),
  };
}
