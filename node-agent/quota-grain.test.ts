import { describe, expect, it } from 'vitest';
import { type Clocks, quotaGrainMs } from './quota-grain.js';

const STEP_MS = 0.05;

/** Clocks that a busy thread reads every 0.05 ms of its CPU time, between turns of `burstMs` every `cycleMs`; and `besides`: further pauses, in ms, by its CPU time. */
function clocks(burstMs: number, cycleMs: number, besides: (cpuMs: number) => number = () => 0): Clocks {
  let ran = 0;
  return {
    nowMs: () => {
      ran += STEP_MS;
      return 7 + Math.floor(ran / burstMs) * cycleMs + (ran % burstMs) + besides(ran);
    },
    cpuMs: () => ran,
  };
}

describe('how a quota is handed out', () => {
  it('is told from what a busy thread uses in each of its turns', () => {
    expect(quotaGrainMs(0.18, 10, clocks(3.6, 20))).toBeCloseTo(20, 0);
    expect(quotaGrainMs(0.5, 100, clocks(50, 100))).toBeCloseTo(100, 0);
  });

  it('is the same where the thread waits for a core besides', () => {
    // Each turn comes 18 ms later than the quota alone would have it: others run on the core.
    expect(quotaGrainMs(0.18, 10, clocks(3.6, 38))).toBeCloseTo(20, 0);
    // Every third turn is cut in two by a pause of 12 ms.
    const cut = (ran: number): number => 12 * Math.floor((ran + 9) / 10.8);
    expect(quotaGrainMs(0.18, 10, clocks(3.6, 20, cut))).toBeCloseTo(20, 0);
    // A quota of nearly a whole core, whose own pauses are too short to be seen: only others' are.
    expect(quotaGrainMs(0.9, 10, clocks(40, 46))).toBeLessThan(22);
  });

  it('is taken as it is written where there is nothing to see, and never for less', () => {
    expect(quotaGrainMs(0, 0)).toBe(0);
    // One thread of several cores never has to wait.
    expect(quotaGrainMs(2, 100)).toBe(100);
    expect(quotaGrainMs(0.9, 10, clocks(1000, 1001))).toBe(10);
    // Another process has its turn, too.
    expect(quotaGrainMs(0.18, 10, clocks(1, 3.5))).toBe(10);
  });
});
