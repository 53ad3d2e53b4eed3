/** Normalisations and softmax: fine along axes that they do not mix. */
import { intAttr, intsAttr } from '../../onnx/attributes.js';
import { type Band, isPlain, plainBand } from '../interval.js';
import { type Banding, type InputNeed, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';

/** The data in bands; parameters (from input 1 on) as given. */
function banded(view: NodeView, band: Band, parameters: InputNeed): Banding {
  return {
    inputs: view.node.inputs.map((name, i) => (name === '' ? 'drop' : i === 0 ? same(band) : parameters)),
    write: (writer, io) => writer.copy(view, io.inputs, io.output),
  };
}

function axisOf(view: NodeView, name: string, fallback: number): number {
  const rank = need(view.input(0), 'the input').dims.length;
  const axis = intAttr(view.node, name, fallback);
  return axis < 0 ? axis + rank : axis;
}

const channelAnchors: NonNullable<Rule['anchors']> = () => ({ channels: { input: plainBand(1), output: plainBand(1) } });

export const batchNormalization: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    for (let i = 1; i < view.node.outputs.length; i++) if (view.used(i)) refuse('training outputs of BatchNormalization');
    return banded(view, band, band.axis === 1 ? same({ ...band, axis: 0 }) : 'all');
  },
  anchors: channelAnchors,
};

export const instanceNormalization: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis >= 2) refuse('normalises over the band');
    return banded(view, band, band.axis === 1 ? same({ ...band, axis: 0 }) : 'all');
  },
  anchors: channelAnchors,
};

/** LayerNormalization and RMSNormalization mix `axis` and all that follow. */
export const layerNormalization: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    for (let i = 1; i < view.node.outputs.length; i++) if (view.used(i)) refuse('further outputs of the normalisation');
    if (band.axis >= axisOf(view, 'axis', -1)) refuse('normalises over the band');
    return banded(view, band, 'all');
  },
};

export const meanVarianceNormalization: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (intsAttr(view.node, 'axes', [0, 2, 3]).includes(band.axis)) refuse('normalises over the band');
    return banded(view, band, 'all');
  },
};

export const lpNormalization: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis === axisOf(view, 'axis', -1)) refuse('normalises over the band');
    return banded(view, band, 'all');
  },
};

/** Softmax, LogSoftmax, Hardmax: before opset 13 over `axis` and all that follow, since then over `axis` alone. */
export const softmax: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const modern = view.opset >= 13;
    const axis = axisOf(view, 'axis', modern ? -1 : 1);
    if (modern ? band.axis === axis : band.axis >= axis) refuse('normalises over the band');
    return banded(view, band, 'all');
  },
};

/** LRN sums the squares of `size` neighbouring channels, `floor((size-1)/2)` before and `ceil((size-1)/2)` after (ONNX LRN-13). */
export const lrn: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis !== 1) return banded(view, band, 'all');
    if (!isPlain(band)) refuse('channels in blocks');
    const size = intAttr(view.node, 'size', 1);
    const channels = need(view.input(0), 'the input').dims[1] ?? 1;
    const before = Math.floor((size - 1) / 2);
    const after = Math.ceil((size - 1) / 2);
    return {
      inputs: [{ band, need: ([a, b]) => [Math.max(0, a - before), Math.min(channels, b + after)] }],
      write: (writer, io) => {
        const from = io.needs[0]?.[0] ?? 0;
        const name = writer.fresh(io.output);
        writer.copy(view, io.inputs, name);
        writer.slice(name, 1, [io.out[0] - from, io.out[1] - from], io.output);
      },
    };
  },
  anchors: channelAnchors,
};
