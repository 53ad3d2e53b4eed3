/** Comparing what a cut model computes with what the whole model computes. */
import type { DType, Tensor } from '../../broker/tensor.js';

/** Largest difference allowed, relative to the largest magnitude of the same output: floating point sums in another order. */
export const TOLERANCE = 1e-4;

export interface Comparison {
  /** Largest |expected - actual| over all elements of all outputs. */
  readonly maxAbsDiff: number;
  /** The largest, over the outputs, of (largest difference of the output / largest |expected| of the output). */
  readonly maxRelDiff: number;
  readonly bitEqual: boolean;
  /** False when a value that should be finite is not, a name, dtype or shape is wrong, or something is missing; `problem` says what. */
  readonly comparable: boolean;
  readonly problem?: string;
}

type Values = ArrayLike<number> | BigInt64Array | BigUint64Array;

/** The numbers of a tensor; float16 and bfloat16 widened. */
export function tensorValues(tensor: Tensor): Values {
  const { bytes } = tensor;
  // Slices of a message need not be aligned.
  const own = bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  const view = <T>(make: new (buffer: ArrayBufferLike, offset: number, length: number) => T, size: number): T =>
    new make(own.buffer, own.byteOffset, own.byteLength / size);
  const readers: Record<DType, () => Values> = {
    float32: () => view(Float32Array, 4),
    float64: () => view(Float64Array, 8),
    float16: () => Float32Array.from(view(Uint16Array, 2), halfToNumber),
    bfloat16: () => new Float32Array(Uint32Array.from(view(Uint16Array, 2), (h) => h << 16).buffer),
    int8: () => view(Int8Array, 1),
    uint8: () => own,
    int16: () => view(Int16Array, 2),
    uint16: () => view(Uint16Array, 2),
    int32: () => view(Int32Array, 4),
    uint32: () => view(Uint32Array, 4),
    int64: () => view(BigInt64Array, 8),
    uint64: () => view(BigUint64Array, 8),
    bool: () => own,
  };
  return readers[tensor.dtype]();
}

/** IEEE 754 binary16. */
function halfToNumber(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

/** Largest difference and largest magnitude of one pair. NaN equals NaN, an infinity equals itself: the whole model computes them too. */
function comparePair(expected: Values, actual: Values): { diff: number; largest: number; finite: boolean } {
  let diff = 0;
  let largest = 0;
  let finite = true;
  for (let i = 0; i < expected.length; i++) {
    const [x, y] = [expected[i], actual[i]];
    const e = Number(x);
    const a = Number(y);
    if (Number.isFinite(e) && Number.isFinite(a)) {
      // Large int64 are subtracted before they are rounded to numbers.
      const d = Math.abs(typeof x === 'bigint' && typeof y === 'bigint' ? Number(x - y) : e - a);
      if (d > diff) diff = d;
      const m = Math.abs(e);
      if (m > largest) largest = m;
    } else if (!Object.is(e, a)) {
      finite = false;
    }
  }
  return { diff, largest, finite };
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Compares named outputs. Pure; every output of `expected` must be in `actual` with the same dtype and shape. */
export function compare(expected: Readonly<Record<string, Tensor>>, actual: Readonly<Record<string, Tensor>>): Comparison {
  let maxAbsDiff = 0;
  let maxRelDiff = 0;
  let bitEqual = true;
  let problem: string | undefined;
  for (const [name, want] of Object.entries(expected)) {
    const got = actual[name];
    const describe = (t: Tensor) => `${t.dtype}[${t.dims.join(',')}]`;
    if (got === undefined || describe(got) !== describe(want)) {
      problem ??= `output ${name}: expected ${describe(want)}, got ${got === undefined ? 'nothing' : describe(got)}`;
      bitEqual = false;
      continue;
    }
    if (sameBytes(want.bytes, got.bytes)) continue;
    bitEqual = false;
    const { diff, largest, finite } = comparePair(tensorValues(want), tensorValues(got));
    if (!finite) problem ??= `output ${name} is not finite where it should be`;
    maxAbsDiff = Math.max(maxAbsDiff, diff);
    if (diff > 0) maxRelDiff = Math.max(maxRelDiff, largest > 0 ? diff / largest : Number.POSITIVE_INFINITY);
  }
  return { maxAbsDiff, maxRelDiff, bitEqual, comparable: problem === undefined, ...(problem === undefined ? {} : { problem }) };
}

/** True when the outputs are the same up to floating point sums in another order. */
export function agrees(comparison: Comparison, tolerance = TOLERANCE): boolean {
  return comparison.comparable && comparison.maxRelDiff <= tolerance;
}
