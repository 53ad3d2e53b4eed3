/** A model's nodes as published figures speak of them: convolutions, fully connected layers, and the rest. */
import { elementCount } from '../../broker/tensor.js';
import { nodeMacs } from '../../models/macs.js';
import type { Model, ModelNode } from '../../models/model.js';
import { intAttr } from '../../models/onnx/attributes.js';

export type Layer =
  | { readonly kind: 'dense'; readonly inputs: number; readonly outputs: number }
  | { readonly kind: 'conv'; readonly macs: number; readonly kernel: number; readonly groups: number }
  | { readonly kind: 'other' };

/** One entry per node, in order. */
export function layersOf(model: Model): Layer[] {
  return model.nodes.map((node) => layerOf(model, node));
}

/** MACs and parameters of the whole model: what tells a known network from others. */
export function sizeOf(model: Model): { readonly macs: number; readonly params: number } {
  let params = 0;
  for (const weight of model.weights.values()) if (weight.dtype !== 'int64') params += elementCount(weight.dims);
  return { macs: model.nodes.reduce((sum, node) => sum + nodeMacs(model, node), 0), params };
}

function layerOf(model: Model, node: ModelNode): Layer {
  const weights = model.weights.get(node.inputs[1] ?? '')?.dims;
  const macs = nodeMacs(model, node);
  if (weights === undefined || macs === 0) return { kind: 'other' };
  if (weights.length > 2) {
    const groups = Math.max(1, intAttr(node, 'group', 1));
    const kernel = Math.sqrt(elementCount(weights.slice(2)));
    return { kind: 'conv', macs: macs / groups, kernel, groups };
  }
  const outputs = elementCount(model.tensors.get(node.outputs[0] ?? '')?.dims.slice(-1) ?? [1]);
  const rows = Math.max(1, elementCount(model.tensors.get(node.outputs[0] ?? '')?.dims ?? [1]) / outputs);
  return { kind: 'dense', inputs: Math.round(macs / rows / outputs), outputs };
}
