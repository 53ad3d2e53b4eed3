/** Seeded pseudo-random numbers, so that random weights and random inputs are the same on every machine and in every run. */
import { allocTensor, type DType, itemBytes, type Tensor } from '../broker/tensor.js';

/** Numbers uniform in [0, 1): mulberry32 (32 bits of state, good enough for weights and test inputs; not for secrets). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A seed for one named thing (a weight, an input) under a general seed: FNV-1a over the text, so that order of use does not matter. */
export function seedFor(seed: number, name: string): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193) >>> 0;
  // Two rounds of avalanche: names that differ in one character must not give correlated streams.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35) >>> 0;
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * Float values for an image-like tensor `[..., H, W]` in about [-2.5, 2.5]: random patches, lines of dark marks like writing on bright ground, and noise. Plain noise is
 * no image: averaged over a receptive field it is the same everywhere and for every seed, and a detector of text answers it with zeros; a comparison would show nothing.
 */
export function randomImage(dims: readonly number[], seed: number): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  const count = dims.reduce((a, b) => a * b, 1);
  const out = new Float32Array(count);
  const w = dims.at(-1) ?? 1;
  const h = dims.length > 1 ? (dims.at(-2) ?? 1) : 1;
  const ink = writing(h, w, random);
  const cells = 12;
  const blocks = new Float32Array(cells * cells);
  for (let plane = 0; plane < count; plane += h * w) {
    for (let i = 0; i < blocks.length; i++) blocks[i] = (random() - 0.5) * 3;
    for (let i = 0; i < h * w; i++) {
      const cell = Math.floor((Math.floor(i / w) * cells) / h) * cells + Math.floor(((i % w) * cells) / w);
      const mark = ink[i] ?? 0;
      out[plane + i] = (mark === 0 ? (blocks[cell] ?? 0) : 2 * mark) + (random() - 0.5) * 0.5;
    }
  }
  return out;
}

/** Lines of marks: 0 where nothing is written, 1 for the ground of a line, -1 for its strokes. `[h, w]` */
function writing(h: number, w: number, random: () => number): Int8Array {
  const ink = new Int8Array(h * w);
  const bar = (top: number, left: number, height: number, width: number, value: number) => {
    for (let y = Math.max(0, top); y < Math.min(h, top + height); y++)
      ink.fill(value, y * w + Math.min(w, left), y * w + Math.min(w, left + width));
  };
  const lines = Math.max(1, Math.floor(h / (36 + 24 * random())));
  for (let line = 0; line < lines; line++) {
    const size = Math.max(2, Math.floor(Math.min(h, 48) * (0.3 + 0.4 * random())));
    const top = Math.floor(((line + 0.1 + 0.2 * random()) * h) / lines);
    const left = Math.floor(w * 0.3 * random());
    const length = Math.floor((w - left) * (0.5 + 0.4 * random()));
    bar(top, left, size, length, 1);
    const stroke = Math.max(1, Math.floor(size / 8));
    for (let x = left + stroke; x < left + length - size; x += Math.max(2, Math.floor(size * 0.6))) {
      const glyph = Math.floor(random() * 32);
      const [y, tall, wide] = [top + stroke, size - 2 * stroke, Math.max(1, Math.floor(size * 0.4))];
      if (glyph & 1) bar(y, x, tall, stroke, -1);
      if (glyph & 2) bar(y, x + wide - stroke, tall, stroke, -1);
      if (glyph & 4) bar(y, x, stroke, wide, -1);
      if (glyph & 8) bar(y + Math.floor(tall / 2), x, stroke, wide, -1);
      if (glyph & 16) bar(y + tall - stroke, x, stroke, wide, -1);
    }
  }
  return ink;
}

/** Random values a model may well be given: images for floats, bytes over the whole range, 0 and 1 for other integers (they are often indices) and for bool. */
export function randomTensor(
  info: { readonly name: string; readonly dtype: DType; readonly dims: readonly number[] },
  seed: number,
): Tensor {
  const own = seedFor(seed, info.name);
  const tensor = allocTensor(info.dtype, info.dims);
  const { buffer } = tensor.bytes;
  if (info.dtype === 'float32') new Float32Array(buffer).set(randomImage(info.dims, own));
  else if (info.dtype === 'float64') new Float64Array(buffer).set(randomImage(info.dims, own));
  else if (info.dtype === 'float16') new Uint16Array(buffer).set(randomImage(info.dims, own).map(halfBits));
  else if (info.dtype === 'bfloat16')
    new Uint16Array(buffer).set(new Uint16Array(randomImage(info.dims, own).buffer).filter((_, i) => i % 2 === 1));
  else {
    const random = createRandom(own);
    const bytes = info.dtype === 'uint8' || info.dtype === 'int8';
    const step = itemBytes(info.dtype);
    for (let i = 0; i < tensor.bytes.length; i += step) tensor.bytes[i] = Math.floor(random() * (bytes ? 256 : 2));
  }
  return tensor;
}

/** Bits of the IEEE 754 binary16 nearest below in magnitude; for values of at least 2^-14 and below 65504, smaller ones become 0. */
function halfBits(value: number): number {
  const magnitude = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  if (magnitude < 2 ** -14) return sign;
  const exponent = Math.floor(Math.log2(magnitude));
  return sign | ((exponent + 15) << 10) | Math.floor((magnitude / 2 ** exponent - 1) * 1024);
}
