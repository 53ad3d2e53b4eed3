import { describe, expect, it } from 'vitest';
import type { DType, Tensor } from '../../broker/tensor.js';
import { agrees, compare, tensorValues } from './compare.js';

function tensor(dtype: DType, view: ArrayBufferView, dims?: readonly number[]): Tensor {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return { dtype, dims: dims ?? [(view as unknown as ArrayLike<number>).length], bytes };
}
const floats = (...values: number[]) => tensor('float32', Float32Array.from(values));

describe('comparing outputs', () => {
  it('finds equal outputs bit-equal', () => {
    const c = compare({ y: floats(1, -2, 3) }, { y: floats(1, -2, 3) });
    expect(c).toEqual({ maxAbsDiff: 0, maxRelDiff: 0, bitEqual: true, comparable: true });
  });

  it('takes a difference relative to the largest magnitude of the same output', () => {
    const c = compare({ y: floats(0.5, -4), z: floats(100) }, { y: floats(0.5, -4.25), z: floats(100) });
    expect(c.maxAbsDiff).toBe(0.25);
    expect(c.maxRelDiff).toBe(0.0625);
    expect(agrees(c)).toBe(false);
    expect(agrees(compare({ y: floats(1000) }, { y: floats(1000.0625) }))).toBe(true);
  });

  it('does not call a difference from zeros small', () => {
    expect(agrees(compare({ y: floats(0, 0) }, { y: floats(0, 1e-9) }))).toBe(false);
  });

  it.each([
    ['a missing output', {}],
    ['another shape', { y: tensor('float32', Float32Array.of(1, 2), [2, 1]) }],
    ['another dtype', { y: tensor('int32', Int32Array.of(1, 2)) }],
    ['NaN where a number should be', { y: floats(1, Number.NaN) }],
    ['an infinity where a number should be', { y: floats(1, Number.POSITIVE_INFINITY) }],
  ])('never agrees with %s', (_, actual) => {
    const c = compare({ y: floats(1, 2) }, actual);
    expect(c.comparable).toBe(false);
    expect(c.problem).toContain('y');
    expect(agrees(c)).toBe(false);
  });

  it('lets NaN and infinities stand where the whole model has them', () => {
    const values = [Number.NaN, Number.NEGATIVE_INFINITY, 2];
    expect(agrees(compare({ y: floats(...values) }, { y: floats(...values) }))).toBe(true);
    expect(agrees(compare({ y: floats(...values) }, { y: floats(Number.NaN, Number.POSITIVE_INFINITY, 2) }))).toBe(false);
  });

  it('reads every dtype', () => {
    const half = tensor('float16', Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7c00));
    expect([...(tensorValues(half) as Float32Array)]).toEqual([1, -2, 2 ** -24, Number.POSITIVE_INFINITY]);
    expect([...(tensorValues(tensor('bfloat16', Uint16Array.of(0x3f80, 0xc040))) as Float32Array)]).toEqual([1, -3]);
    expect(compare({ y: tensor('int64', BigInt64Array.of(5n, -7n)) }, { y: tensor('int64', BigInt64Array.of(5n, -6n)) }).maxAbsDiff).toBe(
      1,
    );
    const large = (n: bigint) => ({ y: tensor('int64', BigInt64Array.of(n)) });
    expect(compare(large(2n ** 53n), large(2n ** 53n + 1n)).maxAbsDiff).toBe(1);
    expect(agrees(compare({ y: tensor('bool', Uint8Array.of(1, 0)) }, { y: tensor('bool', Uint8Array.of(1, 1)) }))).toBe(false);
  });
});
