import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Box, boxDims, elementCount, intersectBoxes } from '../../broker/tensor.js';
import { shareIntervals } from './interval.js';
import { groupPieces } from './rules/conv.js';
import { reshapeBand } from './rules/shape.js';
import { subtractBox } from './wiring.js';

describe('shares', () => {
  it('tile the extent in order, each bound within half a unit of its ideal', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 700 }),
        fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 9 }),
        (extent, shares) => {
          const total = shares.reduce((a, b) => a + b, 0);
          fc.pre(total > 0);
          let at = 0;
          let sum = 0;
          shareIntervals(extent, shares).forEach(([start, end], i) => {
            expect(start).toBe(at);
            at = end;
            sum += shares[i] ?? 0;
            expect(Math.abs(end - (extent * sum) / total)).toBeLessThanOrEqual(0.5 + 1e-6);
          });
          expect(at).toBe(extent);
        },
      ),
    );
  });
  it('that are equal divide a divisible extent equally', () => {
    expect(shareIntervals(160, [1, 1, 1, 1])).toEqual([
      [0, 40],
      [40, 80],
      [80, 120],
      [120, 160],
    ]);
  });
});

describe('boxes', () => {
  it('less a box inside are disjoint and complete', () => {
    const axis = fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 4, maxLength: 4 }).map((v) => [...v].sort((a, b) => a - b));
    fc.assert(
      fc.property(fc.array(axis, { minLength: 0, maxLength: 4 }), (axes) => {
        const outer = { start: axes.map((a) => a[0] ?? 0), end: axes.map((a) => (a[3] ?? 0) + 1) };
        const hole = { start: axes.map((a) => a[1] ?? 0), end: axes.map((a) => (a[2] ?? 0) + 1) };
        const rest = subtractBox(outer, hole);
        const count = (box: Box) => elementCount(boxDims(box));
        expect(rest.reduce((s, b) => s + count(b), 0)).toBe(count(outer) - count(hole));
        rest.forEach((a, i) => {
          expect(intersectBoxes(a, hole)).toBeUndefined();
          for (const b of rest.slice(i + 1)) expect(intersectBoxes(a, b)).toBeUndefined();
        });
      }),
    );
  });
});

describe('bands', () => {
  it('of channels and rows become blocks in a Flatten and come back', () => {
    const chw = [1, 8, 5, 7];
    expect(reshapeBand(chw, { axis: 1, outer: 1, inner: 1 }, [1, 280])).toEqual({ axis: 1, outer: 1, inner: 35 });
    expect(reshapeBand(chw, { axis: 2, outer: 1, inner: 1 }, [1, 280])).toEqual({ axis: 1, outer: 8, inner: 7 });
    expect(reshapeBand([1, 280], { axis: 1, outer: 8, inner: 7 }, chw)).toEqual({ axis: 2, outer: 1, inner: 1 });
    expect(reshapeBand(chw, { axis: 1, outer: 1, inner: 1 }, [1, 4, 70])).toBeUndefined();
  });
  it('of output channels fall into groups: at most three pieces, without gaps', () => {
    expect(groupPieces([2, 11], 4)).toEqual([
      { out: [2, 4], groups: [0, 1] },
      { out: [4, 8], groups: [1, 2] },
      { out: [8, 11], groups: [2, 3] },
    ]);
    expect(groupPieces([4, 12], 4)).toEqual([{ out: [4, 12], groups: [1, 3] }]);
    expect(groupPieces([5, 7], 4)).toEqual([{ out: [5, 7], groups: [1, 2] }]);
  });
});
