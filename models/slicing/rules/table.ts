/** One table, one rule per operator. An operator that is not in here may stand in whole stages only. */
import type { ModelNode } from '../../model.js';
import { conv, convTranspose } from './conv.js';
import { elementwise, passThrough, prelu, quantize } from './elementwise.js';
import { gemm, matmul } from './matmul.js';
import {
  batchNormalization,
  instanceNormalization,
  layerNormalization,
  lpNormalization,
  lrn,
  meanVarianceNormalization,
  softmax,
} from './normalise.js';
import { globalAveragePool, globalMaxPool, pool } from './pool.js';
import { argReduce, reduceMax, reduceMean, reduceMin, reduceOther, reduceSum } from './reduce.js';
import { resize } from './resize.js';
import type { Rule } from './rule.js';
import { concat, cumSum, depthToSpace, expand, gather, pad, reshape, slice, spaceToDepth, split, tile, transpose } from './shape.js';

const ELEMENTWISE = [
  ...[
    'Abs',
    'Acos',
    'Acosh',
    'Asin',
    'Asinh',
    'Atan',
    'Atanh',
    'Ceil',
    'Cos',
    'Cosh',
    'Erf',
    'Exp',
    'Floor',
    'IsInf',
    'IsNaN',
    'Log',
    'Neg',
  ],
  ...['Not', 'Reciprocal', 'Round', 'Sign', 'Sin', 'Sinh', 'Sqrt', 'Tan', 'Tanh', 'Cast', 'BitwiseNot'],
  ...['Relu', 'LeakyRelu', 'Clip', 'Sigmoid', 'HardSigmoid', 'HardSwish', 'Elu', 'Celu', 'Selu', 'Softplus', 'Softsign', 'Gelu', 'Mish'],
  ...['Swish', 'ThresholdedRelu', 'Shrink'],
  ...['Add', 'Sub', 'Mul', 'Div', 'Mod', 'Pow', 'And', 'Or', 'Xor', 'BitShift', 'BitwiseAnd', 'BitwiseOr', 'BitwiseXor'],
  ...['Equal', 'Less', 'LessOrEqual', 'Greater', 'GreaterOrEqual', 'Where', 'Min', 'Max', 'Sum', 'Mean'],
];

const RULES = new Map<string, Rule>([
  ...ELEMENTWISE.map((op): [string, Rule] => [op, elementwise]),
  ['Identity', passThrough],
  ['Dropout', passThrough],
  ['PRelu', prelu],
  ['QuantizeLinear', quantize],
  ['DequantizeLinear', quantize],
  ['Conv', conv],
  ['ConvTranspose', convTranspose],
  ['MaxPool', pool],
  ['AveragePool', pool],
  ['LpPool', pool],
  ['GlobalAveragePool', globalAveragePool],
  ['GlobalMaxPool', globalMaxPool],
  ['BatchNormalization', batchNormalization],
  ['InstanceNormalization', instanceNormalization],
  ['LayerNormalization', layerNormalization],
  ['RMSNormalization', layerNormalization],
  ['MeanVarianceNormalization', meanVarianceNormalization],
  ['LpNormalization', lpNormalization],
  ['LRN', lrn],
  ['Softmax', softmax],
  ['LogSoftmax', softmax],
  ['Hardmax', softmax],
  ['Gemm', gemm],
  ['MatMul', matmul],
  ['Concat', concat],
  ['Split', split],
  ['Slice', slice],
  ['Pad', pad],
  ['Transpose', transpose],
  ['Reshape', reshape],
  ['Flatten', reshape],
  ['Squeeze', reshape],
  ['Unsqueeze', reshape],
  ['Gather', gather],
  ['Expand', expand],
  ['Tile', tile],
  ['CumSum', cumSum],
  ['DepthToSpace', depthToSpace],
  ['SpaceToDepth', spaceToDepth],
  ['Resize', resize],
  ['Upsample', resize],
  ['ReduceMean', reduceMean],
  ['ReduceSum', reduceSum],
  ['ReduceL1', reduceSum],
  ['ReduceSumSquare', reduceSum],
  ['ReduceMax', reduceMax],
  ['ReduceMin', reduceMin],
  ['ReduceL2', reduceOther],
  ['ReduceProd', reduceOther],
  ['ReduceLogSum', reduceOther],
  ['ReduceLogSumExp', reduceOther],
  ['ArgMax', argReduce],
  ['ArgMin', argReduce],
]);

/** The rule of a node, or undefined: an unknown operator, another domain, or a node with subgraphs. */
export function ruleOf(node: ModelNode): Rule | undefined {
  if (node.domain !== '' && node.domain !== 'ai.onnx') return undefined;
  return node.captured.length > 0 || [...node.attributes.values()].some((a) => a.g !== undefined || a.graphs.length > 0)
    ? undefined
    : RULES.get(node.op);
}

/** Operators with a rule, for documentation and tests. */
export const CUTTABLE_OPERATORS: readonly string[] = [...RULES.keys()].sort();
