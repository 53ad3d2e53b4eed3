import { describe, expect, it } from 'vitest';
import { linkRate, type Round } from './link-rate.js';

const KB = 1024;
const MB = 1024 * KB;

/** Rounds over a link of so many bytes/s behind a shaper, each so many ms late. */
function rounds(
  link: { bytesPerSecond: number; wayMs: number; burst?: number },
  late: readonly (readonly [bytes: number, ms: number])[],
): Round[] {
  return late.map(([bytes, ms]) => ({
    bytes,
    tookMs: link.wayMs + (Math.max(0, bytes - (link.burst ?? 0)) / link.bytesPerSecond) * 1000 + ms,
  }));
}

describe('the rate of a link', () => {
  const gigabit = { bytesPerSecond: 1.2e8, wayMs: 0.4, burst: 128 * KB };

  it('is that of its quickest rounds, whatever a quota did to the others', () => {
    const seen = rounds(gigabit, [
      [64 * KB, 8],
      [MB, 17],
      [64 * KB, 0.3],
      [MB, 8],
      [64 * KB, 17],
      [MB, 0.4],
      [MB, 25],
      [64 * KB, 0],
    ]);
    expect(linkRate(seen, 0.4) / 1.2e8).toBeGreaterThan(0.9);
    expect(linkRate(seen, 0.4) / 1.2e8).toBeLessThan(1.2);
  });

  it('does not count what a shaper lets through at once, of links that are fast enough for two sizes beyond it', () => {
    const slow = { bytesPerSecond: 2.5e5, wayMs: 4, burst: 16 * KB };
    expect(
      linkRate(
        rounds(slow, [
          [64 * KB, 0],
          [128 * KB, 0],
        ]),
        4,
      ),
    ).toBeCloseTo(2.5e5, -1);
    const usual = { bytesPerSecond: 1.2e7, wayMs: 40, burst: 32 * KB };
    expect(
      linkRate(
        rounds(usual, [
          [64 * KB, 1],
          [MB, 1],
          [MB, 12],
        ]),
        40,
      ) / 1.2e7,
    ).toBeCloseTo(1, 1);
  });

  it('is never made much quicker by a small round that was late, nor by a round trip that was', () => {
    const simple = MB / 0.0087;
    const late = rounds(gigabit, [
      [64 * KB, 60],
      [MB, 0],
    ]);
    expect(linkRate(late, 0.4)).toBeLessThan(1.5 * simple);
    expect(
      linkRate(
        rounds(gigabit, [
          [64 * KB, 0],
          [MB, 0],
        ]),
        500,
      ),
    ).toBeLessThan(5 * simple);
  });

  it('does not believe the one round of many that came out of a buffer', () => {
    const seen = rounds({ bytesPerSecond: 1.2e7, wayMs: 1 }, [
      [MB, 1],
      [MB, 2],
      [MB, 1],
      [MB, -60],
      [MB, 3],
      [64 * KB, 0],
    ]);
    expect(linkRate(seen, 1) / 1.2e7).toBeCloseTo(1, 1);
  });

  it('is told by one size where there is no other, and by nothing not at all', () => {
    expect(linkRate([{ bytes: 64 * KB, tookMs: 264 }], 4)).toBeCloseTo(65_536 / 0.26, 0);
    expect(linkRate([], 4)).toBeNaN();
  });
});
