/**
 * Images travel as uint8 [height, width, 3] RGB. What the model wants instead (its size, channel order, normalisation) becomes
 * nodes in front of it: Reshape -> Transpose -> Cast -> Resize (when the size differs) -> a 1x1 Conv that orders and normalises the channels.
 */
import { ChairError } from '../../broker/errors.js';
import type { DType, TensorInfo } from '../../broker/tensor.js';
import type { ModelNode, Weight } from '../model.js';
import { type AttributeValue, attributeMap } from './attributes.js';
import { onnxCode } from './dtypes.js';
import type { FixedGraph } from './learn.js';

/** As declared with a deployment (the message of the same name carries it). */
export interface ImageInput {
  /** Model input it feeds. */
  readonly input: string;
  /** Size of the uint8 frame that clients send. */
  readonly height: number;
  readonly width: number;
  /** `rgb` or `bgr`: what the model wants. */
  readonly order: string;
  /** value = (pixel / 255 - mean) / std, per channel in the model's order. */
  readonly mean: readonly number[];
  readonly std: readonly number[];
}

/** Throws MODEL_SHAPE_INVALID (no such input, or not float32 [1,3,H,W]) and MODEL_UNSUPPORTED (operator set too old, values that make no sense). */
export function prependImages(graph: FixedGraph, images: readonly ImageInput[]): FixedGraph {
  return images.reduce(prepend, graph);
}

function prepend(graph: FixedGraph, image: ImageInput): FixedGraph {
  const target = graph.inputs.find((i) => i.name === image.input);
  const [batch, channels, height = 0, width = 0] = target?.dims ?? [];
  if (target?.dtype !== 'float32' || target.dims.length !== 4 || batch !== 1 || channels !== 3) {
    throw new ChairError('MODEL_SHAPE_INVALID', `input ${image.input} cannot take an image`, {
      expected: 'an input float32[1,3,height,width]',
      came: target === undefined ? `inputs ${graph.inputs.map((i) => i.name).join(', ')}` : `${target.dtype}[${target.dims.join(',')}]`,
    });
  }
  checkImage(graph, image, target);
  const builder = new Prelude(image.input);
  let value = builder.node('Reshape', [image.input, builder.ints('dims', [1, image.height, image.width, 3])]);
  value = builder.node('Transpose', [value], { perm: [0, 3, 1, 2] });
  value = builder.node('Cast', [value], { to: onnxCode('float32') });
  if (image.height !== height || image.width !== width) {
    const sizes = builder.ints('sizes', [1, 3, height, width]);
    // roi and scales are unused; before opset 13 they could not be left out.
    const unused = opset(graph) < 13 ? builder.weight('unused', 'float32', [0], new Float32Array(0)) : '';
    value = builder.node('Resize', [value, unused, unused, sizes], { mode: 'linear', coordinate_transformation_mode: 'half_pixel' });
  }
  const { scale, offset } = normalisation(image);
  const result = builder.node('Conv', [
    value,
    builder.weight('scale', 'float32', [3, 3, 1, 1], scale),
    builder.weight('offset', 'float32', [3], offset),
  ]);
  const rename = (name: string) => (name === image.input ? result : name);
  return {
    ...graph,
    inputs: graph.inputs.map((i) => (i === target ? { name: i.name, dtype: 'uint8', dims: [image.height, image.width, 3] } : i)),
    nodes: [...builder.nodes, ...graph.nodes.map((n) => ({ ...n, inputs: n.inputs.map(rename) }))],
    outputs: graph.outputs.map(rename),
    weights: new Map([...graph.weights, ...builder.weights.map((w) => [w.name, w] as const)]),
  };
}

function opset(graph: FixedGraph): number {
  return graph.opsets.find((o) => o.domain === '')?.version ?? 0;
}

function checkImage(graph: FixedGraph, image: ImageInput, target: TensorInfo): void {
  const refuse = (what: string, expected: string, came: string) =>
    new ChairError('MODEL_UNSUPPORTED', `the image for input ${image.input} ${what}`, { expected, came });
  const [, , height, width] = target.dims;
  const isResized = image.height !== height || image.width !== width;
  // Before operator set 11 Resize had no half_pixel coordinates.
  const oldest = isResized ? 11 : 7;
  if (opset(graph) < oldest) {
    const why = isResized ? `has another size than the model (${height}x${width})` : 'needs newer operators';
    throw refuse(why, `a model of operator set ${oldest} or later${isResized ? ', or an image of that size' : ''}`, `set ${opset(graph)}`);
  }
  if (!['rgb', 'bgr'].includes(image.order)) throw refuse('has an unknown channel order', 'rgb or bgr', image.order);
  const numbers = [...image.mean, ...image.std];
  if (image.mean.length !== 3 || image.std.length !== 3 || !numbers.every(Number.isFinite) || image.std.includes(0)) {
    throw refuse(
      'is normalised wrongly',
      'three means and three standard deviations that are not 0',
      JSON.stringify([image.mean, image.std]),
    );
  }
  if (![image.height, image.width].every((d) => Number.isSafeInteger(d) && d > 0)) {
    throw refuse('has no size', 'height and width above 0', `${image.height} x ${image.width}`);
  }
  if (graph.nodes.some((n) => n.captured.includes(target.name))) {
    throw refuse('is read inside of a control-flow node', 'an input that only ordinary nodes read', target.name);
  }
}

/** (pixel / 255 - mean) / std = pixel * scale + offset; row c of the 1x1 kernel picks the channel that the model has at c. */
function normalisation(image: ImageInput): { scale: Float32Array; offset: Float32Array } {
  const scale = new Float32Array(9);
  const offset = new Float32Array(3);
  for (let c = 0; c < 3; c++) {
    const std = image.std[c] ?? 1;
    scale[c * 3 + (image.order === 'bgr' ? 2 - c : c)] = 1 / (255 * std);
    offset[c] = -(image.mean[c] ?? 0) / std;
  }
  return { scale, offset };
}

class Prelude {
  readonly nodes: ModelNode[] = [];
  readonly weights: Weight[] = [];
  readonly #prefix: string;

  constructor(input: string) {
    this.#prefix = `${input}/image`;
  }

  node(op: string, inputs: readonly string[], attributes: Readonly<Record<string, AttributeValue>> = {}): string {
    const name = `${this.#prefix}/${op.toLowerCase()}`;
    this.nodes.push({ op, domain: '', name, inputs, outputs: [name], attributes: attributeMap(attributes), captured: [] });
    return name;
  }

  weight(name: string, dtype: DType, dims: readonly number[], data: ArrayBufferView): string {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const full = `${this.#prefix}/${name}`;
    this.weights.push({ name: full, dtype, dims, bytes: { kind: 'inline', bytes } });
    return full;
  }

  ints(name: string, values: readonly number[]): string {
    return this.weight(name, 'int64', [values.length], BigInt64Array.from(values, BigInt));
  }
}
