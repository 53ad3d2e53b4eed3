/** Which nodes of a graph whose shapes are known are constant, and the graph without them. Nothing is computed here: learn.ts asks the engine. */
import { elementCount, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import type { ModelNode, Weight } from '../model.js';
import { intAttr } from './attributes.js';
import type { ImportedGraph } from './import.js';
import { namesRead } from './order.js';
import { isRandom } from './subgraphs.js';

/** Folded values are fetched in batches of about this size. */
const FETCH_BYTES = 256 << 20;

/** What can be computed once and for all. DequantizeLinear is not folded: a quantised weight would grow fourfold and the engine would lose its integer kernels. */
export function constantNodes(
  nodes: readonly ModelNode[],
  weights: ReadonlyMap<string, Weight>,
  tensors: ReadonlyMap<string, TensorInfo>,
  functions: ImportedGraph['functions'],
): Set<ModelNode> {
  const values = new Set(weights.keys());
  const constant = new Set<ModelNode>();
  for (const node of nodes) {
    const isFolded =
      shapeRead(node, tensors) !== undefined ||
      (namesRead(node).every((name) => values.has(name)) &&
        node.op !== 'DequantizeLinear' &&
        !isRandom({ ...node, attributes: node.attributes.values() }, functions));
    if (!isFolded) continue;
    constant.add(node);
    for (const name of node.outputs) values.add(name);
  }
  return constant;
}

/** The tensor of known dims whose Shape or Size the node is; undefined = it is no such node. */
export function shapeRead(node: ModelNode, tensors: ReadonlyMap<string, TensorInfo>): TensorInfo | undefined {
  return (node.op === 'Shape' || node.op === 'Size') && node.domain === '' ? tensors.get(node.inputs[0] ?? '') : undefined;
}

/** Shape (with `start` and `end` since opset 15) or Size of a tensor with known dims. */
export function shapeWeight(node: ModelNode, info: TensorInfo): Weight {
  const [name = ''] = node.outputs;
  const rank = info.dims.length;
  const values =
    node.op === 'Size'
      ? [elementCount(info.dims)]
      : info.dims.slice(intAttr(node, 'start', 0), node.attributes.has('end') ? intAttr(node, 'end', rank) : rank);
  const bytes = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
  return { name, dtype: 'int64', dims: node.op === 'Size' ? [] : [values.length], bytes: { kind: 'inline', bytes } };
}

/**
 * An output that is a constant gets an Identity node, so that every output is an input or produced by a node. The constant is renamed for the
 * nodes that read it; subgraphs, in which nothing can be renamed, read the output.
 */
export function withOutputs(
  nodes: readonly ModelNode[],
  weights: Map<string, Weight>,
  outputs: readonly string[],
  tensors: Map<string, TensorInfo>,
): ModelNode[] {
  const renamed = new Map<string, string>();
  const before: ModelNode[] = [];
  const behind: ModelNode[] = [];
  for (const name of outputs) {
    const weight = weights.get(name);
    if (weight === undefined) continue;
    const source = freeName(`${name}/constant`, [...weights.keys(), ...tensors.keys()]);
    weights.delete(name);
    weights.set(source, { ...weight, name: source });
    tensors.set(name, { name, dtype: weight.dtype, dims: weight.dims });
    renamed.set(name, source);
    const isCaptured = nodes.some((node) => node.captured.includes(name));
    (isCaptured ? before : behind).push({
      op: 'Identity',
      domain: '',
      name: source,
      inputs: [source],
      outputs: [name],
      attributes: new Map(),
      captured: [],
    });
  }
  const readers = nodes.map((node) => ({ ...node, inputs: node.inputs.map((i) => renamed.get(i) ?? i) }));
  return [...before, ...readers, ...behind];
}

/** The weights that are still read. */
export function usedWeights(nodes: readonly ModelNode[], weights: ReadonlyMap<string, Weight>): Map<string, Weight> {
  const used = new Set(nodes.flatMap(namesRead));
  return new Map([...weights].filter(([name]) => used.has(name)));
}

/** `names` in batches to be fetched together. */
export function batches(names: readonly string[], tensors: ReadonlyMap<string, TensorInfo>): string[][] {
  const out: string[][] = [];
  let room = 0;
  for (const name of names) {
    const info = tensors.get(name);
    const size = info === undefined ? 0 : tensorBytes(info.dtype, info.dims);
    if (out.length === 0 || size > room) {
      out.push([]);
      room = FETCH_BYTES;
    }
    out.at(-1)?.push(name);
    room -= size;
  }
  return out;
}

/** `wish`, or `wish` with strokes, so that no name in use begins with it. */
export function freeName(wish: string, used: readonly string[]): string {
  let name = wish;
  while (used.some((other) => other.startsWith(name))) name += '/';
  return name;
}
