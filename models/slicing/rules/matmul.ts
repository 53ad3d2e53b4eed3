/** Gemm and MatMul: columns of the right operand are output channels; the contracted axis can be summed in parts. */
import { floatAttr, intAttr } from '../../onnx/attributes.js';
import { type Band, plainBand } from '../interval.js';
import { broadcastNeed } from './elementwise.js';
import { type InputNeed, type NodeView, need, onlyFirst, type Reducing, type Rule, refuse, same } from './rule.js';

const flag = (view: NodeView, name: string): number => (intAttr(view.node, name, 0) !== 0 ? 1 : 0);

/** The bias C broadcasts onto `[M, N]`. */
function bias(view: NodeView, band: Band | undefined): InputNeed[] {
  const c = view.input(2);
  if (view.node.inputs.length < 3) return [];
  if (c === undefined) return ['drop'];
  return [band === undefined ? 'all' : broadcastNeed(c.dims, need(view.output(0), 'the output').dims, band)];
}

function gemmReduce(view: NodeView, input: number, band: Band): Reducing {
  const contracted = flag(view, 'transA') === 1 ? 0 : 1;
  if (input !== 0 || band.axis !== contracted) refuse('only the contracted axis of the left operand can be summed in parts');
  return {
    inputs: [same(band), same({ ...band, axis: flag(view, 'transB') }), ...bias(view, undefined)],
    merge: 'Sum',
    write: (writer, io) => {
      const [a = '', b = '', c = ''] = io.inputs;
      if (io.first && c !== '') return writer.copy(view, [a, b, c], io.output);
      if (view.opset >= 11) return writer.copy(view, [a, b], io.output, { beta: undefined });
      // C was not optional before opset 11.
      writer.copy(view, [a, b, writer.floats([0], need(view.output(0), 'the output').dtype)], io.output);
    },
  };
}

export const gemm: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (intAttr(view.node, 'broadcast', 0) !== 0) refuse('legacy broadcasting');
    const columns = band.axis === 1;
    const own: InputNeed = same({ ...band, axis: columns ? 1 - flag(view, 'transB') : flag(view, 'transA') });
    return {
      inputs: [columns ? 'all' : own, columns ? own : 'all', ...bias(view, band)],
      write: (writer, io) => writer.copy(view, io.inputs, io.output),
    };
  },
  reduce: gemmReduce,
  contraction: (view) => (floatAttr(view.node, 'alpha', 1) === 0 ? undefined : { input: 0, axis: flag(view, 'transA') === 1 ? 0 : 1 }),
  anchors: (view) => ({ channels: { input: plainBand(flag(view, 'transA') === 1 ? 0 : 1), output: plainBand(1) } }),
};

interface MatShapes {
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly out: readonly number[];
}

function shapes(view: NodeView): MatShapes {
  const a = need(view.input(0), 'the left operand').dims;
  const b = need(view.input(1), 'the right operand').dims;
  if (a.length < 2 || b.length < 2) refuse('a vector operand');
  return { a, b, out: need(view.output(0), 'the output').dims };
}

export const matmul: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const { a, b, out } = shapes(view);
    const rank = out.length;
    let inputs: InputNeed[];
    if (band.axis === rank - 1) inputs = ['all', same({ ...band, axis: b.length - 1 })];
    else if (band.axis === rank - 2) inputs = [same({ ...band, axis: a.length - 2 }), 'all'];
    else inputs = [broadcastNeed(a, out, band), broadcastNeed(b, out, band)];
    return { inputs, write: (writer, io) => writer.copy(view, io.inputs, io.output) };
  },
  reduce(view, input, band) {
    const { a, b } = shapes(view);
    const contracted = input === 0 ? a.length - 1 : b.length - 2;
    if (band.axis !== contracted) refuse('only the contracted axis can be summed in parts');
    return {
      inputs: [same({ ...band, axis: a.length - 1 }), same({ ...band, axis: b.length - 2 })],
      merge: 'Sum',
      write: (writer, io) => writer.copy(view, io.inputs, io.output),
    };
  },
  contraction(view) {
    const { a } = shapes(view);
    return view.weight(1) === undefined ? undefined : { input: 0, axis: a.length - 1 };
  },
  anchors(view) {
    const a = view.input(0)?.dims.length ?? 0;
    const out = view.output(0)?.dims.length ?? 0;
    if (a < 2 || out < 2 || view.weight(1) === undefined) return {};
    return { channels: { input: plainBand(a - 1), output: plainBand(out - 1) } };
  },
};
