/**
 * Resize and Upsample in bands. A band may be resized alone when its first row lies on a whole output row (its offset times the scale is whole): then
 * the sampled coordinates of the band are those of the whole, shifted. Neighbours that the interpolation reads come along and are cropped.
 */
import { intAttr, intsAttr, stringAttr } from '../../onnx/attributes.js';
import { type Band, type Interval, isPlain } from '../interval.js';
import { type Banding, type GraphWriter, type NodeView, need, onlyFirst, type Rule, refuse, same } from './rule.js';

interface Resize {
  readonly inDims: readonly number[];
  readonly outDims: readonly number[];
  /** As given by the model: one scale per axis, or the sizes of the output. */
  readonly scales: readonly number[] | undefined;
  readonly mode: string;
  readonly coordinates: string;
}

function resizeOf(view: NodeView): Resize {
  const inDims = need(view.input(0), 'the input').dims;
  const outDims = need(view.output(0), 'the output').dims;
  const axes = intsAttr(
    view.node,
    'axes',
    inDims.map((_, i) => i),
  ).map((a) => (a < 0 ? a + inDims.length : a));
  const upsample = view.node.op === 'Upsample';
  let given = upsample && view.opset < 9 ? view.node.attributes.get('scales')?.floats : view.constants(upsample || view.opset < 11 ? 1 : 2);
  if (given?.length === 0) given = undefined;
  const scales =
    given &&
    inDims.map((_, i) => {
      const at = axes.indexOf(i);
      return at < 0 ? 1 : (given[at] ?? 1);
    });
  if (given === undefined)
    refuseUneven(
      view,
      axes.map((i) => [inDims[i] ?? 1, outDims[i] ?? 1]),
    );
  // Before opset 11 there was one coordinate mode.
  const coordinates = view.opset < 11 ? 'asymmetric' : stringAttr(view.node, 'coordinate_transformation_mode', 'half_pixel');
  return { inDims, outDims, scales, mode: stringAttr(view.node, 'mode', 'nearest'), coordinates };
}

/** With `keep_aspect_ratio_policy` all axes have one scale, and sizes are rounded from it: where rounding shows, sizes do not tell the scale. */
function refuseUneven(view: NodeView, sizes: readonly (readonly [number, number])[]): void {
  if (stringAttr(view.node, 'keep_aspect_ratio_policy', 'stretch') === 'stretch') return;
  const [[from, to] = [1, 1]] = sizes;
  if (sizes.some(([a, b]) => a * to !== b * from)) refuse('the kept aspect ratio is rounded');
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}

/** The scale as `p / q` in lowest terms. Scales given as floats must be exact binary fractions; sizes are exact anyway. */
function fraction(resize: Resize, axis: number): { p: number; q: number } {
  const inSize = resize.inDims[axis] ?? 1;
  let p = resize.outDims[axis] ?? 1;
  let q = inSize;
  if (resize.scales !== undefined) {
    q = 64;
    p = (resize.scales[axis] ?? 1) * q;
    if (!Number.isInteger(p)) refuse(`a scale of ${resize.scales[axis]} is no short binary fraction`);
  }
  const divisor = gcd(p, q);
  return { p: p / divisor, q: q / divisor };
}

/** The source coordinate of output row `x` of the whole. */
function sourceOf(resize: Resize): (x: number, scale: number) => number {
  switch (resize.coordinates) {
    case 'asymmetric':
      return (x, scale) => x / scale;
    case 'tf_half_pixel_for_nn':
      return (x, scale) => (x + 0.5) / scale;
    case 'pytorch_half_pixel':
    case 'half_pixel_symmetric':
    case 'half_pixel':
      return (x, scale) => (x + 0.5) / scale - 0.5;
    default:
      return refuse(`coordinate mode ${resize.coordinates} depends on the size of the whole`);
  }
}

/**
 * The mode in which a band is written. Two modes are half_pixel with an exception that depends on the sizes of the whole: where the whole is no
 * exception, bands must not become one.
 */
function bandCoordinates(resize: Resize): string {
  const scaled = resize.inDims.flatMap((d, i) => (d === resize.outDims[i] ? [] : [i]));
  if (resize.coordinates === 'pytorch_half_pixel') {
    if (scaled.some((i) => resize.outDims[i] === 1)) refuse('an axis is resized to a single element');
    return 'half_pixel';
  }
  if (resize.coordinates === 'half_pixel_symmetric') {
    const exact = scaled.every(
      (i) => (resize.scales?.[i] ?? 0) * (resize.inDims[i] ?? 0) === resize.outDims[i] || resize.scales === undefined,
    );
    if (!exact) refuse('a centre that depends on the whole');
    return 'half_pixel';
  }
  return resize.coordinates;
}

/** Rows that the interpolation reads around its coordinate. */
const MARGIN: Readonly<Record<string, number>> = { nearest: 1, linear: 1, bilinear: 1, cubic: 2 };

interface ResizeBand {
  readonly need: Interval;
  /** The first output row that the band gives, and how many. */
  readonly origin: number;
  readonly rows: number;
}

function bandOf(resize: Resize, axis: number): (out: Interval) => ResizeBand {
  const { p, q } = fraction(resize, axis);
  const source = sourceOf(resize);
  const inSize = resize.inDims[axis] ?? 1;
  const margin = MARGIN[resize.mode] ?? refuse(`mode ${resize.mode}`);
  const exactScale = resize.scales !== undefined;
  const whole = resize.outDims[axis] ?? 1;
  if (!exactScale && whole * q !== inSize * p) refuse('sizes that are no multiple');
  return ([a, b]) => {
    const low = Math.max(0, Math.floor(source(a, p / q)) - margin);
    const start = Math.floor(low / q) * q;
    let end = Math.min(inSize, Math.floor(source(b - 1, p / q)) + margin + 1);
    end = Math.max(end, start + 1);
    // With sizes, rows / band must be the scale exactly: whole multiples of q, or up to the true end.
    if (!exactScale) end = Math.min(inSize, start + Math.ceil((end - start) / q) * q);
    const origin = (start * p) / q;
    const rows = () => Math.floor(((end - start) * p) / q);
    while (origin + rows() < b && end < inSize) end = Math.min(inSize, end + (exactScale ? 1 : q));
    return { need: [start, end], origin, rows: rows() };
  };
}

function write(writer: GraphWriter, view: NodeView, resize: Resize, input: string, axis: number, rows: number, output: string): void {
  const sizes = resize.outDims.map((d, i) => (i === axis ? rows : d));
  const attributes = view.opset < 11 ? {} : { coordinate_transformation_mode: bandCoordinates(resize) };
  if (view.node.op === 'Upsample' || view.opset < 11) {
    const inAttribute = view.node.op === 'Upsample' && view.opset < 9;
    writer.copy(view, inAttribute ? [input] : [input, writer.floats(resize.scales ?? [], 'float32')], output);
    return;
  }
  const parameters = resize.scales !== undefined ? ['', writer.floats(resize.scales, 'float32')] : ['', '', writer.ints(sizes)];
  // Opset 11 wants a tensor for roi (empty: not used).
  if (view.opset < 13) {
    parameters[0] = writer.floats([], 'float32', [0]);
    if (resize.scales === undefined) parameters[1] = writer.floats([], 'float32', [0]);
  }
  writer.copy(view, [input, ...parameters], output, { ...attributes, axes: undefined, keep_aspect_ratio_policy: undefined });
}

function resized(view: NodeView, band: Band): Banding {
  const resize = resizeOf(view);
  if (resize.coordinates === 'tf_crop_and_resize') refuse('tf_crop_and_resize');
  if (!['nearest', 'linear', 'cubic', 'bilinear'].includes(resize.mode)) refuse(`mode ${resize.mode}`);
  const axis = band.axis;
  const unscaled = resize.inDims[axis] === resize.outDims[axis] && (resize.scales?.[axis] ?? 1) === 1;
  const drop = view.node.inputs.slice(1).map(() => 'drop' as const);
  if (unscaled) {
    return {
      inputs: [same(band), ...drop],
      write: (writer, io) => {
        const rows = (io.out[1] - io.out[0]) * band.outer * band.inner;
        write(writer, view, resize, io.inputs[0] ?? '', axis, rows, io.output);
      },
    };
  }
  if (!isPlain(band)) refuse('rows in blocks');
  if (intAttr(view.node, 'antialias', 0) !== 0) refuse('antialiasing');
  if (view.opset >= 11) bandCoordinates(resize);
  const bands = bandOf(resize, axis);
  return {
    inputs: [{ band, need: (out) => bands(out).need }, ...drop],
    write: (writer, io) => {
      const { origin, rows } = bands(io.out);
      const from = io.out[0] - origin;
      const whole = from === 0 && rows === io.out[1] - io.out[0];
      const name = whole ? io.output : writer.fresh(io.output);
      write(writer, view, resize, io.inputs[0] ?? '', axis, rows, name);
      if (!whole) writer.slice(name, axis, [from, from + io.out[1] - io.out[0]], io.output);
    },
  };
}

export const resize: Rule = {
  band(view, output, band) {
    onlyFirst(view, output);
    return resized(view, band);
  },
  anchors: () => ({ spatial: { input: [0], output: [0] } }),
};
