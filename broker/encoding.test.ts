import fc from 'fast-check';
import { describe, expect, it, test } from 'vitest';
import { affineOf, canEncode, carried, encodedItemBytes, fittingEncoding, fromHalf, gather, toHalf } from './encoding.js';
import type { DType } from './tensor.js';
import { type Box, wholeBox } from './tensor.js';

const bytesOf = (values: ArrayLike<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const floatsOf = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const send = (encoding: 'float16' | 'uint8', values: ArrayLike<number>): Float32Array =>
  floatsOf(carried(encoding, 'float32', bytesOf(values), wholeBox([values.length]), wholeBox([values.length])));

/** Of any magnitude, with zeros and equal values among them; some all of one sign, some far from 0 and close together. */
const values = fc
  .tuple(
    fc.array(fc.oneof(fc.constant(0), fc.float({ noNaN: true, noDefaultInfinity: true, min: -1, max: 1 })), {
      minLength: 1,
      maxLength: 400,
    }),
    fc.integer({ min: -12, max: 4 }),
    fc.constantFrom(-1e4, -3, 0, 0, 0, 2, 1e4),
  )
  .map(([units, exponent, centre]) => Float32Array.from(units, (unit) => unit * 10 ** exponent + centre * 10 ** exponent));

/** float32 has 24 bits, fewer the nearer to zero below 2^-126: what is lost by rounding the decoded value to it. */
const rounding = (value: number): number => Math.max(Math.abs(value) * 2 ** -23, 2 ** -149);

describe('uint8', () => {
  test('no value is off by more than half a step, a step being at most 1/254 of the range', () => {
    fc.assert(
      fc.property(values, (given) => {
        const whole = wholeBox([given.length]);
        const { scale } = affineOf(bytesOf(given), whole, whole);
        const [low, high] = [Math.min(...given), Math.max(...given)];
        if (high > low) expect(scale).toBeLessThanOrEqual(((high - low) / 254) * (1 + 1e-12));
        const got = send('uint8', given);
        given.forEach((value, i) => {
          const limit = (high > low ? scale / 2 : 0) * (1 + 1e-9) + rounding(Math.max(Math.abs(low), Math.abs(high)));
          expect(Math.abs((got[i] as number) - value)).toBeLessThanOrEqual(limit);
        });
      }),
      { numRuns: 400 },
    );
  });

  test('keeps the order of values, and meets zero exactly where it lies within them', () => {
    fc.assert(
      fc.property(values, (given) => {
        const got = send('uint8', given);
        const order = [...given.keys()].sort((a, b) => (given[a] as number) - (given[b] as number));
        for (let i = 1; i < order.length; i++)
          expect(got[order[i] as number]).toBeGreaterThanOrEqual(got[order[i - 1] as number] as number);
        given.forEach((value, i) => {
          if (value === 0) expect(Math.abs(got[i] as number)).toBe(0);
        });
      }),
      { numRuns: 400 },
    );
  });

  test('sent again with the same scale and zero, the same bytes travel', () => {
    fc.assert(
      fc.property(values, (given) => {
        const whole = wholeBox([given.length]);
        const affine = affineOf(bytesOf(given), whole, whole);
        const sent = gather(bytesOf(given), whole, whole, 4, 'uint8', affine);
        const again = gather(bytesOf(send('uint8', given)), whole, whole, 4, 'uint8', affine);
        // Far from zero a float32 cannot hold all steps: there the bytes may differ by the rounding.
        const exact = rounding(Math.max(...given.map(Math.abs))) / 2 < affine.scale / 4;
        if (exact) expect([...again]).toEqual([...sent]);
      }),
    );
  });

  it('gives a constant back exactly, and an empty box', () => {
    for (const constant of [0, -0.1, 7.3, 1e-30, -3e38]) {
      expect([...send('uint8', [constant, constant])]).toEqual([Math.fround(constant), Math.fround(constant)]);
    }
    expect(send('uint8', []).length).toBe(0);
  });

  it('carries float16 tensors in half their bytes, and no other dtype', () => {
    const halves = Uint16Array.from([0, 0.5, -2, 1.25, 3], (value) => toHalf(new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0));
    const box = wholeBox([5]);
    const got = new Uint16Array(carried('uint8', 'float16', new Uint8Array(halves.buffer), box, box).buffer);
    const back = (bits: number): number => new Float32Array(Uint32Array.of(fromHalf(bits)).buffer)[0] ?? Number.NaN;
    [0, 0.5, -2, 1.25, 3].forEach((value, i) => {
      expect(Math.abs(back(got[i] as number) - value)).toBeLessThanOrEqual(5 / 508 + 3 / 1024);
    });
    expect(back(got[0] as number)).toBe(0);
    expect(encodedItemBytes('uint8', 2)).toBe(1);
    for (const dtype of ['int32', 'uint8', 'bfloat16', 'float64', 'bool'] as DType[]) expect(canEncode('uint8', dtype)).toBe(false);
    expect(canEncode('float16', 'float16')).toBe(false);
  });
});

describe('float16', () => {
  test('is off by no more than 1/2048 of the largest magnitude, keeps order, and sent again changes nothing', () => {
    fc.assert(
      fc.property(values, (given) => {
        const whole = wholeBox([given.length]);
        const fitting = fittingEncoding('float16', 'float32', bytesOf(given), whole, whole);
        const peak = Math.max(...given.map(Math.abs));
        const got = send('float16', given);
        if (fitting.encoding === 'raw') {
          expect(fitting.why).not.toBe('');
          expect([...got]).toEqual([...given]);
          return;
        }
        given.forEach((value, i) => {
          expect(Math.abs((got[i] as number) - value)).toBeLessThanOrEqual(peak / 2048);
        });
        expect([...send('float16', got)]).toEqual([...got]);
      }),
      { numRuns: 400 },
    );
  });
});

describe('values that an encoding cannot carry', () => {
  const whole = wholeBox([3]);
  const tryOut = (encoding: 'float16' | 'uint8', given: readonly number[]) =>
    fittingEncoding(encoding, 'float32', bytesOf(given), whole, whole);

  it.each([
    ['uint8', [1, Number.NaN, 2]],
    ['uint8', [1, Number.POSITIVE_INFINITY, 2]],
    ['uint8', [1, Number.NEGATIVE_INFINITY, 2]],
    ['uint8', [-3.4028234e38, 0, 3.4028234e38]],
    ['float16', [1, Number.NaN, 2]],
    ['float16', [1, 65_520, 2]],
    ['float16', [1e-6, -2e-6, 0]],
  ] as const)('travel raw, with a reason: %s of %j', (encoding, given) => {
    const fitting = tryOut(encoding, given);
    expect(fitting.encoding).toBe('raw');
    expect(fitting.why).not.toBe('');
    expect(Object.is(send(encoding, given)[1], Math.fround(given[1]))).toBe(true);
  });

  it('only count within the box that is sent', () => {
    const holder = wholeBox([2, 3]);
    const box: Box = { start: [1, 0], end: [2, 3] };
    expect(fittingEncoding('uint8', 'float32', bytesOf([Number.NaN, 0, 0, 1, 2, 3]), holder, box).encoding).toBe('uint8');
  });
});
