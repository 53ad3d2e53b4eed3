/**
 * A network of the zoo as a `Model` without a file: shapes, nodes and sizes of weights, but no bytes of the large ones. Enough for blocks, cuts, plans and
 * simulations of networks of any size in milliseconds; slices cannot be written from it.
 */
import { createHash } from 'node:crypto';
import type { TensorInfo } from '../../broker/tensor.js';
import { elementCount } from '../../broker/tensor.js';
import type { Model, Weight } from '../model.js';
import { attributeMap } from '../onnx/attributes.js';
import { BLOB_BYTES } from '../onnx/import.js';
import type { Sketch, SketchWeight } from './sketch.js';

export function structureOf(sketch: Sketch): Model {
  const info = (name: string): TensorInfo => ({ name, dtype: 'float32', dims: sketch.shapeOf(name) });
  return {
    sha256: createHash('sha256').update(`${sketch.name} ${sketch.size} ${sketch.params} ${sketch.macs}`).digest('hex'),
    path: '',
    irVersion: 7,
    opsets: [{ domain: '', version: 13 }],
    nodes: sketch.nodes.map(({ op, inputs, output, attributes }) => ({
      ...{ op, domain: '', name: output, inputs, outputs: [output], captured: [] },
      attributes: attributeMap(attributes),
    })),
    tensors: new Map([...sketch.shapes.keys()].map((name) => [name, info(name)])),
    weights: new Map(sketch.weights.map((weight) => [weight.name, weightOf(weight)])),
    inputs: [info('image')],
    outputs: [info(sketch.output)],
    functions: [],
  };
}

function weightOf({ name, dims, values }: SketchWeight): Weight {
  const length = 4 * elementCount(dims);
  if (length < BLOB_BYTES)
    return { name, dtype: 'float32', dims, bytes: { kind: 'inline', bytes: new Uint8Array(values().slice().buffer) } };
  const sha256 = createHash('sha256').update(`${name} ${length}`).digest('hex');
  return { name, dtype: 'float32', dims, bytes: { kind: 'file', path: '', sha256, offset: 0, length } };
}
