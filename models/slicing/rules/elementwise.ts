/** Operators whose output element depends on the elements at the same place: activations, arithmetic, comparisons. */
import { intAttr } from '../../onnx/attributes.js';
import type { Band } from '../interval.js';
import { type Banding, type InputNeed, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';

/** The need of one operand under NumPy broadcasting: the same band, or all of it where it is broadcast. */
export function broadcastNeed(dims: readonly number[], outDims: readonly number[], band: Band): InputNeed {
  const axis = band.axis - (outDims.length - dims.length);
  const extent = dims[axis];
  if (axis < 0 || extent === undefined) return 'all';
  if (extent === 1 && outDims[band.axis] !== 1) return 'all';
  return same({ ...band, axis });
}

function needs(view: NodeView, band: Band, outDims: readonly number[]): InputNeed[] {
  return view.node.inputs.map((name, i) => {
    if (name === '') return 'drop';
    return broadcastNeed(need(view.input(i), `input ${i}`).dims, outDims, band);
  });
}

function copied(view: NodeView, inputs: InputNeed[]): Banding {
  return { inputs, write: (writer, io) => writer.copy(view, io.inputs, io.output) };
}

/** Any number of operands with broadcasting. */
export const elementwise: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const out = need(view.output(0), 'the output');
    // Before opset 7 broadcasting was an attribute, with another alignment.
    if (intAttr(view.node, 'broadcast', 0) !== 0) refuse('legacy broadcasting');
    return copied(view, needs(view, band, out.dims));
  },
};

/** Identity, Dropout at inference: the data goes through, further inputs are parameters, further outputs cannot be cut. */
export const passThrough: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (view.constants(2)?.[0]) refuse('Dropout in training mode');
    return {
      inputs: view.node.inputs.map((_, i) => (i === 0 ? same(band) : 'drop')),
      write: (writer, io) => {
        writer.add('Identity', [io.inputs[0] ?? ''], {}, io.output);
      },
    };
  },
};

/** PRelu: the slope broadcasts onto the data; a slope `[C]` of old models lies on axis 1. */
export const prelu: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const out = need(view.output(0), 'the output');
    const slope = need(view.input(1), 'the slope');
    if (view.opset < 7 && slope.dims.length === 1 && out.dims.length > 1) {
      const own = band.axis === 1 && (slope.dims[0] ?? 1) > 1 ? same({ ...band, axis: 0 }) : 'all';
      return copied(view, [same(band), own]);
    }
    return copied(view, needs(view, band, out.dims));
  },
};

/** QuantizeLinear, DequantizeLinear: scale and zero point are scalars, or vectors on `axis`. */
export const quantize: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const data = need(view.input(0), 'the data');
    const axis = intAttr(view.node, 'axis', 1);
    const own = (axis < 0 ? axis + data.dims.length : axis) === band.axis;
    if (intAttr(view.node, 'block_size', 0) !== 0) refuse('blocked quantisation');
    return copied(
      view,
      view.node.inputs.map((name, i) => {
        if (name === '') return 'drop';
        if (i === 0) return same(band);
        return own && (view.input(i)?.dims[0] ?? 1) > 1 ? same({ ...band, axis: 0 }) : 'all';
      }),
    );
  },
};
