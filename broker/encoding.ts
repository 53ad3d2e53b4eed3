/** Bytes of one box on the wire: raw for any dtype, float16 or affine uint8 for float32. One pass to gather, one pass to scatter. */
import { ChairError } from './errors.js';
import type { Encoding } from './messages.js';
import type { SegmentReader } from './segments.js';
import { type Box, boxDims, elementCount, forEachRun } from './tensor.js';

/** For `uint8`: value = (q - zero) * scale. Ignored by the other encodings. */
export interface Affine {
  readonly scale: number;
  readonly zero: number;
}

/** Bytes of one element on the wire; `itemSize` is the dtype's. */
export function encodedItemBytes(encoding: Encoding, itemSize: number): number {
  return encoding === 'raw' ? itemSize : encoding === 'float16' ? 2 : 1;
}

/** Runs up to this length are copied word by word: below it a call to `set` costs more than the bytes. */
const SHORT_RUN_BYTES = 48;

/**
 * `box` out of a dense holder. Raw and contiguous: a view of `source`, no copy. Else one copy.
 * The holder's bytes must not change until the message is sent.
 */
export function gather(source: Uint8Array, holder: Box, box: Box, itemSize: number, encoding: Encoding, affine: Affine): Uint8Array {
  const count = elementCount(boxDims(box));
  if (encoding !== 'raw') return gatherConverted(floatsOf(source), holder, box, count, encoding, affine);
  const sizeBytes = count * itemSize;
  if (sizeBytes === 0) return new Uint8Array(0);
  let target: Uint8Array | undefined;
  let view: Uint8Array | undefined;
  let words: { from: Uint32Array; to: Uint32Array } | undefined;
  let at = 0;
  forEachRun(holder, box, itemSize, (offset, length) => {
    if (length === sizeBytes) {
      view = source.subarray(offset, offset + length);
      return;
    }
    if (target === undefined) {
      target = Buffer.allocUnsafeSlow(sizeBytes);
      const short = length <= SHORT_RUN_BYTES && itemSize % 4 === 0 && source.byteOffset % 4 === 0;
      if (short)
        words = { from: new Uint32Array(source.buffer, source.byteOffset, source.length >> 2), to: new Uint32Array(target.buffer) };
    }
    if (words !== undefined) copyWords(words.from, offset >> 2, words.to, at >> 2, length >> 2);
    else target.set(source.subarray(offset, offset + length), at);
    at += length;
  });
  return view ?? target ?? new Uint8Array(0);
}

function copyWords(from: Uint32Array, fromAt: number, to: Uint32Array, toAt: number, count: number): void {
  for (let i = 0; i < count; i++) to[toAt + i] = from[fromAt + i] as number;
}

/** float32 view; a copy only when the bytes are not aligned (never for tensors of our own making). */
function floatsOf(bytes: Uint8Array): Float32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : Uint8Array.from(bytes);
  return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.length >> 2);
}

function gatherConverted(
  from: Float32Array,
  holder: Box,
  box: Box,
  count: number,
  encoding: 'float16' | 'uint8',
  affine: Affine,
): Uint8Array {
  const half = new Uint16Array(encoding === 'float16' ? count : 0);
  // Clamped arrays round to the nearest and keep 0..255 (NaN becomes 0).
  const bytes = new Uint8ClampedArray(encoding === 'uint8' ? count : 0);
  const words = new Uint32Array(from.buffer, from.byteOffset, from.length);
  let at = 0;
  forEachRun(holder, box, 4, (offset, length) => {
    const start = offset >> 2;
    const end = start + (length >> 2);
    if (encoding === 'float16') for (let i = start; i < end; i++) half[at++] = toHalf(words[i] ?? 0);
    else for (let i = start; i < end; i++) bytes[at++] = (from[i] ?? 0) / affine.scale + affine.zero;
  });
  return encoding === 'float16' ? new Uint8Array(half.buffer) : new Uint8Array(bytes.buffer);
}

/**
 * Scale and zero for the `uint8` encoding of a box of float32: the range of its values, widened to hold 0, which is then met exactly.
 * Throws TENSOR_INVALID when a value is not finite.
 */
export function affineOf(source: Uint8Array, holder: Box, box: Box): Affine {
  const from = floatsOf(source);
  let low = 0;
  let high = 0;
  let finite = true;
  forEachRun(holder, box, 4, (offset, length) => {
    for (let i = offset >> 2; i < (offset + length) >> 2; i++) {
      const value = from[i] ?? 0;
      if (value < low) low = value;
      else if (value > high) high = value;
      else if (Number.isNaN(value)) finite = false;
    }
  });
  if (!finite || high - low === Number.POSITIVE_INFINITY) {
    throw new ChairError('TENSOR_INVALID', 'uint8 encoding needs finite values', { came: `${finite ? 'infinity' : 'NaN'}` });
  }
  const scale = (high - low) / 255;
  return scale === 0 ? { scale: 1, zero: 0 } : { scale, zero: Math.round(-low / scale) };
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
  const want = elementCount(boxDims(box)) * encodedItemBytes(wire.encoding, itemSize);
  if (data.bytesLeft !== want) {
    throw new ChairError('CODEC_INVALID', 'message data does not fill its box', {
      expected: `${want} bytes for [${boxDims(box).join(',')}]`,
      came: `${data.bytesLeft}`,
    });
  }
  if (wire.encoding === 'raw') forEachRun(targetBox, box, itemSize, (offset, length) => data.copyTo(target, offset, length));
  else scatterConverted(data, wire.encoding, wire, target, targetBox, box);
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
  const to = new Float32Array(target.buffer, target.byteOffset, target.length >> 2);
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length >> 2);
  const itemBytes = encodedItemBytes(encoding, 4);
  const chunk = new Uint8Array(CHUNK_ITEMS * itemBytes);
  const halves = new Uint16Array(chunk.buffer, 0, itemBytes === 2 ? CHUNK_ITEMS : 0);
  const table = encoding === 'float16' ? halfTable() : undefined;
  forEachRun(targetBox, box, 4, (offset, length) => {
    const end = (offset + length) >> 2;
    for (let at = offset >> 2; at < end; at += CHUNK_ITEMS) {
      const count = Math.min(CHUNK_ITEMS, end - at);
      data.copyTo(chunk, 0, count * itemBytes);
      if (table !== undefined) for (let i = 0; i < count; i++) bits[at + i] = table[halves[i] ?? 0] ?? 0;
      else for (let i = 0; i < count; i++) to[at + i] = ((chunk[i] ?? 0) - affine.zero) * affine.scale;
    }
  });
}

/** Throws TENSOR_INVALID unless `box` lies in `holder` and the holder's bytes are `length`. */
export function checkInside(holder: Box, box: Box, length: number, itemSize: number): void {
  const rank = holder.start.length;
  const want = elementCount(boxDims(holder)) * itemSize;
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
