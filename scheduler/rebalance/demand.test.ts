import { describe, expect, it } from 'vitest';
import { DemandMeter } from './demand.js';

/** Samples once a second: frames per second that come, and how many wait. */
function run(meter: DemandMeter, from: number, seconds: number, perSecond: number, queued: number, submitted = 0): number {
  for (let s = 1; s <= seconds; s++) meter.observe({ submitted: submitted + s * perSecond, queued }, (from + s) * 1000);
  return submitted + seconds * perSecond;
}

describe('a meter of demand', () => {
  it('tells the rate at once, and follows another one within half a minute', () => {
    const meter = new DemandMeter();
    meter.observe({ submitted: 0, queued: 0 }, 0);
    let submitted = run(meter, 0, 2, 9, 0);
    expect(meter.ratePerSecond(2000)).toBeCloseTo(9, 5);
    submitted = run(meter, 2, 58, 9, 0, submitted);
    run(meter, 60, 30, 1, 0, submitted);
    expect(meter.ratePerSecond(90_000)).toBeGreaterThan(0.9);
    expect(meter.ratePerSecond(90_000)).toBeLessThan(1.6);
  });

  it('is pressed when frames wait for ten seconds, not for a burst of three, and not any more when they have ceased to', () => {
    const meter = new DemandMeter();
    meter.observe({ submitted: 0, queued: 0 }, 0);
    let submitted = run(meter, 0, 30, 5, 0);
    submitted = run(meter, 30, 3, 50, 20, submitted);
    expect(meter.pressed).toBe(false);
    submitted = run(meter, 33, 10, 5, 0, submitted);
    submitted = run(meter, 43, 10, 20, 20, submitted);
    expect(meter.pressed).toBe(true);
    submitted = run(meter, 53, 3, 5, 0, submitted);
    expect(meter.pressed).toBe(true);
    run(meter, 56, 10, 5, 0, submitted);
    expect(meter.pressed).toBe(false);
  });

  it('does not take a deployment that was made anew for one that gives frames back', () => {
    const meter = new DemandMeter();
    meter.observe({ submitted: 0, queued: 0 }, 0);
    run(meter, 0, 20, 10, 0);
    meter.observe({ submitted: 3, queued: 0 }, 21_000);
    expect(meter.ratePerSecond(21_000)).toBeGreaterThan(5);
  });
});
