/** Bytes of one box on the wire: raw for any dtype, float16 for float32, affine uint8 for both. One pass to gather, one pass to scatter. */
import { ChairError } from './errors.js';
import type { Encoding } from './messages.js';
import { SegmentReader } from './segments.js';
import { type Box, boxDims, boxElements, copyRows, type DType, forEachRows, forEachRun, itemBytes } from './tensor.js';

/** For `uint8`: value = (q - zero) * scale. Ignored by the other encodings. */
export interface Affine {
  readonly scale: number;
  readonly zero: number;
}

/** Bytes of one element on the wire; `itemSize` is the dtype's. */
export function encodedItemBytes(encoding: Encoding, itemSize: number): number {
  return encoding === 'raw' ? itemSize : encoding === 'float16' ? 2 : 1;
}

/** Gives memory for a copy: exactly so many bytes, aligned to 8. The first use of fresh memory costs ten times the copy itself. */
export type Take = (sizeBytes: number) => Uint8Array;

const fresh: Take = (sizeBytes) => Buffer.allocUnsafeSlow(sizeBytes);

/**
 * `box` out of a dense holder. Raw and contiguous: a view of `source`, no copy. Else one copy.
 * The holder's bytes must not change until the message is sent.
 */
export function gather(
  source: Uint8Array,
  holder: Box,
  box: Box,
  itemSize: number,
  encoding: Encoding,
  affine: Affine,
  take: Take = fresh,
): Uint8Array {
  const count = boxElements(box);
  if (encoding !== 'raw') return gatherConverted(source, holder, box, itemSize, encoding, affine);
  const sizeBytes = count * itemSize;
  if (sizeBytes === 0) return new Uint8Array(0);
  let [target, view]: (Uint8Array | undefined)[] = [];
  forEachRows(holder, box, box, itemSize, (from, fromStride, to, toStride, count, rowBytes) => {
    if (rowBytes === sizeBytes) {
      view = source.subarray(from, from + rowBytes);
      return;
    }
    target ??= take(sizeBytes);
    copyRows(source, from, fromStride, target, to, toStride, count, rowBytes);
  });
  return view ?? target ?? new Uint8Array(0);
}

/** float32 view; a copy only when the bytes are not aligned (never for tensors of our own making). */
function floatsOf(bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes);
  return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.length >> 2);
}

function gatherConverted(
  source: Uint8Array,
  holder: Box,
  box: Box,
  itemSize: number,
  encoding: 'float16' | 'uint8',
  affine: Affine,
): Uint8Array {
  const count = boxElements(box);
  const { from, within } = floatsIn(source, holder, box, itemSize);
  const half = new Uint16Array(encoding === 'float16' ? count : 0);
  // Clamped arrays round to the nearest and keep 0..255, whatever the affine.
  const bytes = new Uint8ClampedArray(encoding === 'uint8' ? count : 0);
  const words = new Uint32Array(from.buffer, from.byteOffset, from.length);
  let at = 0;
  forEachRun(within, box, 4, (offset, length) => {
    const start = offset >> 2;
    const count = length >> 2;
    if (encoding === 'float16') halfRun(words, start, half, at, count);
    else byteRun(from, start, bytes, at, count, affine);
    at += count;
  });
  return new Uint8Array(encoding === 'float16' ? half.buffer : bytes.buffer);
}

// The loops stand in functions of their own: numbers that a closure changes live on the heap, which is twenty times as slow.

function halfRun(words: Uint32Array, start: number, half: Uint16Array, at: number, count: number): void {
  for (let i = 0; i < count; i++) half[at + i] = toHalf(words[start + i] as number);
}

function byteRun(from: Float32Array, start: number, bytes: Uint8ClampedArray, at: number, count: number, { scale, zero }: Affine): void {
  const perStep = 1 / scale;
  for (let i = 0; i < count; i++) bytes[at + i] = (from[start + i] as number) * perStep + zero;
}

/** A float32's bits as an integer of the same order: one comparison of integers a value, and NaN and infinities lie outside of all finite values. */
function orderOf(bits: number): number {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

const ORDER_OF_INFINITY = 0x7f800000;

/** Widens `range` ([lowest, highest order]) by a run. */
function widen(range: Int32Array, bits: Int32Array, start: number, count: number): void {
  let low = range[0] as number;
  let high = range[1] as number;
  const end = start + count;
  for (let i = start; i < end; i++) {
    const order = orderOf(bits[i] as number);
    if (order < low) low = order;
    if (order > high) high = order;
  }
  range[0] = low;
  range[1] = high;
}

function lookUp(codes: Uint8Array | Uint16Array, table: Uint32Array, bits: Uint32Array, at: number, count: number): void {
  for (let i = 0; i < count; i++) bits[at + i] = table[codes[i] as number] as number;
}

/** A box's values as float32: the holder itself where it is that already, float16 widened. */
function floatsIn(source: Uint8Array, holder: Box, box: Box, itemSize: number): { from: Float32Array; within: Box } {
  if (itemSize === 4) return { from: floatsOf(source), within: holder };
  const dense = gather(source, holder, box, 2, 'raw', NO_AFFINE);
  const aligned = dense.byteOffset % 2 === 0 ? dense : Uint8Array.from(dense);
  const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.length >> 1);
  const words = new Uint32Array(halves.length);
  const table = halfTable();
  for (let i = 0; i < words.length; i++) words[i] = table[halves[i] as number] as number;
  return { from: new Float32Array(words.buffer), within: box };
}

const NO_AFFINE: Affine = { scale: 1, zero: 0 };

interface Range {
  readonly low: number;
  readonly high: number;
  readonly finite: boolean;
}

function rangeOf(source: Uint8Array, holder: Box, box: Box, itemSize: number): Range {
  const { from, within } = floatsIn(source, holder, box, itemSize);
  const bits = new Int32Array(from.buffer, from.byteOffset, from.length);
  const range = Int32Array.of(0x7fffffff, -0x80000000);
  forEachRun(within, box, 4, (offset, length) => widen(range, bits, offset >> 2, length >> 2));
  const [lowest = 0, highest = 0] = range;
  // An empty box has no values: it is as if it held one 0.
  if (lowest > highest) return { low: 0, high: 0, finite: true };
  const [low = 0, high = 0] = new Float32Array(Int32Array.of(orderOf(lowest), orderOf(highest)).buffer);
  return { low, high, finite: lowest > -ORDER_OF_INFINITY - 1 && highest < ORDER_OF_INFINITY };
}

/**
 * Scale and zero for the `uint8` encoding of a box of float32 (float16 with `itemSize` 2): no value is off by more than half a step of scale. Where 0
 * lies within the values it is met exactly (activations are mostly zeros, and a constant bias would add up); a constant is met exactly, too.
 * Throws TENSOR_INVALID when a value is not finite.
 */
export function affineOf(source: Uint8Array, holder: Box, box: Box, itemSize = 4): Affine {
  const range = rangeOf(source, holder, box, itemSize);
  if (!range.finite) {
    throw new ChairError('TENSOR_INVALID', 'uint8 encoding needs finite values', { came: 'NaN or an infinity' });
  }
  return affineIn(range);
}

function affineIn({ low, high }: Range): Affine {
  if (low >= high) return { scale: 1, zero: low === high ? -low : 0 };
  if (low < 0 && high > 0) {
    // One step is given away so that the zero can be a whole number and both ends still lie in 0..255.
    const scale = (high - low) / 254;
    return { scale, zero: Math.ceil(-low / scale) };
  }
  const scale = (high - low) / 255;
  // At an end of the values 0 is met exactly as well, without the rounding of the division.
  return { scale, zero: low === 0 ? 0 : high === 0 ? 255 : -low / scale };
}

/** How a box can be sent. */
export interface Fitting extends Affine {
  readonly encoding: Encoding;
  /** Why it must be raw although another encoding is wanted; '' otherwise. */
  readonly why: string;
}

/** Beyond it a float16 is infinite. */
const HALF_MOST = 65_504;
/** Below it a float16 loses bits. */
const HALF_NORMAL = 2 ** -14;

/**
 * The wanted encoding where it can carry the values of this box, else raw. What it promises: `float16` changes no value by more than 1/2048 of the box's
 * largest magnitude, `uint8` by no more than 1/508 of the distance between its smallest and largest value.
 */
export function fittingEncoding(wanted: Encoding, dtype: DType, source: Uint8Array, holder: Box, box: Box): Fitting {
  const raw = (why: string): Fitting => ({ encoding: 'raw', scale: 1, zero: 0, why });
  if (wanted === 'raw') return raw('');
  if (!canEncode(wanted, dtype)) return raw(`${wanted} cannot carry ${dtype}`);
  const range = rangeOf(source, holder, box, itemBytes(dtype));
  const { low, high, finite } = range;
  if (!finite) return raw('a value is NaN or infinite');
  if (wanted === 'uint8') {
    const affine = affineIn(range);
    // Half a step beyond the largest float32 would arrive as an infinity.
    const [first, last] = [(0 - affine.zero) * affine.scale, (255 - affine.zero) * affine.scale];
    const carried = Number.isFinite(Math.fround(first)) && Number.isFinite(Math.fround(last));
    return carried ? { encoding: 'uint8', ...affine, why: '' } : raw('values too large for uint8');
  }
  const peak = Math.max(-low, high);
  if (peak > HALF_MOST) return raw('a value is too large for float16');
  if (peak > 0 && peak < HALF_NORMAL) return raw('all values are too small for float16');
  return { encoding: 'float16', scale: 1, zero: 0, why: '' };
}

/** What a receiver gets of `box` when it is sent in this encoding: its dense bytes. The wire itself, without a wire: for the oracle. */
export function carried(wanted: Encoding, dtype: DType, source: Uint8Array, holder: Box, box: Box): Uint8Array {
  const itemSize = itemBytes(dtype);
  const fitting = fittingEncoding(wanted, dtype, source, holder, box);
  const sent = gather(source, holder, box, itemSize, fitting.encoding, fitting);
  const target = new Uint8Array(boxElements(box) * itemSize);
  scatter(new SegmentReader([sent], 0), fitting, itemSize, target, box, box);
  return target;
}

/** Which encodings carry which dtypes: only those that make float tensors smaller. */
export function canEncode(encoding: Encoding, dtype: DType): boolean {
  if (encoding === 'raw') return true;
  return dtype === 'float32' || (dtype === 'float16' && encoding === 'uint8');
}

/**
 * Writes the data of `box`, read from `data`, straight into a dense target that holds `targetBox` (both in the tensor's own coordinates): the one
 * copy between socket and engine. Throws CODEC_INVALID when `data` is not exactly the box's bytes, TENSOR_INVALID when the box is not in the target.
 */
export function scatter(
  data: SegmentReader,
  wire: { readonly encoding: Encoding } & Affine,
  itemSize: number,
  target: Uint8Array,
  targetBox: Box,
  box: Box,
): void {
  checkInside(targetBox, box, target.length, itemSize);
  const want = boxElements(box) * encodedItemBytes(wire.encoding, itemSize);
  if (data.bytesLeft !== want) {
    throw new ChairError('CODEC_INVALID', 'message data does not fill its box', {
      expected: `${want} bytes for [${boxDims(box).join(',')}]`,
      came: `${data.bytesLeft}`,
    });
  }
  if (wire.encoding === 'raw') {
    // In row-major order, which is the order of the data.
    forEachRows(box, targetBox, box, itemSize, (_, __, to, toStride, count, rowBytes) =>
      data.copyRowsTo(target, to, toStride, count, rowBytes),
    );
  } else if (itemSize === 4) scatterConverted(data, wire.encoding, wire, target, targetBox, box);
  else scatterToHalf(data, wire, target, targetBox, box);
}

const CHUNK_ITEMS = 2048;

function scatterConverted(
  data: SegmentReader,
  encoding: 'float16' | 'uint8',
  affine: Affine,
  target: Uint8Array,
  targetBox: Box,
  box: Box,
): void {
  if (target.byteOffset % 4 !== 0) throw new ChairError('TENSOR_INVALID', 'target of a float32 box is not aligned to 4 bytes');
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length >> 2);
  const itemBytes = encodedItemBytes(encoding, 4);
  const chunk = new Uint8Array(CHUNK_ITEMS * itemBytes);
  const codes = itemBytes === 2 ? new Uint16Array(chunk.buffer) : chunk;
  const table = encoding === 'float16' ? halfTable() : stepTable(affine);
  forEachRun(targetBox, box, 4, (offset, length) => {
    const end = (offset + length) >> 2;
    for (let at = offset >> 2; at < end; at += CHUNK_ITEMS) {
      const count = Math.min(CHUNK_ITEMS, end - at);
      data.copyTo(chunk, 0, count * itemBytes);
      lookUp(codes, table, bits, at, count);
    }
  });
}

/** `uint8` of a float16 tensor. */
function scatterToHalf(data: SegmentReader, affine: Affine, target: Uint8Array, targetBox: Box, box: Box): void {
  if (target.byteOffset % 2 !== 0) throw new ChairError('TENSOR_INVALID', 'target of a float16 box is not aligned to 2 bytes');
  const to = new Uint16Array(target.buffer, target.byteOffset, target.length >> 1);
  const table = Uint16Array.from(stepTable(affine), toHalf);
  const chunk = new Uint8Array(CHUNK_ITEMS);
  forEachRun(targetBox, box, 2, (offset, length) => {
    const end = (offset + length) >> 1;
    for (let at = offset >> 1; at < end; at += CHUNK_ITEMS) {
      const count = Math.min(CHUNK_ITEMS, end - at);
      data.copyTo(chunk, 0, count);
      for (let i = 0; i < count; i++) to[at + i] = table[chunk[i] as number] as number;
    }
  });
}

/** float32 bits of the 256 values of one message. */
function stepTable({ scale, zero }: Affine): Uint32Array {
  return new Uint32Array(Float32Array.from({ length: 256 }, (_, q) => (q - zero) * scale).buffer);
}

/** Throws TENSOR_INVALID unless `box` lies in `holder` and the holder's bytes are `length`. */
export function checkInside(holder: Box, box: Box, length: number, itemSize: number): void {
  const rank = holder.start.length;
  const want = boxElements(holder) * itemSize;
  let inside = box.start.length === rank && box.end.length === rank && want === length;
  for (let axis = 0; inside && axis < rank; axis++) {
    const [from, to] = [box.start[axis] ?? 0, box.end[axis] ?? 0];
    inside = (holder.start[axis] ?? 0) <= from && from <= to && to <= (holder.end[axis] ?? 0);
  }
  if (inside) return;
  throw new ChairError('TENSOR_INVALID', 'box is not inside its holder, or the holder has the wrong length', {
    expected: `a box in [${holder.start.join(',')}]..[${holder.end.join(',')}] and ${want} bytes`,
    came: `[${box.start.join(',')}]..[${box.end.join(',')}] and ${length} bytes`,
  });
}

// ---- IEEE 754 binary16 -----------------------------------------------------------------------------------------------------

/** float32 bits to float16 bits, to the nearest, ties to even. Beyond 65,504 becomes infinite, as IEEE 754 says. */
export function toHalf(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  // Ordinary numbers, nearly all there are: move the exponent, and carry into what stays from what is cut off.
  if (magnitude >= 0x38800000 && magnitude < 0x477ff000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  if (magnitude === 0) return sign;
  const exponent = ((word >>> 23) & 0xff) - 112;
  const mantissa = word & 0x7fffff;
  if (exponent === 143) return sign | 0x7c00 | (mantissa === 0 ? 0 : 0x200);
  if (exponent >= 31) return sign | 0x7c00;
  if (exponent < -10) return sign;
  // Subnormal halves carry the implicit one in the mantissa and no exponent.
  const full = exponent <= 0 ? mantissa | 0x800000 : mantissa;
  const shift = exponent <= 0 ? 14 - exponent : 13;
  const half = (Math.max(exponent, 0) << 10) | (full >>> shift);
  const rest = full & ((1 << shift) - 1);
  const tie = 1 << (shift - 1);
  return sign | (half + (rest > tie || (rest === tie && (half & 1) === 1) ? 1 : 0));
}

/** float16 bits to float32 bits. */
export function fromHalf(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 31) return (sign | 0x7f800000 | (mantissa << 13)) >>> 0;
  if (exponent > 0) return (sign | ((exponent + 112) << 23) | (mantissa << 13)) >>> 0;
  if (mantissa === 0) return sign >>> 0;
  // Subnormal: shift the leading one into the implicit place.
  const shift = Math.clz32(mantissa) - 21;
  return (sign | ((113 - shift) << 23) | (((mantissa << shift) & 0x3ff) << 13)) >>> 0;
}

let halves: Uint32Array | undefined;

/** All 65,536 conversions (256 KiB), made when the first float16 message comes. */
function halfTable(): Uint32Array {
  halves ??= Uint32Array.from({ length: 65536 }, (_, half) => fromHalf(half));
  return halves;
}
