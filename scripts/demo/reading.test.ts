import { describe, expect, it } from 'vitest';
import { decodeCtc, readDictionary } from './ctc.js';
import { floats, largestDifference } from './ocr.js';
import { imageTensor } from './one-machine.js';
import { columns, emptyPicture, type Picture, padRight, splitLine, straighten } from './picture.js';

/** Brightness by (x, y). */
function draw(width: number, height: number, light: (x: number, y: number) => number): Picture {
  const picture = emptyPicture(width, height, 0);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) picture.rgb.fill(light(x, y), (y * width + x) * 3, (y * width + x + 1) * 3);
  return picture;
}

describe('CTC decoding', () => {
  const dictionary = readDictionary('a\nb\n');
  const steps = (classes: readonly number[]): Float32Array =>
    Float32Array.from(classes.flatMap((c) => [0, 1, 2, 3].map((k) => (k === c ? 0.7 : 0.1))));

  it('puts the blank first and the space last', () => {
    expect(dictionary).toEqual(['', 'a', 'b', ' ']);
  });

  it('merges repeats, keeps doubles that a blank parts, and drops blanks', () => {
    expect(decodeCtc(steps([0, 1, 1, 0, 1, 2, 2, 3, 1, 0]), 4, dictionary).text).toBe('aab a');
  });

  it('gives the mean probability of the characters, 0 for none', () => {
    expect(decodeCtc(steps([1, 0, 2]), 4, dictionary).confidence).toBeCloseTo(0.7);
    expect(decodeCtc(steps([0, 0]), 4, dictionary)).toEqual({ text: '', confidence: 0 });
  });
});

describe('straightening', () => {
  it('copies an upright rectangle of the right size exactly', () => {
    const picture = draw(40, 30, (x, y) => x * 5 + y);
    const cut = straighten(picture, { centre: { x: 15, y: 12 }, width: 20, height: 10, angle: 0 }, 10);
    expect([cut.width, cut.height]).toEqual([20, 10]);
    expect(cut.rgb[0]).toBe(5 * 5 + 7);
    expect(cut.rgb.at(-1)).toBe(24 * 5 + 16);
  });

  it('turns a slanted line straight', () => {
    const angle = 0.3;
    const picture = draw(100, 100, (x, y) => (Math.abs((y - 50) * Math.cos(angle) - (x - 50) * Math.sin(angle)) < 3 ? 255 : 0));
    const cut = straighten(picture, { centre: { x: 50.5, y: 50.5 }, width: 60, height: 20, angle }, 20);
    for (const x of [5, 30, 55]) {
      expect(cut.rgb[(10 * cut.width + x) * 3]).toBeGreaterThan(200);
      expect(cut.rgb[(2 * cut.width + x) * 3]).toBeLessThan(20);
    }
  });

  it('lays text that runs upwards on its side', () => {
    const cut = straighten(emptyPicture(50, 50, 9), { centre: { x: 25, y: 25 }, width: 10, height: 40, angle: 0 }, 10);
    expect([cut.width, cut.height]).toEqual([40, 10]);
  });
});

describe('lines of text', () => {
  it('are padded with the grey that normalises to about zero', () => {
    const padded = padRight(emptyPicture(3, 2, 7), 5);
    expect([...padded.rgb.subarray(0, 15)]).toEqual([7, 7, 7, 7, 7, 7, 7, 7, 7, 128, 128, 128, 128, 128, 128]);
  });

  it('are cut in the widest gap when they are too long, and nothing is lost', () => {
    // Strokes every 10 columns, a gap of 30 in the middle.
    const line = draw(500, 48, (x, y) => ((x < 230 || x >= 260) && x % 10 < 5 && y > 10 && y < 38 ? 255 : 0));
    const pieces = splitLine(line, 320);
    expect(pieces.map((p) => p.width).reduce((a, b) => a + b)).toBe(500);
    expect(pieces).toHaveLength(2);
    expect(pieces[0]?.width).toBeGreaterThanOrEqual(230);
    expect(pieces[0]?.width).toBeLessThanOrEqual(260);
    expect(columns(line, 0, pieces[0]?.width ?? 0).rgb).toEqual(pieces[0]?.rgb);
  });

  it('are cut anyway when there is no gap', () => {
    expect(
      splitLine(
        draw(700, 48, (x, y) => (x + y) % 255),
        320,
      ).every((p) => p.width <= 320),
    ).toBe(true);
  });
});

describe('image input on one machine', () => {
  const image = { input: 'x', height: 4, width: 4, order: 'bgr', mean: [0.5, 0.25, 0], std: [0.5, 1, 2] };

  it('orders and normalises the channels', () => {
    const picture: Picture = { width: 1, height: 1, rgb: Uint8Array.of(255, 51, 0) };
    expect([...floats(imageTensor(picture, image, [1, 3, 1, 1]))].map((v) => Math.round(v * 1e6) / 1e6)).toEqual([-1, -0.05, 0.5]);
  });

  it('resizes with half-pixel centres', () => {
    const picture = draw(4, 4, (x) => x * 20);
    const halved = floats(imageTensor(picture, { ...image, mean: [0, 0, 0], std: [1, 1, 1] }, [1, 3, 2, 2]));
    expect([...halved.subarray(0, 2)].map((v) => Math.round(v * 255))).toEqual([10, 50]);
  });
});

describe('the largest difference', () => {
  it('is infinite when shapes differ and exact otherwise', () => {
    const a = { dtype: 'float32' as const, dims: [2], bytes: new Uint8Array(Float32Array.of(1, 2).buffer) };
    const b = { ...a, bytes: new Uint8Array(Float32Array.of(1, 2.5).buffer) };
    expect(largestDifference([a], [b])).toBe(0.5);
    expect(largestDifference([a], [{ ...b, dims: [1, 2] }])).toBe(Number.POSITIVE_INFINITY);
    expect(largestDifference([a], [])).toBe(Number.POSITIVE_INFINITY);
  });
});
