/** Seeded pseudo-random numbers, so that random weights and random inputs are the same on every machine and in every run. */

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
 * Float values for an image-like tensor `[..., H, W]` in about [-2, 2]: random blocks of 1/12 of each side, with noise on top. Plain noise is no image: averaged over a
 * receptive field it is the same everywhere and for every seed, so a comparison on it would show nothing.
 */
export function randomImage(dims: readonly number[], seed: number): Float32Array<ArrayBuffer> {
  const random = createRandom(seed);
  const count = dims.reduce((a, b) => a * b, 1);
  const out = new Float32Array(count);
  const w = dims.at(-1) ?? 1;
  const h = dims.length > 1 ? (dims.at(-2) ?? 1) : 1;
  const cells = 12;
  const blocks = new Float32Array(cells * cells);
  for (let plane = 0; plane < count; plane += h * w) {
    for (let i = 0; i < blocks.length; i++) blocks[i] = (random() - 0.5) * 3;
    for (let i = 0; i < h * w; i++) {
      const cell = Math.floor((Math.floor(i / w) * cells) / h) * cells + Math.floor(((i % w) * cells) / w);
      out[plane + i] = (blocks[cell] ?? 0) + random() - 0.5;
    }
  }
  return out;
}
