import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ChairError } from './errors.js';
import { type Box, boxDims, checkTensor, copyBox, elementCount, forEachRun, intersectBoxes, tensorBytes, wholeBox } from './tensor.js';

/** A random holder box and a random non-empty box inside it, both in global coordinates. */
const nested = fc
  .array(fc.tuple(fc.nat(5), fc.integer({ min: 1, max: 6 }), fc.nat(100), fc.nat(100)), { minLength: 0, maxLength: 4 })
  .map((axes) => {
    const holder: Box = { start: axes.map(([s]) => s), end: axes.map(([s, n]) => s + n) };
    const start = axes.map(([s, n, a]) => s + (a % n));
    const end = axes.map(([s, n, , b], i) => (start[i] ?? 0) + 1 + (b % (s + n - (start[i] ?? 0))));
    return { holder, box: { start, end } };
  });

/** Element index of a global coordinate in a dense holder. */
function at(holder: Box, index: readonly number[]): number {
  return boxDims(holder).reduce((sum, n, axis) => sum * n + (index[axis] ?? 0) - (holder.start[axis] ?? 0), 0);
}

function* coordinates(box: Box): Generator<number[]> {
  const dims = boxDims(box);
  for (let i = 0; i < elementCount(dims); i++) {
    const index: number[] = [];
    let rest = i;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      index[axis] = (box.start[axis] ?? 0) + (rest % (dims[axis] ?? 1));
      rest = Math.floor(rest / (dims[axis] ?? 1));
    }
    yield index;
  }
}

describe('boxes', () => {
  it('visits every byte of a box once, in row-major order', () => {
    fc.assert(
      fc.property(nested, fc.constantFrom(1, 2, 4, 8), ({ holder, box }, itemSize) => {
        const bytes: number[] = [];
        forEachRun(holder, box, itemSize, (offset, length) => {
          for (let i = 0; i < length; i++) bytes.push(offset + i);
        });
        const want: number[] = [];
        for (const index of coordinates(box)) for (let i = 0; i < itemSize; i++) want.push(at(holder, index) * itemSize + i);
        expect(bytes).toEqual(want);
      }),
    );
  });

  it('copies a box between two holders element for element and touches nothing else', () => {
    fc.assert(
      fc.property(
        nested,
        nested,
        fc.constantFrom(1, 2, 4, 8, 40),
        fc.nat(3),
        fc.nat(3),
        ({ holder: a }, { holder: b }, item, skip, skipTarget) => {
          if (a.start.length !== b.start.length) return;
          const box = intersectBoxes(a, b);
          if (box === undefined) return;
          // Neither need be aligned.
          const source = Uint8Array.from({ length: skip + elementCount(boxDims(a)) * item }, (_, i) => (i * 7 + 1) & 0xff).subarray(skip);
          const whole = new Uint8Array(skipTarget + elementCount(boxDims(b)) * item + 1).fill(0xee);
          const want = whole.slice();
          for (const index of coordinates(box)) {
            const from = at(a, index) * item;
            want.set(source.subarray(from, from + item), skipTarget + at(b, index) * item);
          }
          copyBox(source, a, whole.subarray(skipTarget, -1), b, box, item);
          expect(whole).toEqual(want);
        },
      ),
    );
  });

  it('has no common box when one axis does not overlap', () => {
    expect(intersectBoxes({ start: [0, 0], end: [4, 4] }, { start: [4, 0], end: [8, 4] })).toBeUndefined();
    expect(intersectBoxes({ start: [0, 2], end: [4, 4] }, { start: [3, 0], end: [8, 3] })).toEqual({ start: [3, 2], end: [4, 3] });
  });

  it('treats a scalar as a tensor of one element', () => {
    expect(tensorBytes('int64', [])).toBe(8);
    const runs: number[][] = [];
    forEachRun(wholeBox([]), wholeBox([]), 8, (...run) => runs.push(run));
    expect(runs).toEqual([[0, 8]]);
  });
});

describe('checkTensor', () => {
  it('refuses bytes that do not fit the shape, and says both', () => {
    expect(() => checkTensor({ dtype: 'float32', dims: [2, 3], bytes: new Uint8Array(20) }, 'input x')).toThrow(
      expect.objectContaining({ code: 'TENSOR_INVALID', message: expect.stringMatching(/input x.*24 bytes.*20 bytes/s) }) as ChairError,
    );
    expect(() => checkTensor({ dtype: 'float32', dims: [-1, -6], bytes: new Uint8Array(24) })).toThrow(ChairError);
  });
});
