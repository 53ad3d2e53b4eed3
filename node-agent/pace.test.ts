import { describe, expect, it } from 'vitest';
import { Pace } from './pace.js';

describe('the pace of work that nobody waits for', () => {
  it('lets the first step begin at once, and the next one when the steps have had their share of the time', () => {
    let now = 100;
    const pace = new Pace(
      () => 0.25,
      () => now,
    );
    expect(pace.waitMs).toBe(0);
    now = 110;
    pace.took(10);
    expect(pace.waitMs).toBeCloseTo(30);
    now = 139;
    expect(pace.waitMs).toBeCloseTo(1);
    now = 141;
    expect(pace.waitMs).toBe(0);
  });

  it('never waits after a step when it may have all of the time, and never long after one that took very long', () => {
    let share = 1;
    const pace = new Pace(
      () => share,
      () => 0,
    );
    pace.took(10);
    expect(pace.waitMs).toBe(0);
    share = 0.1;
    pace.took(60_000);
    expect(pace.waitMs).toBe(5000);
  });
});
