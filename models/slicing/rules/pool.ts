/** MaxPool, AveragePool, LpPool and the global pools. */
import { intAttr, intsAttr } from '../../onnx/attributes.js';
import { type Band, extentOf, isPlain, plainBand } from '../interval.js';
import { type Banding, type MergeOp, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';
import { ceilMode, overhang, padsAttribute, type Window, windowBand, windowsOf } from './window.js';

/**
 * The pool's windows with the size rounding made explicit: end pads are what the last window really reaches.
 * A window that hangs over even the padded border (ceil_mode) is fine for a maximum and for an average of real elements; an average that counts
 * pads does not count that overhang, which pads cannot say.
 */
function explicitWindows(view: NodeView): Window[] {
  const windows = windowsOf(view, intsAttr(view.node, 'kernel_shape', []));
  const countsPads = view.node.op !== 'MaxPool' && intAttr(view.node, 'count_include_pad', 0) !== 0;
  return windows.map((w) => {
    const over = Math.max(0, overhang(w));
    if (over > w.padEnd && (countsPads || view.node.op === 'LpPool')) refuse('ceil_mode with counted pads depends on the true border');
    return { ...w, padEnd: over };
  });
}

function poolRows(view: NodeView, band: Band): Banding {
  if (!isPlain(band)) refuse('rows in blocks');
  const windows = explicitWindows(view);
  const axis = band.axis - 2;
  const window = windows[axis] ?? refuse('no such axis');
  return {
    inputs: [{ band, need: (out) => windowBand(window, out).need }],
    write: (writer, io) => {
      const w = windowBand(window, io.out);
      const whole = w.skip + w.extra === 0;
      const name = whole ? io.output : writer.fresh(io.output);
      const pads = padsAttribute(windows.map((x, i) => (i === axis ? w : x)));
      writer.copy(view, io.inputs, name, {
        auto_pad: undefined,
        ...(ceilMode(view) ? { ceil_mode: undefined } : {}),
        pads,
      });
      if (!whole) writer.slice(name, band.axis, [w.skip, w.skip + io.out[1] - io.out[0]], io.output);
    },
  };
}

export const pool: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (view.used(1)) refuse('Indices of MaxPool count in the whole tensor');
    if (band.axis >= 2) return poolRows(view, band);
    return { inputs: [same(band)], write: (writer, io) => writer.copy(view, io.inputs, io.output) };
  },
  anchors: () => ({
    spatial: { input: [0], output: [0] },
    channels: { input: plainBand(1), output: plainBand(1) },
  }),
};

/** A mean over a band is its sum divided by the full count: this part's mean, weighted by its share of the rows. */
export function meanWeight(view: NodeView, band: Band, length: number): number {
  return length / extentOf(band, need(view.input(0), 'the input').dims);
}

function globalPool(merge: MergeOp, mean: boolean): Rule {
  return {
    band(view, output, band) {
      onlyFirst(view, output);
      if (band.axis >= 2) refuse('pools over the band');
      return { inputs: [same(band)], write: (writer, io) => writer.copy(view, io.inputs, io.output) };
    },
    reduce(view, input, band) {
      if (input !== 0 || band.axis < 2) refuse('does not pool over this axis');
      return {
        inputs: [same(band)],
        merge,
        write: (writer, io) => {
          if (!mean) return writer.copy(view, io.inputs, io.output);
          const own = writer.fresh(io.output);
          writer.copy(view, io.inputs, own);
          const dtype = need(view.output(0), 'the output').dtype;
          const weight = writer.floats([meanWeight(view, band, io.out[1] - io.out[0])], dtype, []);
          writer.add('Mul', [own, weight], {}, io.output);
        },
      };
    },
    anchors: () => ({ spatial: { input: [0], output: [] }, channels: { input: plainBand(1), output: plainBand(1) } }),
  };
}

export const globalAveragePool = globalPool('Sum', true);
export const globalMaxPool = globalPool('Max', false);
