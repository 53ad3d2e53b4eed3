/**
 * Tensors and boxes: the words every folder shares about data. This file imports only `errors.ts`, so `models/` may use it.
 * All bytes are little-endian and dense row-major (C order), as in ONNX `raw_data`.
 */
import { ChairError } from './errors.js';

/** Fixed-size ONNX element types, with ONNX's own names in lower case. */
export const DTYPES = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int8',
  'uint8',
  'int16',
  'uint16',
  'int32',
  'uint32',
  'int64',
  'uint64',
  'bool',
] as const;
export type DType = (typeof DTYPES)[number];

const ITEM_BYTES: Readonly<Record<DType, number>> = {
  float32: 4,
  float64: 8,
  float16: 2,
  bfloat16: 2,
  int8: 1,
  uint8: 1,
  int16: 2,
  uint16: 2,
  int32: 4,
  uint32: 4,
  int64: 8,
  uint64: 8,
  bool: 1,
};

/** Bytes of one element. */
export function itemBytes(dtype: DType): number {
  return ITEM_BYTES[dtype];
}

/** Product of the dims; 1 for a scalar. */
export function elementCount(dims: readonly number[]): number {
  let count = 1;
  for (const d of dims) count *= d;
  return count;
}

/** Bytes of a dense tensor. */
export function tensorBytes(dtype: DType, dims: readonly number[]): number {
  return elementCount(dims) * ITEM_BYTES[dtype];
}

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Fixed, non-negative; `[]` is a scalar. */
  readonly dims: readonly number[];
}

/** A dense tensor. `bytes.length === tensorBytes(dtype, dims)`, and `bytes.byteOffset` is a multiple of 8 (so typed views work). */
export interface Tensor {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
}

/** A half-open interval `[start, end)` on each axis of a tensor. A scalar has the empty box `{start: [], end: []}`. */
export interface Box {
  readonly start: readonly number[];
  readonly end: readonly number[];
}

/** The box that covers a whole tensor of these dims. */
export function wholeBox(dims: readonly number[]): Box {
  return { start: dims.map(() => 0), end: [...dims] };
}

export function boxDims(box: Box): number[] {
  return box.start.map((s, i) => (box.end[i] ?? s) - s);
}

/** Elements of a box. */
export function boxElements({ start, end }: Box): number {
  let count = 1;
  for (let i = 0; i < start.length; i++) {
    const from = start[i] ?? 0;
    count *= (end[i] ?? from) - from;
  }
  return count;
}

export function boxEquals(a: Box, b: Box): boolean {
  return a.start.length === b.start.length && a.start.every((s, i) => s === b.start[i] && a.end[i] === b.end[i]);
}

/** The common part of two boxes of one tensor, or undefined when it has no element. */
export function intersectBoxes(a: Box, b: Box): Box | undefined {
  const start = a.start.map((s, i) => Math.max(s, b.start[i] ?? 0));
  const end = a.end.map((e, i) => Math.min(e, b.end[i] ?? 0));
  return start.every((s, i) => s < (end[i] ?? 0)) ? { start, end } : undefined;
}

/** A zeroed tensor on a buffer of its own (aligned, transferable to a worker). */
export function allocTensor(dtype: DType, dims: readonly number[]): Tensor {
  return { dtype, dims: [...dims], bytes: new Uint8Array(new ArrayBuffer(tensorBytes(dtype, dims))) };
}

/** Throws TENSOR_INVALID unless bytes, dims and dtype agree. */
export function checkTensor(tensor: Tensor, what = 'tensor'): void {
  const want = tensorBytes(tensor.dtype, tensor.dims);
  if (!tensor.dims.every((d) => Number.isSafeInteger(d) && d >= 0) || want !== tensor.bytes.length) {
    throw new ChairError('TENSOR_INVALID', `${what} contradicts itself`, {
      expected: `${want} bytes for ${tensor.dtype}[${tensor.dims.join(',')}]`,
      came: `${tensor.bytes.length} bytes`,
    });
  }
}

/**
 * The contiguous runs of a box inside a dense holder: calls `visit(byteOffset, byteLength)` in row-major order.
 * `holder` is the box that the dense buffer covers; `box` must lie inside it.
 */
export function forEachRun(holder: Box, box: Box, itemSize: number, visit: (byteOffset: number, byteLength: number) => void): void {
  forEachRows(holder, holder, box, itemSize, (from, stride, _to, _toStride, count, rowBytes) => {
    for (let row = 0; row < count; row++) visit(from + row * stride, rowBytes);
  });
}

/** Of each row so many bytes, `fromStride` apart from `from` on in the one holder, and `toStride` apart from `to` on in the other. */
export type VisitRows = (from: number, fromStride: number, to: number, toStride: number, count: number, rowBytes: number) => void;

/**
 * As `forEachRun`, in two holders at once: what is contiguous in both of them is a row, and rows that are equally far apart come together. `box` must lie inside both.
 */
export function forEachRows(source: Box, target: Box, box: Box, itemSize: number, visit: VisitRows): void {
  const size = boxDims(box);
  if (size.some((n) => n <= 0)) return;
  const inner = Math.max(innerAxis(source, size), innerAxis(target, size));
  let rowBytes = itemSize;
  for (let axis = inner; axis < size.length; axis++) rowBytes *= size[axis] ?? 1;
  const [from, to] = [placeIn(source, box, itemSize), placeIn(target, box, itemSize)];
  const last = inner - 1;
  if (last < 0) {
    visit(from.base, rowBytes, to.base, rowBytes, 1, rowBytes);
    return;
  }
  const index = new Array<number>(last).fill(0);
  const [fromStride = 0, toStride = 0, count = 1] = [from.strides[last], to.strides[last], size[last]];
  for (;;) {
    let [fromAt, toAt] = [from.base, to.base];
    for (let axis = 0; axis < last; axis++) {
      fromAt += (index[axis] ?? 0) * (from.strides[axis] ?? 0);
      toAt += (index[axis] ?? 0) * (to.strides[axis] ?? 0);
    }
    visit(fromAt, fromStride, toAt, toStride, count, rowBytes);
    let axis = last - 1;
    for (; axis >= 0; axis--) {
      const next = (index[axis] ?? 0) + 1;
      index[axis] = next < (size[axis] ?? 0) ? next : 0;
      if (index[axis] !== 0) break;
    }
    if (axis < 0) return;
  }
}

/** The first axis from which on a box of this size is contiguous in `holder`. */
function innerAxis(holder: Box, size: readonly number[]): number {
  let inner = size.length;
  while (inner > 0) {
    inner--;
    if (size[inner] !== (holder.end[inner] ?? 0) - (holder.start[inner] ?? 0)) break;
  }
  return inner;
}

/** Where `box` begins in the bytes of `holder`, and how far apart elements are along each axis. */
function placeIn(holder: Box, box: Box, itemSize: number): { readonly base: number; readonly strides: readonly number[] } {
  const strides: number[] = new Array(holder.start.length);
  let [stride, base] = [itemSize, 0];
  for (let axis = strides.length - 1; axis >= 0; axis--) {
    const start = holder.start[axis] ?? 0;
    strides[axis] = stride;
    base += ((box.start[axis] ?? 0) - start) * stride;
    stride *= (holder.end[axis] ?? 0) - start;
  }
  return { base, strides };
}

/** Rows up to this length are copied word by word: below it a call to `set` costs more than the bytes. */
const SHORT_ROW_BYTES = 64;

/** Copies rows, see `VisitRows`. A loop of its own and not a closure for each row: that costs three times as much. */
export function copyRows(
  source: Uint8Array,
  from: number,
  fromStride: number,
  target: Uint8Array,
  to: number,
  toStride: number,
  count: number,
  rowBytes: number,
): void {
  if (count === 1 || (fromStride === rowBytes && toStride === rowBytes)) {
    target.set(source.subarray(from, from + count * rowBytes), to);
    return;
  }
  const isWords = ((source.byteOffset | target.byteOffset | from | fromStride | to | toStride | rowBytes) & 3) === 0;
  if (rowBytes <= SHORT_ROW_BYTES && isWords) {
    const words = new Uint32Array(source.buffer, source.byteOffset, source.length >> 2);
    const into = new Uint32Array(target.buffer, target.byteOffset, target.length >> 2);
    copyWords(words, from >> 2, fromStride >> 2, into, to >> 2, toStride >> 2, count, rowBytes >> 2);
    return;
  }
  // A view of a Node buffer is one, too, and takes twice as long to make.
  const { buffer, byteOffset } = source;
  for (let row = 0; row < count; row++) {
    target.set(new Uint8Array(buffer, byteOffset + from + row * fromStride, rowBytes), to + row * toStride);
  }
}

function copyWords(
  source: Uint32Array,
  from: number,
  fromStride: number,
  target: Uint32Array,
  to: number,
  toStride: number,
  count: number,
  rowWords: number,
): void {
  for (let row = 0; row < count; row++) {
    const [at, into] = [from + row * fromStride, to + row * toStride];
    for (let i = 0; i < rowWords; i++) target[into + i] = source[at + i] as number;
  }
}

/** Copies `box` (global coordinates) from a dense source holding `sourceBox` into a dense target holding `targetBox`. */
export function copyBox(source: Uint8Array, sourceBox: Box, target: Uint8Array, targetBox: Box, box: Box, itemSize: number): void {
  forEachRows(sourceBox, targetBox, box, itemSize, (from, fromStride, to, toStride, count, rowBytes) =>
    copyRows(source, from, fromStride, target, to, toStride, count, rowBytes),
  );
}
