/** Sliding windows (Conv, pools): which rows a band needs, and the pads that are left for it. */
import { hasAttr, intAttr, intsAttr, stringAttr } from '../../onnx/attributes.js';
import type { Interval } from '../interval.js';
import { type NodeView, need } from './rule.js';

/** One spatial axis of a sliding window. Sizes in elements; `padEnd` may be less than the operator's where the last pads are never read. */
export interface Window {
  readonly kernel: number;
  readonly stride: number;
  readonly dilation: number;
  readonly padStart: number;
  readonly padEnd: number;
  readonly inSize: number;
  readonly outSize: number;
}

/** Reach of one window: `dilation (kernel - 1) + 1`. */
export function reach(w: Window): number {
  return w.dilation * (w.kernel - 1) + 1;
}

/** How far the last window goes beyond the data (negative: rows at the end that no window reads). */
export function overhang(w: Window): number {
  return (w.outSize - 1) * w.stride - w.padStart + reach(w) - w.inSize;
}

/** The windows of each spatial axis of a Conv or pool, with auto_pad resolved from the full shapes (ONNX Conv-11, MaxPool-12). */
export function windowsOf(view: NodeView, kernel: readonly number[]): Window[] {
  const { node } = view;
  const spatial = kernel.length;
  const inDims = need(view.input(0), 'the input').dims.slice(-spatial);
  const outDims = need(view.output(0), 'the output').dims.slice(-spatial);
  const ones = kernel.map(() => 1);
  const strides = intsAttr(node, 'strides', ones);
  const dilations = intsAttr(node, 'dilations', ones);
  const pads = intsAttr(
    node,
    'pads',
    kernel.flatMap(() => [0, 0]),
  );
  const auto = stringAttr(node, 'auto_pad', 'NOTSET');
  return kernel.map((k, i): Window => {
    const w = {
      kernel: k,
      stride: strides[i] ?? 1,
      dilation: dilations[i] ?? 1,
      inSize: inDims[i] ?? 1,
      outSize: outDims[i] ?? 1,
      padStart: 0,
      padEnd: 0,
    };
    if (auto === 'SAME_UPPER' || auto === 'SAME_LOWER') {
      const total = Math.max(0, overhang(w));
      const half = Math.floor(total / 2);
      w.padStart = auto === 'SAME_UPPER' ? half : total - half;
      w.padEnd = total - w.padStart;
    } else if (auto !== 'VALID') {
      w.padStart = pads[i] ?? 0;
      w.padEnd = pads[i + spatial] ?? 0;
    }
    return w;
  });
}

/** What one band of windows reads: rows `need`, with pads where windows reach over the true border; crop `skip` rows of what comes out. */
export interface WindowBand {
  readonly need: Interval;
  readonly padStart: number;
  readonly padEnd: number;
  /** Output rows computed before and after the wanted ones: only where the wanted windows lie wholly in the padding. */
  readonly skip: number;
  readonly extra: number;
}

export function windowBand(w: Window, out: Interval): WindowBand {
  const size = reach(w);
  let [a, b] = out;
  const low = () => a * w.stride - w.padStart;
  const high = () => (b - 1) * w.stride - w.padStart + size;
  // An engine wants at least one real row: windows that lie wholly in the padding take neighbours along, and are cropped out again.
  while (high() <= 0 && b < w.outSize) b++;
  while (low() >= w.inSize && a > 0) a--;
  const start = Math.max(0, low());
  const end = Math.min(w.inSize, high());
  return {
    need: [start, end],
    padStart: Math.max(0, -low()),
    padEnd: Math.max(0, high() - w.inSize),
    skip: out[0] - a,
    extra: b - out[1],
  };
}

/** True for pools whose output size is rounded up. */
export function ceilMode(view: NodeView): boolean {
  return hasAttr(view.node, 'ceil_mode') && intAttr(view.node, 'ceil_mode', 0) !== 0;
}

/** `pads` attribute: all starts, then all ends. */
export function padsAttribute(windows: readonly Pick<Window, 'padStart' | 'padEnd'>[]): number[] {
  return [...windows.map((w) => w.padStart), ...windows.map((w) => w.padEnd)];
}
