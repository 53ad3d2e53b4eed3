/**
 * Multiply-accumulates of a node: the currency of the planners and of honest coverage.
 * Only what multiplies and accumulates counts; element-wise operators, pools, normalisation and data movement are 0.
 */
import { elementCount } from '../broker/tensor.js';
import type { Model, ModelNode } from './model.js';
import { intAttr } from './onnx/attributes.js';

type Dims = readonly number[] | undefined;

/** Elements of one output filter: dims without the first. */
function filterSize(dims: Dims): number {
  return dims === undefined ? 0 : elementCount(dims.slice(1));
}

/** MACs of one run at the model's fixed shapes; 0 for operators not named here, and for what runs inside If, Loop and Scan. */
export function nodeMacs(model: Model, node: ModelNode): number {
  const dims = (name: string | undefined): Dims => (name ? (model.tensors.get(name) ?? model.weights.get(name))?.dims : undefined);
  const input = (i: number): Dims => dims(node.inputs[i]);
  const outputs = elementCount(dims(node.outputs[0]) ?? [0]);
  switch (node.op) {
    // Every output element sums over the filter: [M, C/group, k...].
    case 'Conv':
    case 'FusedConv':
    case 'ConvInteger':
    case 'DeformConv':
      return outputs * filterSize(input(1));
    case 'QLinearConv':
      return outputs * filterSize(input(3));
    // Every input element meets the filter: [C, M/group, k...].
    case 'ConvTranspose':
      return elementCount(input(0) ?? [0]) * filterSize(input(1));
    case 'MatMul':
    case 'MatMulInteger':
    case 'FusedMatMul':
      return outputs * (input(0)?.at(-1) ?? 0);
    case 'QLinearMatMul':
      return outputs * (input(0)?.at(-1) ?? 0);
    case 'Gemm':
    case 'FusedGemm':
      return outputs * ((intAttr(node, 'transA', 0) === 0 ? input(0)?.[1] : input(0)?.[0]) ?? 0);
    // X is [steps, batch, size] (or batch first); W and R are [directions, gates * hidden, size or hidden].
    case 'LSTM':
    case 'GRU':
    case 'RNN':
      return elementCount(input(0)?.slice(0, 2) ?? [0]) * (elementCount(input(1) ?? [0]) + elementCount(input(2) ?? [0]));
    default:
      return 0;
  }
}
