/** Intervals and bands: how a part's share of a tensor is said before it becomes a box. */
import type { Box } from '../../broker/tensor.js';

/** Half-open `[start, end)`. */
export type Interval = readonly [number, number];

/**
 * How a tensor is banded: the elements of `axis` are seen as `[outer, extent, inner]` in row-major order, and an interval counts in units of
 * `extent`. Plainly `outer = inner = 1`. After a Flatten, channels lie on axis 1 with `inner = H*W`, and rows with `outer = C, inner = W`:
 * then a band is no box, and the tensor can neither enter nor leave a slice in bands.
 */
export interface Band {
  readonly axis: number;
  readonly outer: number;
  readonly inner: number;
}

export function plainBand(axis: number): Band {
  return { axis, outer: 1, inner: 1 };
}

export function isPlain(band: Band): boolean {
  return band.outer === 1 && band.inner === 1;
}

/** Units of the band in a tensor of these dims. */
export function extentOf(band: Band, dims: readonly number[]): number {
  return (dims[band.axis] ?? 1) / (band.outer * band.inner);
}

export function hull(a: Interval | undefined, b: Interval | undefined): Interval | undefined {
  if (a === undefined) return b;
  if (b === undefined) return a;
  return [Math.min(a[0], b[0]), Math.max(a[1], b[1])];
}

export function sameInterval(a: Interval, b: Interval): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

export function isEmpty(interval: Interval): boolean {
  return interval[1] <= interval[0];
}

/** True when intervals of one band can be said in units of the other. */
export function compatible(a: Band, b: Band): boolean {
  return a.axis === b.axis && a.outer === b.outer && (a.outer === 1 || a.inner === b.inner);
}

/** The smallest interval in units of `to` that covers `interval` in units of `from`. */
export function inUnits(interval: Interval, from: Band, to: Band): Interval {
  if (from.inner === to.inner) return interval;
  return [Math.floor((interval[0] * from.inner) / to.inner), Math.ceil((interval[1] * from.inner) / to.inner)];
}

/** Dims of the band's interval as a dense tensor. */
export function bandDims(dims: readonly number[], band: Band, interval: Interval): number[] {
  return dims.map((d, axis) => (axis === band.axis ? band.outer * (interval[1] - interval[0]) * band.inner : d));
}

/** The interval as a box of the tensor; `outer` must be 1. */
export function bandBox(dims: readonly number[], band: Band, interval: Interval): Box {
  return {
    start: dims.map((_, axis) => (axis === band.axis ? interval[0] * band.inner : 0)),
    end: dims.map((d, axis) => (axis === band.axis ? interval[1] * band.inner : d)),
  };
}

/**
 * Cuts `extent` units by shares: part i gets `[bound_i, bound_i+1)` with bounds rounded from the cumulative share. So every bound is within half
 * a unit of its ideal (bands of a tensor and of its half-size successor lie over each other), and equal shares of a divisible extent are equal.
 */
export function shareIntervals(extent: number, shares: readonly number[]): Interval[] {
  const total = shares.reduce((sum, s) => sum + s, 0);
  let sum = 0;
  let start = 0;
  return shares.map((share): Interval => {
    sum += share;
    const end = Math.round((extent * sum) / total - 1e-9);
    const interval: Interval = [start, Math.max(start, end)];
    start = interval[1];
    return interval;
  });
}
