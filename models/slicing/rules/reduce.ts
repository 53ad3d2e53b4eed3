/** Reductions: along other axes they keep the band; over the band they make partials. */
import { hasAttr, intAttr, intsAttr } from '../../onnx/attributes.js';
import { type Band, isPlain } from '../interval.js';
import { meanWeight } from './pool.js';
import { type MergeOp, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';

interface Reduction {
  readonly axes: ReadonlySet<number>;
  readonly keep: boolean;
  readonly rank: number;
}

function reductionOf(view: NodeView): Reduction {
  const rank = need(view.input(0), 'the input').dims.length;
  const given = hasAttr(view.node, 'axes') ? intsAttr(view.node, 'axes', []) : (view.constants(1) ?? []);
  const none = given.length === 0;
  if (none && intAttr(view.node, 'noop_with_empty_axes', 0) !== 0) refuse('reduces nothing');
  const axes = new Set(none ? Array.from({ length: rank }, (_, i) => i) : given.map((a) => (a < 0 ? a + rank : a)));
  return { axes, keep: intAttr(view.node, 'keepdims', 1) !== 0, rank };
}

/** The input axis that becomes `axis` of the output. */
export function inputAxis(axis: number, { axes, keep, rank }: Reduction): number {
  if (keep) return axes.has(axis) ? refuse('reduces over the band') : axis;
  let left = axis;
  for (let i = 0; i < rank; i++) if (!axes.has(i) && left-- === 0) return i;
  return refuse('the axis does not survive');
}

function keepBand(view: NodeView, band: Band, reduction: Reduction) {
  const rest = view.node.inputs.slice(1).map((name) => (name === '' ? ('drop' as const) : ('all' as const)));
  return {
    inputs: [same({ ...band, axis: inputAxis(band.axis, reduction) }), ...rest],
    write: (writer: Parameters<ReturnType<Rule['band']>['write']>[0], io: Parameters<ReturnType<Rule['band']>['write']>[1]) =>
      writer.copy(view, io.inputs, io.output),
  };
}

function reduction(merge?: MergeOp, mean = false): Rule {
  return {
    band(view, output, band) {
      onlyFirst(view, output);
      return keepBand(view, band, reductionOf(view));
    },
    ...(merge === undefined
      ? {}
      : {
          reduce(view, input, band) {
            if (input !== 0 || !reductionOf(view).axes.has(band.axis)) refuse('does not reduce over the band');
            if (!isPlain(band) && mean) refuse('a mean over blocks');
            const rest = view.node.inputs.slice(1).map((name) => (name === '' ? ('drop' as const) : ('all' as const)));
            return {
              inputs: [same(band), ...rest],
              merge,
              write: (writer, io) => {
                if (!mean) return writer.copy(view, io.inputs, io.output);
                const own = writer.fresh(io.output);
                writer.copy(view, io.inputs, own);
                const weight = writer.floats([meanWeight(view, band, io.out[1] - io.out[0])], need(view.output(0), 'the output').dtype, []);
                writer.add('Mul', [own, weight], {}, io.output);
              },
            };
          },
        }),
  };
}

export const reduceMean = reduction('Sum', true);
export const reduceSum = reduction('Sum');
export const reduceMax = reduction('Max');
export const reduceMin = reduction('Min');
/** ReduceL2, ReduceLogSumExp, ReduceProd: no merge of partials. */
export const reduceOther = reduction();

/** ArgMax, ArgMin. */
export const argReduce: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const rank = need(view.input(0), 'the input').dims.length;
    const axis = intAttr(view.node, 'axis', 0);
    return keepBand(view, band, {
      axes: new Set([axis < 0 ? axis + rank : axis]),
      keep: intAttr(view.node, 'keepdims', 1) !== 0,
      rank,
    });
  },
};
