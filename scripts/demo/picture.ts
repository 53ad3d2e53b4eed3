/** Pictures as plain RGB bytes, and cutting a turned line of text out of one. */
import type { TurnedRectangle } from './geometry.js';

/** uint8 RGB, row-major: `[height, width, 3]`. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

export function emptyPicture(width: number, height: number, grey: number): Picture {
  return { width, height, rgb: new Uint8Array(width * height * 3).fill(grey) };
}

/** Bilinear sample at (x, y) with the border repeated, written to `out[at .. at + 3)`. */
function sample(picture: Picture, x: number, y: number, out: Uint8Array, at: number): void {
  const cx = Math.min(Math.max(x, 0), picture.width - 1);
  const cy = Math.min(Math.max(y, 0), picture.height - 1);
  const x0 = Math.floor(cx);
  const y0 = Math.floor(cy);
  const right = x0 + 1 < picture.width ? 3 : 0;
  const down = y0 + 1 < picture.height ? picture.width * 3 : 0;
  const [fx, fy] = [cx - x0, cy - y0];
  const base = (y0 * picture.width + x0) * 3;
  for (let c = 0; c < 3; c++) {
    const from = base + c;
    const top = (picture.rgb[from] ?? 0) * (1 - fx) + (picture.rgb[from + right] ?? 0) * fx;
    const bottom = (picture.rgb[from + down] ?? 0) * (1 - fx) + (picture.rgb[from + down + right] ?? 0) * fx;
    out[at + c] = Math.round(top * (1 - fy) + bottom * fy);
  }
}

/**
 * Cuts a turned rectangle out and lays it straight, `height` pixels high, width in proportion. Text that runs upwards (more than 1.5 times
 * as high as wide) is turned a quarter first, as PP-OCR does.
 */
export function straighten(picture: Picture, r: TurnedRectangle, height: number): Picture {
  const upright = r.height <= 1.5 * r.width;
  const angle = upright ? r.angle : r.angle - Math.PI / 2;
  const [w, h] = upright ? [r.width, r.height] : [r.height, r.width];
  const width = Math.max(1, Math.round((w * height) / Math.max(h, 1)));
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const u = ((x + 0.5) / width - 0.5) * w;
      const v = ((y + 0.5) / height - 0.5) * h;
      sample(picture, r.centre.x + u * cos - v * sin - 0.5, r.centre.y + u * sin + v * cos - 0.5, rgb, (y * width + x) * 3);
    }
  }
  return { width, height, rgb };
}

/** Columns `[start, end)`. */
export function columns(picture: Picture, start: number, end: number): Picture {
  const rgb = new Uint8Array((end - start) * picture.height * 3);
  for (let y = 0; y < picture.height; y++) {
    const from = (y * picture.width + start) * 3;
    rgb.set(picture.rgb.subarray(from, from + (end - start) * 3), y * (end - start) * 3);
  }
  return { width: end - start, height: picture.height, rgb };
}

/** The picture at the left of one `width` wide; the rest is middle grey, which normalises to zero. */
export function padRight(picture: Picture, width: number): Picture {
  const padded = emptyPicture(width, picture.height, 128);
  for (let y = 0; y < picture.height; y++) {
    padded.rgb.set(picture.rgb.subarray(y * picture.width * 3, (y + 1) * picture.width * 3), y * width * 3);
  }
  return padded;
}

/** How much each column differs from a flat one: the spread of its brightness, 0 to 255. */
function columnInk(picture: Picture): Float32Array {
  const ink = new Float32Array(picture.width);
  for (let x = 0; x < picture.width; x++) {
    let [low, high] = [255, 0];
    // The outer rows often show the edge of the sign, not text.
    for (let y = Math.floor(picture.height * 0.15); y < picture.height * 0.85; y++) {
      const at = (y * picture.width + x) * 3;
      const light = ((picture.rgb[at] ?? 0) + (picture.rgb[at + 1] ?? 0) + (picture.rgb[at + 2] ?? 0)) / 3;
      low = Math.min(low, light);
      high = Math.max(high, light);
    }
    ink[x] = high - low;
  }
  return ink;
}

/**
 * Cuts a long line into pieces of at most `width` columns, each cut in the widest gap (flat columns) of the piece's second half: between two
 * words when there is such a gap.
 */
export function splitLine(picture: Picture, width: number): Picture[] {
  if (picture.width <= width) return [picture];
  const ink = columnInk(picture);
  const flat = Math.max(24, 0.35 * ink.reduce((max, v) => Math.max(max, v), 0));
  const pieces: Picture[] = [];
  let start = 0;
  while (picture.width - start > width) {
    const cut = widestGap(ink, start + Math.floor(width / 2), start + width, flat);
    pieces.push(columns(picture, start, cut));
    start = cut;
  }
  return [...pieces, columns(picture, start, picture.width)];
}

/** Middle of the longest run below `flat` in `[from, to)`; `to` when there is none. */
function widestGap(ink: Float32Array, from: number, to: number, flat: number): number {
  let best = { length: 0, middle: to };
  let run = 0;
  for (let x = from; x < to; x++) {
    run = (ink[x] ?? 0) < flat ? run + 1 : 0;
    if (run >= best.length && run > 0) best = { length: run, middle: x - Math.floor(run / 2) };
  }
  return best.middle;
}
