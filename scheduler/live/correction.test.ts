import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { factorIn, LEAST_FACTOR, LiveCorrection, MOST_FACTOR, type Observation, type SavedCorrection } from './correction.js';

const NODES: readonly [number, number] = [0, 4];
const seen = (ratio: number, extra: Partial<Observation> = {}): Observation => ({
  ...{ agent: 'a', nonce: '1', basis: 'probe', model: 'm', nodes: NODES, cut: 'whole', predictedMs: 20, measuredMs: 20 * ratio, frames: 5 },
  ...extra,
});
const all = (live: LiveCorrection, nowMs: number): number => live.correction('a', 'm', 'probe', nowMs)?.all ?? 1;

describe('live correction', () => {
  it('finds any real ratio within half a minute of frames, through noise', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.3, max: 6, noNaN: true }),
        fc.array(fc.double({ min: 0.9, max: 1.1, noNaN: true }), { minLength: 30, maxLength: 30 }),
        (ratio, noise) => {
          const live = new LiveCorrection();
          for (const [second, n] of noise.entries()) live.observe(seen(ratio * n), second * 1000);
          const found = all(live, 30_000);
          // Noise may always say the same, or at last: a tenth. Besides, 150 frames are trusted by 30 parts in 31 (4 % of a factor of 0.3, 6 % of one of 6), what is
          // found is rounded to 5 %, and a factor of 6 is still 3 % away after so many bounded steps.
          expect(found / ratio).toBeGreaterThan(0.9 * 0.94 * 0.975 * 0.96);
          expect(found / ratio).toBeLessThan(1.1 * 1.04 * 1.025 * 1.01);
        },
      ),
    );
  });

  it('stays within its bounds whatever is seen', () => {
    const figure = fc.oneof(
      fc.double(),
      fc.double({ min: 1e-9, max: 1e9, noNaN: true }),
      fc.constantFrom(0, -1, Number.NaN, Number.POSITIVE_INFINITY),
    );
    fc.assert(
      fc.property(
        fc.array(fc.record({ predictedMs: figure, measuredMs: figure, frames: fc.integer({ min: -3, max: 1000 }) }), { maxLength: 60 }),
        (list) => {
          const live = new LiveCorrection();
          for (const [second, figures] of list.entries()) live.observe(seen(1, figures), second * 1000);
          const { all, stages } = live.correction('a', 'm', 'probe', list.length * 1000) ?? { all: 1, stages: [] };
          for (const factor of [all, ...stages.map((stage) => stage.factor)]) {
            expect(factor).toBeGreaterThanOrEqual(LEAST_FACTOR * 0.97);
            expect(factor).toBeLessThanOrEqual(MOST_FACTOR * 1.03);
          }
        },
      ),
    );
  });

  it('is moved by less than a tenth by one outlier, however far out, and forgets it', () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-6, max: 1e6, noNaN: true }), fc.integer({ min: 1, max: 100 }), (outlier, frames) => {
        const live = new LiveCorrection();
        for (let second = 0; second < 30; second++) live.observe(seen(1.5), second * 1000);
        const before = all(live, 30_000);
        live.observe(seen(outlier, { frames }), 30_000);
        expect(Math.abs(Math.log(all(live, 30_000) / before))).toBeLessThan(0.1);
        for (let second = 31; second < 45; second++) live.observe(seen(1.5), second * 1000);
        expect(Math.abs(Math.log(all(live, 45_000) / before))).toBeLessThan(0.06);
      }),
    );
  });

  it('learns nothing from runs that a rest explains, and no more than it leaves open from others', () => {
    const found = (measuredMs: number, predictedMs = 20): number => {
      const live = new LiveCorrection();
      for (let second = 0; second < 60; second++) live.observe(seen(1, { predictedMs, measuredMs, restedMs: 10 }), second * 1000);
      return all(live, 60_000);
    };
    for (const measuredMs of [10, 12, 20]) expect(found(measuredMs)).toBe(1);
    expect(found(5)).toBeCloseTo(15 / 20, 1);
    expect(found(40)).toBeCloseTo(2, 1);
    // Less than a period: what it took at full speed says little of long work.
    expect(found(1, 5)).toBe(1);
  });

  it('counts a few frames little, and many in full', () => {
    const live = new LiveCorrection();
    live.observe(seen(2, { frames: 1 }), 0);
    expect(all(live, 0)).toBe(1);
    for (let second = 1; second < 40; second++) live.observe(seen(2), second * 1000);
    expect(all(live, 40_000)).toBeCloseTo(2, 0);
  });

  it('fades to as predicted when nothing is seen', () => {
    const live = new LiveCorrection();
    for (let second = 0; second < 40; second++) live.observe(seen(3), second * 1000);
    const then = all(live, 40_000);
    const later = all(live, 40_000 + 600_000);
    expect(later).toBeLessThan(then * 0.7);
    expect(live.correction('a', 'm', 'probe', 40_000 + 24 * 3_600_000)).toBeUndefined();
  });

  it('begins anew with another process, and when it is told to', () => {
    const live = new LiveCorrection();
    for (let second = 0; second < 40; second++) live.observe(seen(3), second * 1000);
    live.observe(seen(1, { nonce: '2' }), 40_000);
    expect(live.correction('a', 'm', 'probe', 40_000)).toBeUndefined();
    for (let second = 41; second < 80; second++) live.observe(seen(3, { nonce: '2' }), second * 1000);
    expect(live.correction('a', 'm', 'probe', 80_000)).toBeDefined();
    live.reset('a');
    expect(live.correction('a', 'm', 'probe', 80_000)).toBeUndefined();
  });

  it('is kept over a restart as it was, whatever the clock of the new process says, and goes on fading', () => {
    const live = new LiveCorrection();
    for (let second = 0; second < 40; second++) {
      live.observe(seen(3), second * 1000);
      live.observe(seen(1.2, { nodes: [4, 9], cut: 'rows' }), second * 1000);
    }
    const kept: SavedCorrection[] = JSON.parse(JSON.stringify(live.saved(40_000)));
    const next = new LiveCorrection();
    next.restore(kept, 9_000_000);
    expect(next.correction('a', 'm', 'probe', 9_000_000)).toEqual(live.correction('a', 'm', 'probe', 40_000));
    expect(next.correction('a', 'm', 'probe', 9_000_000 + 24 * 3_600_000)).toBeUndefined();
    // The same process goes on; another one begins anew.
    next.observe(seen(3), 9_000_000);
    expect(next.correction('a', 'm', 'probe', 9_000_000)?.all).toBeGreaterThan(1.2);
    next.observe(seen(3, { nonce: '2' }), 9_001_000);
    expect(next.correction('a', 'm', 'probe', 9_001_000)?.all ?? 1).toBeLessThan(1.1);
  });

  it('tells a stage that runs otherwise than the rest from the agent', () => {
    const live = new LiveCorrection();
    for (let second = 0; second < 60; second++) {
      live.observe(seen(1), second * 1000);
      live.observe(seen(1), second * 1000);
      live.observe(seen(1), second * 1000);
      live.observe(seen(2, { nodes: [4, 9], cut: 'rows' }), second * 1000);
    }
    expect(factorIn(live.correction('a', 'm', 'probe', 60_000), [4, 9], 'rows')).toBeGreaterThan(1.8);
    expect(factorIn(live.correction('a', 'm', 'probe', 60_000), NODES, 'whole')).toBe(1);
    // What was never seen there gets the agent's own ratio, between the two.
    expect(factorIn(live.correction('a', 'm', 'probe', 60_000), [9, 12], 'whole')).toBeGreaterThan(1);
    expect(factorIn(live.correction('a', 'm', 'probe', 60_000), [9, 12], 'whole')).toBeLessThan(1.8);
  });

  it("does not carry what a probe got wrong over to a profile, nor one model's stages over to another", () => {
    const live = new LiveCorrection();
    for (let second = 0; second < 40; second++) live.observe(seen(3), second * 1000);
    expect(live.correction('a', 'm', 'profile', 40_000)).toBeUndefined();
    for (let second = 0; second < 80; second++) live.observe(seen(1, { model: 'other', frames: 50 }), 40_000 + second * 1000);
    expect(factorIn(live.correction('a', 'm', 'probe', 120_000), NODES, 'whole')).toBeGreaterThan(2);
    expect(factorIn(live.correction('a', 'other', 'probe', 120_000), NODES, 'whole')).toBe(1);
  });
});
