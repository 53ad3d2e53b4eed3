/** Operators that only move data: Concat, Split, Slice, Pad, Transpose, the Reshape family, Gather, Expand, Tile, block rearrangements. */
import { intAttr, intsAttr, stringAttr } from '../../onnx/attributes.js';
import { type Band, bandDims, extentOf, type Interval, isPlain, plainBand } from '../interval.js';
import { broadcastNeed } from './elementwise.js';
import { type Banding, type InputNeed, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';
import { type Window, windowBand } from './window.js';

const positive = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** The first input in bands; the others are parameters that the rule writes itself. */
function dataOnly(view: NodeView, data: InputNeed): InputNeed[] {
  return view.node.inputs.map((_, i) => (i === 0 ? data : 'drop'));
}

export const concat: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const dims = view.node.inputs.map((_, i) => need(view.input(i), `input ${i}`).dims);
    const axis = positive(intAttr(view.node, 'axis', 1), dims[0]?.length ?? 0);
    if (axis !== band.axis) {
      return { inputs: dims.map(() => same(band)), write: (writer, io) => writer.copy(view, io.inputs, io.output) };
    }
    if (!isPlain(band)) refuse('joins blocks');
    let offset = 0;
    const inputs = dims.map((d): InputNeed => {
      const start = offset;
      const size = d[axis] ?? 0;
      offset += size;
      return {
        band,
        need: ([a, b]) => {
          const part: Interval = [Math.max(0, a - start), Math.min(size, b - start)];
          return part[0] < part[1] ? part : undefined;
        },
      };
    });
    return {
      inputs,
      write: (writer, io) => {
        const held = io.inputs.filter((name) => name !== '');
        if (held.length === 1) writer.add('Identity', held, {}, io.output);
        else writer.copy(view, held, io.output);
      },
    };
  },
};

/** Start of each piece of a Split along its axis. */
function splitOffsets(view: NodeView, axis: number): number[] {
  const offsets = [0];
  for (let i = 0; i < view.node.outputs.length; i++) {
    offsets.push((offsets[i] ?? 0) + (need(view.output(i), `output ${i}`).dims[axis] ?? 0));
  }
  if (offsets.at(-1) !== need(view.input(0), 'the input').dims[axis]) refuse('an omitted output of Split');
  return offsets;
}

export const split: Rule = {
  band(view, output, band) {
    const rank = need(view.input(0), 'the input').dims.length;
    const axis = positive(intAttr(view.node, 'axis', 0), rank);
    const offsets = splitOffsets(view, axis);
    const start = offsets[output] ?? 0;
    const end = offsets[output + 1] ?? 0;
    if (axis !== band.axis) {
      return {
        inputs: dataOnly(view, same(band)),
        write: (writer, io) => writer.slice(io.inputs[0] ?? '', axis, [start, end], io.output),
      };
    }
    if (!isPlain(band)) refuse('splits blocks');
    return {
      inputs: dataOnly(view, { band, need: ([a, b]) => [a + start, b + start] }),
      write: (writer, io) => {
        writer.add('Identity', [io.inputs[0] ?? ''], {}, io.output);
      },
    };
  },
};

interface SliceAxis {
  readonly axis: number;
  readonly start: number;
  readonly step: number;
  readonly count: number;
}

/** A Slice with its bounds resolved (ONNX Slice-13). */
function sliceAxes(view: NodeView): SliceAxis[] {
  const dims = need(view.input(0), 'the input').dims;
  const out = need(view.output(0), 'the output').dims;
  const listed = (name: string, input: number) => (view.opset < 10 ? intsAttr(view.node, name, []) : (view.constants(input) ?? []));
  const starts = listed('starts', 1);
  const axes = listed('axes', 3);
  const steps = view.opset < 10 ? [] : (view.constants(4) ?? []);
  return starts.map((s, i) => {
    const axis = positive(axes[i] ?? i, dims.length);
    const size = dims[axis] ?? 0;
    const step = steps[i] ?? 1;
    const from = s < 0 ? s + size : s;
    const count = out[axis] ?? 0;
    if (count === 0) refuse('takes nothing');
    return { axis, start: Math.max(0, Math.min(step < 0 ? size - 1 : size, from)), step, count };
  });
}

export const slice: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const axes = sliceAxes(view);
    const own = axes.find((a) => a.axis === band.axis);
    if (own !== undefined && own.step < 0) refuse('reverses the band');
    if (own !== undefined && !isPlain(band)) refuse('slices blocks');
    const read = ([a, b]: Interval): Interval =>
      own === undefined ? [a, b] : [own.start + a * own.step, own.start + (b - 1) * own.step + 1];
    return {
      inputs: dataOnly(view, { band, need: read }),
      write: (writer, io) => {
        const local = axes.map((a) => (a === own ? { ...a, start: 0, count: io.out[1] - io.out[0] } : a));
        // Going backwards, "before the first element" is any very negative end.
        const ends = local.map((a) =>
          a.step > 0 ? a.start + (a.count - 1) * a.step + 1 : a.start + a.count * a.step < 0 ? -(2 ** 31) : a.start + a.count * a.step,
        );
        const starts = local.map((a) => a.start);
        if (view.opset < 10) {
          writer.add('Slice', [io.inputs[0] ?? ''], { starts, ends, axes: local.map((a) => a.axis) }, io.output);
          return;
        }
        const lists = [starts, ends, local.map((a) => a.axis), local.map((a) => a.step)].map((list) => writer.ints(list));
        writer.add('Slice', [io.inputs[0] ?? '', ...lists], {}, io.output);
      },
    };
  },
};

interface Padding {
  readonly starts: number[];
  readonly ends: number[];
  readonly mode: string;
}

function paddingOf(view: NodeView): Padding {
  const rank = need(view.input(0), 'the input').dims.length;
  const given = view.opset < 11 ? intsAttr(view.node, 'pads', intsAttr(view.node, 'paddings', [])) : (view.constants(1) ?? []);
  const axes = view.opset >= 18 ? (view.constants(3) ?? []) : [];
  const starts = new Array<number>(rank).fill(0);
  const ends = new Array<number>(rank).fill(0);
  const half = given.length / 2;
  for (let i = 0; i < half; i++) {
    const axis = positive(axes[i] ?? i, rank);
    starts[axis] = given[i] ?? 0;
    ends[axis] = given[i + half] ?? 0;
  }
  return { starts, ends, mode: stringAttr(view.node, 'mode', 'constant') };
}

export const pad: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const { starts, ends, mode } = paddingOf(view);
    const dims = need(view.input(0), 'the input').dims;
    const [before, after] = [starts[band.axis] ?? 0, ends[band.axis] ?? 0];
    const padded = before !== 0 || after !== 0;
    if (padded && !isPlain(band)) refuse('pads blocks');
    if (padded && mode !== 'constant' && mode !== 'edge') refuse(`Pad mode ${mode} reads rows far from the border`);
    const size = extentOf(band, dims);
    const window: Window = {
      kernel: 1,
      stride: 1,
      dilation: 1,
      padStart: before,
      padEnd: after,
      inSize: size,
      outSize: size + before + after,
    };
    const rest = view.node.inputs.slice(1).map((name, i): InputNeed => (i === 1 && name !== '' ? 'all' : 'drop'));
    return {
      inputs: [{ band, need: (out) => windowBand(window, out).need }, ...rest],
      write: (writer, io) => {
        const w = windowBand(window, io.out);
        const whole = w.skip + w.extra === 0;
        const name = whole ? io.output : writer.fresh(io.output);
        const list = [...starts.map((p, i) => (i === band.axis ? w.padStart : p)), ...ends.map((p, i) => (i === band.axis ? w.padEnd : p))];
        if (view.opset < 11) writer.copy(view, [io.inputs[0] ?? ''], name, { pads: list, paddings: undefined });
        else writer.copy(view, [io.inputs[0] ?? '', writer.ints(list), ...(io.inputs[2] ? [io.inputs[2]] : [])], name);
        if (!whole) writer.slice(name, band.axis, [w.skip, w.skip + io.out[1] - io.out[0]], io.output);
      },
    };
  },
};

export const transpose: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const rank = need(view.input(0), 'the input').dims.length;
    const reversed = Array.from({ length: rank }, (_, i) => rank - 1 - i);
    const axis = intsAttr(view.node, 'perm', reversed)[band.axis] ?? refuse('no such axis');
    return { inputs: [same({ ...band, axis })], write: (writer, io) => writer.copy(view, io.inputs, io.output) };
  },
};

const product = (dims: readonly number[]): number => dims.reduce((p, d) => p * d, 1);

/**
 * The band of a tensor of dims `to` that holds the same elements, in row-major order, as `band` of dims `from`.
 * A band is three numbers of the flat order (blocks before, units, elements behind); a reshape keeps the flat order.
 */
export function reshapeBand(from: readonly number[], band: Band, to: readonly number[]): Band | undefined {
  const before = product(from.slice(0, band.axis)) * band.outer;
  const behind = product(from.slice(band.axis + 1)) * band.inner;
  const units = extentOf(band, from);
  let prefix = 1;
  for (let axis = 0; axis < to.length; axis++) {
    const size = to[axis] ?? 1;
    const suffix = product(to.slice(axis + 1));
    const outer = before / prefix;
    const inner = behind / suffix;
    // Inside the axis the band must repeat `outer` times, with units of whole elements.
    if (Number.isInteger(outer) && Number.isInteger(inner) && outer * units * inner === size) return { axis, outer, inner };
    prefix *= size;
  }
  return undefined;
}

/** The band of `to` whose units are made of whole units of `band` in `from`: a finer axis joins into a coarser one. */
function coarserBand(from: readonly number[], band: Band, to: readonly number[]): Band | undefined {
  if (band.outer !== 1) return undefined;
  const before = product(from.slice(0, band.axis));
  const elements = extentOf(band, from) * band.inner * product(from.slice(band.axis + 1));
  let prefix = 1;
  for (let axis = 0; axis < to.length; axis++) {
    const size = to[axis] ?? 1;
    const suffix = product(to.slice(axis + 1));
    if (prefix === before && size > 1 && elements % suffix === 0) return plainBand(axis);
    prefix *= size;
  }
  return undefined;
}

/** Reshape, Flatten, Squeeze, Unsqueeze: same elements in the same order under other dims. */
export const reshape: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const dims = need(view.input(0), 'the input').dims;
    const out = need(view.output(0), 'the output').dims;
    if (product(dims) === 0) refuse('an empty tensor');
    view.constants(1);
    const input = reshapeBand(out, band, dims) ?? refuse('the band does not survive the reshape');
    return {
      inputs: dataOnly(view, same(input)),
      write: (writer, io) => writer.reshape(io.inputs[0] ?? '', bandDims(out, band, io.out), io.output),
    };
  },
  forward(view, input, band) {
    if (input !== 0) return undefined;
    const dims = need(view.input(0), 'the input').dims;
    const out = need(view.output(0), 'the output').dims;
    return reshapeBand(dims, band, out) ?? coarserBand(dims, band, out);
  },
  backward(view, band) {
    const dims = need(view.input(0), 'the input').dims;
    const out = need(view.output(0), 'the output').dims;
    return reshapeBand(out, band, dims) ?? coarserBand(out, band, dims);
  },
};

/** Gather: data axes before and after `axis` keep their band; a band on the indices gathers from the whole data. */
export const gather: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const data = need(view.input(0), 'the data').dims;
    const indices = need(view.input(1), 'the indices').dims;
    const axis = positive(intAttr(view.node, 'axis', 0), data.length);
    const write: Banding['write'] = (writer, io) => writer.copy(view, io.inputs, io.output);
    if (band.axis < axis) return { inputs: [same(band), 'all'], write };
    if (band.axis < axis + indices.length) return { inputs: ['all', same({ ...band, axis: band.axis - axis })], write };
    return { inputs: [same({ ...band, axis: band.axis - indices.length + 1 }), 'all'], write };
  },
};

export const expand: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const out = need(view.output(0), 'the output').dims;
    const data = need(view.input(0), 'the data').dims;
    view.constants(1);
    return {
      inputs: dataOnly(view, broadcastNeed(data, out, band)),
      write: (writer, io) => {
        writer.add('Expand', [io.inputs[0] ?? '', writer.ints(bandDims(out, band, io.out))], {}, io.output);
      },
    };
  },
};

export const tile: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const data = need(view.input(0), 'the data').dims;
    const out = need(view.output(0), 'the output').dims;
    if (data[band.axis] !== out[band.axis]) refuse('repeats the band');
    return {
      inputs: [same(band), ...view.node.inputs.slice(1).map((): InputNeed => 'all')],
      write: (writer, io) => writer.copy(view, io.inputs, io.output),
    };
  },
};

/** CumSum along another axis than the band. */
export const cumSum: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    const rank = need(view.input(0), 'the data').dims.length;
    const [axis = 0] = view.constants(1) ?? [];
    if (positive(axis, rank) === band.axis) refuse('sums along the band');
    return { inputs: [same(band), 'all'], write: (writer, io) => writer.copy(view, io.inputs, io.output) };
  },
};

/** DepthToSpace: `blocksize` rows for each row of the input, cropped to the wanted ones. */
export const depthToSpace: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis === 1) refuse('moves channels into rows');
    const block = band.axis === 0 ? 1 : intAttr(view.node, 'blocksize', 1);
    if (!isPlain(band)) refuse('rows in blocks');
    const read = ([a, b]: Interval): Interval => [Math.floor(a / block), Math.ceil(b / block)];
    return {
      inputs: [{ band, need: read }],
      write: (writer, io) => {
        const [from, to] = read(io.out);
        const whole = from * block === io.out[0] && to * block === io.out[1];
        const name = whole ? io.output : writer.fresh(io.output);
        writer.copy(view, io.inputs, name);
        if (!whole) writer.slice(name, band.axis, [io.out[0] - from * block, io.out[1] - from * block], io.output);
      },
    };
  },
};

export const spaceToDepth: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis === 1) refuse('moves rows into channels');
    const block = band.axis === 0 ? 1 : intAttr(view.node, 'blocksize', 1);
    if (!isPlain(band)) refuse('rows in blocks');
    return {
      inputs: [{ band, need: ([a, b]) => [a * block, b * block] }],
      write: (writer, io) => writer.copy(view, io.inputs, io.output),
    };
  },
};
