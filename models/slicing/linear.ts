/**
 * Which nodes may stand in a coded stage behind the point where its parts part: those whose output is linear in weights that are cut with it, so that the sum of
 * the weights gives the sum of the outputs. Everything before is computed whole by every part, so that all have the same input.
 */
import type { ModelNode } from '../model.js';
import { isPlain } from './interval.js';
import type { ModelIndex } from './model-index.js';
import { type Banding, type InputNeed, identity } from './rules/rule.js';

/** Operators that contract their first input with weights. */
const CONTRACTIONS = new Set(['Conv', 'ConvTranspose', 'Gemm', 'MatMul']);
/** float16 and bfloat16 lose too much where large values are subtracted. */
const DTYPES = new Set(['float32', 'float64']);

/** True for an operator that a coded stage can end with. */
export function contracts(node: ModelNode | undefined): boolean {
  return node !== undefined && (node.domain === '' || node.domain === 'ai.onnx') && CONTRACTIONS.has(node.op);
}

/** Why the node's output cannot be recovered from a parity; undefined = it can. `isCoded`: the tensor is made by this stage, each part having its own of it. */
export function notLinear(index: ModelIndex, at: number, banding: Banding, isCoded: (tensor: string) => boolean): string | undefined {
  const node = index.model.nodes[at];
  if (node === undefined) return 'no such node';
  const dtype = index.model.tensors.get(node.outputs[0] ?? '')?.dtype ?? 'an unknown type';
  if (!DTYPES.has(dtype)) return `parts of ${dtype} cannot be recovered, only of float32 and float64`;
  const domain = node.domain === '' || node.domain === 'ai.onnx';
  const coded = node.inputs.filter((name) => isCoded(name));
  const summed = (j: number): boolean => index.model.weights.has(node.inputs[j] ?? '') && isCutAlike(banding.inputs[j]);
  if (contracts(node)) {
    if (coded.length > 0) return 'it reads what is recovered in the next stage only';
    if (banding.inputs[0] !== 'all') return 'its parts have different inputs';
    const odd = node.inputs.findIndex((name, j) => j > 0 && name !== '' && !summed(j));
    return odd < 0 ? undefined : `input ${odd} is no constant of which each part has its own`;
  }
  if (coded.length !== 1) return `${node.op} is not linear`;
  if (domain && (node.op === 'Identity' || node.op === 'Dropout')) return undefined;
  if (domain && (node.op === 'Add' || node.op === 'Sub')) {
    const other = isCoded(node.inputs[0] ?? '') ? 1 : 0;
    return summed(other) ? undefined : 'what it adds is no constant of which each part has its own';
  }
  return `${node.op} is not linear: it belongs to the next stage, after the missing part is recovered`;
}

/** Of this input, too, each part has exactly the channels that it makes. */
function isCutAlike(need: InputNeed | undefined): boolean {
  return typeof need === 'object' && need.need === identity && isPlain(need.band);
}
