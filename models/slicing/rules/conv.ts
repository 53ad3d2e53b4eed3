/** Conv and ConvTranspose. */
import { intAttr, intsAttr, stringAttr } from '../../onnx/attributes.js';
import { type Band, type Interval, isPlain, plainBand } from '../interval.js';
import {
  type BandIO,
  type Banding,
  type GraphWriter,
  type InputNeed,
  type NodeView,
  need,
  onlyFirst,
  type Reducing,
  type Rule,
  refuse,
  same,
} from './rule.js';
import { padsAttribute, reach, type Window, windowBand, windowsOf } from './window.js';

interface ConvShape {
  readonly groups: number;
  readonly inPerGroup: number;
  readonly outPerGroup: number;
  readonly kernel: readonly number[];
}

function convShape(view: NodeView): ConvShape {
  const weights = need(view.input(1), 'the weights').dims;
  const groups = intAttr(view.node, 'group', 1);
  const transposed = view.node.op === 'ConvTranspose';
  return {
    groups,
    inPerGroup: transposed ? (weights[0] ?? 1) / groups : (weights[1] ?? 1),
    outPerGroup: transposed ? (weights[1] ?? 1) : (weights[0] ?? 1) / groups,
    kernel: weights.slice(2),
  };
}

/** A run of output channels inside a group, or over whole groups. */
interface GroupPiece {
  readonly out: Interval;
  readonly groups: Interval;
}

/** A straddled range of channels as at most three pieces: the end of a group, whole groups, the start of a group. */
export function groupPieces([start, end]: Interval, perGroup: number): GroupPiece[] {
  const pieces: GroupPiece[] = [];
  let at = start;
  while (at < end) {
    const group = Math.floor(at / perGroup);
    const inside = at % perGroup !== 0 || end - at < perGroup;
    const stop = inside ? Math.min(end, (group + 1) * perGroup) : Math.floor(end / perGroup) * perGroup;
    pieces.push({ out: [at, stop], groups: [group, inside ? group + 1 : stop / perGroup] });
    at = stop;
  }
  return pieces;
}

function withBias(view: NodeView, bias: InputNeed): InputNeed[] {
  return view.node.inputs.slice(2).map((name) => (name === '' ? 'drop' : bias));
}

/** The group range that an interval of output channels touches. */
function groupsOf([start, end]: Interval, perGroup: number): Interval {
  return [Math.floor(start / perGroup), Math.ceil(end / perGroup)];
}

/** Writes a convolution of output channels `io.out` whose inputs hold whole groups, in pieces where groups are straddled. */
function writeGroups(view: NodeView, shape: ConvShape, writer: GraphWriter, io: BandIO, weightsByGroup: boolean): void {
  const pieces = groupPieces(io.out, shape.outPerGroup);
  const [data = '', weights = '', bias = ''] = io.inputs;
  if (pieces.length === 1 && pieces[0] !== undefined) {
    const [first, last] = pieces[0].groups;
    const inside = weightsByGroup && pieces[0].out[1] - pieces[0].out[0] < (last - first) * shape.outPerGroup;
    const base = first * shape.outPerGroup;
    const kernel = inside ? writer.slice(weights, 1, [io.out[0] - base, io.out[1] - base]) : weights;
    writer.copy(view, bias === '' ? [data, kernel] : [data, kernel, bias], io.output, { group: last - first });
    return;
  }
  const firstGroup = pieces[0]?.groups[0] ?? 0;
  const outputs = pieces.map((piece) => {
    const [g0, g1] = piece.groups;
    const local: Interval = [piece.out[0] - io.out[0], piece.out[1] - io.out[0]];
    const x = writer.slice(data, 1, [(g0 - firstGroup) * shape.inPerGroup, (g1 - firstGroup) * shape.inPerGroup]);
    let w: string;
    if (weightsByGroup) {
      w = writer.slice(weights, 0, [(g0 - firstGroup) * shape.inPerGroup, (g1 - firstGroup) * shape.inPerGroup]);
      const base = g0 * shape.outPerGroup;
      if (g1 - g0 === 1) w = writer.slice(w, 1, [piece.out[0] - base, piece.out[1] - base]);
    } else {
      w = writer.slice(weights, 0, local);
    }
    const name = writer.fresh(io.output);
    writer.copy(view, bias === '' ? [x, w] : [x, w, writer.slice(bias, 0, local)], name, { group: g1 - g0 });
    return name;
  });
  writer.add('Concat', outputs, { axis: 1 }, io.output);
}

function channelNeed(shape: ConvShape): (out: Interval) => Interval {
  return (out) => {
    const [g0, g1] = groupsOf(out, shape.outPerGroup);
    return [g0 * shape.inPerGroup, g1 * shape.inPerGroup];
  };
}

function outputChannels(view: NodeView, shape: ConvShape, band: Band): Banding {
  if (!isPlain(band)) refuse('output channels in blocks');
  const transposed = view.node.op === 'ConvTranspose';
  const data: InputNeed = shape.groups === 1 ? 'all' : { band: plainBand(1), need: channelNeed(shape) };
  let weights: InputNeed = same(plainBand(0));
  if (transposed) weights = shape.groups === 1 ? same(plainBand(1)) : { band: plainBand(0), need: channelNeed(shape) };
  return {
    inputs: [data, weights, ...withBias(view, same(plainBand(0)))],
    write: (writer, io) => {
      if (shape.groups === 1) writer.copy(view, io.inputs, io.output);
      else writeGroups(view, shape, writer, io, transposed);
    },
  };
}

/** More groups would make the parity of a grouped convolution, which has none, dearer than it is worth. */
const MOST_CODED_GROUPS = 4;

/** Output channels of a Conv of a few groups in a coded stage: every part holds all input channels and takes those of its groups. */
export function codedGroups(view: NodeView): Banding | undefined {
  if (view.node.op !== 'Conv' || intAttr(view.node, 'group', 1) === 1) return undefined;
  const shape = convShape(view);
  const { groups, inPerGroup, outPerGroup } = shape;
  if (groups > MOST_CODED_GROUPS) {
    refuse(
      `its parts have different inputs, and of ${groups} groups the parity would cost ${groups} times a part (at most ${MOST_CODED_GROUPS})`,
    );
  }
  return {
    inputs: ['all', same(plainBand(0)), ...withBias(view, same(plainBand(0)))],
    write: (writer, io) => {
      const [g0, g1] = groupsOf(io.out, outPerGroup);
      const [data = '', ...rest] = io.inputs;
      const own = g1 - g0 === groups ? data : writer.slice(data, 1, [g0 * inPerGroup, g1 * inPerGroup]);
      writeGroups(view, shape, writer, { ...io, inputs: [own, ...rest] }, false);
    },
    parity: { groups, inPerGroup, outPerGroup, write: (writer, io) => writer.copy(view, io.inputs, io.output, { group: undefined }) },
  };
}

/** Partial sums over an interval of the input channels (whole groups only: then they are output channels of their own). */
function inputChannels(view: NodeView, input: number, band: Band): Reducing {
  const shape = convShape(view);
  if (input !== 0 || band.axis !== 1) refuse('only input channels can be summed in parts');
  if (shape.groups !== 1) refuse(`a convolution of ${shape.groups} groups has no sum over all input channels: cut it by channels`);
  const weights: Band = { ...band, axis: view.node.op === 'ConvTranspose' ? 0 : 1 };
  return {
    inputs: [same(band), same(weights), ...withBias(view, 'all')],
    merge: 'Sum',
    write: (writer, io) => writer.copy(view, io.first ? io.inputs : io.inputs.slice(0, 2), io.output),
  };
}

const anchors: NonNullable<Rule['anchors']> = () => ({
  spatial: { input: [0], output: [0] },
  channels: { input: plainBand(1), output: plainBand(1) },
});

const contraction: NonNullable<Rule['contraction']> = (view) => (convShape(view).groups === 1 ? { input: 0, axis: 1 } : undefined);

/** Explicit pads and kernel for a band on one spatial axis; the other axes keep theirs. */
export function bandAttributes(windows: readonly Window[], axis: number, pads: { padStart: number; padEnd: number }) {
  return { auto_pad: undefined, pads: padsAttribute(windows.map((w, i) => (i === axis ? pads : w))) };
}

function convRows(view: NodeView, band: Band): Banding {
  if (!isPlain(band)) refuse('rows in blocks');
  const windows = windowsOf(view, convShape(view).kernel);
  const axis = band.axis - 2;
  const window = windows[axis] ?? refuse('no such axis');
  return {
    inputs: [{ band, need: (out) => windowBand(window, out).need }, 'all', ...withBias(view, 'all')],
    write: (writer, io) => {
      const w = windowBand(window, io.out);
      const whole = w.skip + w.extra === 0;
      const name = whole ? io.output : writer.fresh(io.output);
      writer.copy(view, io.inputs, name, { ...bandAttributes(windows, axis, w), kernel_shape: windows.map((x) => x.kernel) });
      if (!whole) writer.slice(name, band.axis, [w.skip, w.skip + io.out[1] - io.out[0]], io.output);
    },
  };
}

function batch(view: NodeView, band: Band): Banding {
  return {
    inputs: [same(band), 'all', ...withBias(view, 'all')],
    write: (writer, io) => writer.copy(view, io.inputs, io.output),
  };
}

export const conv: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis === 0) return batch(view, band);
    return band.axis === 1 ? outputChannels(view, convShape(view), band) : convRows(view, band);
  },
  reduce: inputChannels,
  contraction,
  anchors,
};

/** Pads of a ConvTranspose from its full shapes: they crop the output (ONNX ConvTranspose-11, auto_pad and output_shape resolved). */
function transposeWindows(view: NodeView): (Window & { outputPadding: number })[] {
  const { kernel } = convShape(view);
  const plain = windowsOf(view, kernel);
  const auto = stringAttr(view.node, 'auto_pad', 'NOTSET');
  const outputPadding = intsAttr(
    view.node,
    'output_padding',
    kernel.map(() => 0),
  );
  const fromShape = view.node.attributes.has('output_shape') || auto === 'SAME_UPPER' || auto === 'SAME_LOWER';
  return plain.map((w, i) => {
    const extra = outputPadding[i] ?? 0;
    if (!fromShape) return { ...w, outputPadding: extra };
    const size = (w.inSize - 1) * w.stride + extra + reach(w);
    const total = Math.max(0, size - w.outSize);
    const half = Math.floor(total / 2);
    const padStart = auto === 'SAME_UPPER' ? half : total - half;
    // A wanted shape beyond the natural size is filled at the end, as output_padding is.
    return { ...w, padStart, padEnd: total - padStart, outputPadding: extra + Math.max(0, w.outSize - size) };
  });
}

/** Input rows that reach output rows `out`: `i` reaches `i s - p + t d`. Always covers the row that lies at or before the first output. */
function transposeNeed(w: Window, [a, b]: Interval): Interval {
  const first = Math.min(Math.ceil((a + w.padStart - reach(w) + 1) / w.stride), Math.floor((a + w.padStart) / w.stride));
  const last = Math.floor((b - 1 + w.padStart) / w.stride);
  const start = Math.min(w.inSize - 1, Math.max(0, first));
  return [start, Math.max(start + 1, Math.min(w.inSize, last + 1))];
}

function transposeRows(view: NodeView, band: Band): Banding {
  if (!isPlain(band)) refuse('rows in blocks');
  const windows = transposeWindows(view);
  const axis = band.axis - 2;
  const window = windows[axis] ?? refuse('no such axis');
  return {
    inputs: [{ band, need: (out) => transposeNeed(window, out) }, 'all', ...withBias(view, 'all')],
    write: (writer, io) => {
      const [i0, i1] = transposeNeed(window, io.out);
      // Without pads the band would give rows [i0 s - p, i0 s - p + size): pads crop it to the wanted rows.
      const origin = i0 * window.stride - window.padStart;
      const size = (i1 - i0 - 1) * window.stride + reach(window);
      const after = origin + size - io.out[1];
      const pads = { padStart: io.out[0] - origin, padEnd: Math.max(0, after) };
      writer.copy(view, io.inputs, io.output, {
        ...bandAttributes(windows, axis, pads),
        output_shape: undefined,
        kernel_shape: windows.map((w) => w.kernel),
        output_padding: windows.map((w, i) => (i === axis ? Math.max(0, -after) : w.outputPadding)),
      });
    },
    computed: (out) => {
      const [i0, i1] = transposeNeed(window, out);
      return ((i1 - i0) * window.outSize) / window.inSize;
    },
  };
}

export const convTranspose: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    if (band.axis === 0) return batch(view, band);
    return band.axis === 1 ? outputChannels(view, convShape(view), band) : transposeRows(view, band);
  },
  reduce: inputChannels,
  contraction,
  anchors,
};
