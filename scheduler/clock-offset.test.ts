import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { between, type ClockSample, offsetOf } from './clock-offset.js';

describe('the offset of a clock', () => {
  it('comes from the shortest round trip', () => {
    const samples: ClockSample[] = [
      { sentUs: 0, theirsUs: 5_000, cameUs: 9_000 },
      { sentUs: 10_000, theirsUs: 16_500, cameUs: 11_000 },
    ];
    expect(offsetOf(samples)).toEqual({ offsetUs: 10_500 - 16_500, errorUs: 500 });
  });

  it('is never further off than it says, whatever the two ways took', () => {
    const way = fc.integer({ min: 0, max: 200_000 });
    const trips = fc.array(fc.tuple(fc.integer({ min: 0, max: 1e9 }), way, way), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(fc.integer({ min: -1e9, max: 1e9 }), trips, (offset, all) => {
        const samples = all.map(([sentUs, there, back]) => ({ sentUs, theirsUs: sentUs + there - offset, cameUs: sentUs + there + back }));
        const found = offsetOf(samples);
        expect(found).toBeDefined();
        expect(Math.abs((found?.offsetUs ?? 0) - offset)).toBeLessThanOrEqual((found?.errorUs ?? 0) + 1e-3);
      }),
    );
  });

  it('drifts: between two measurements the error grows by half of what they differ', () => {
    expect(between({ offsetUs: 100, errorUs: 5 }, { offsetUs: 140, errorUs: 8 })).toEqual({ offsetUs: 120, errorUs: 28 });
    expect(between(undefined, { offsetUs: 1, errorUs: 2 })).toEqual({ offsetUs: 1, errorUs: 2 });
    expect(between(undefined, undefined)).toBeUndefined();
  });

  it('is unknown when nothing came back, or before it was asked', () => {
    expect(offsetOf([])).toBeUndefined();
    expect(offsetOf([{ sentUs: 10, theirsUs: 5, cameUs: 9 }])).toBeUndefined();
  });
});
