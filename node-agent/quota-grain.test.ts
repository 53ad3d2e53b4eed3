import { describe, expect, it } from 'vitest';
import { quotaGrainMs } from './quota-grain.js';

/** A clock that a busy thread reads every 0.05 ms, and which stands still for it between turns of `burstMs` every `cycleMs`. */
function clock(burstMs: number, cycleMs: number): () => number {
  let ran = 0;
  return () => {
    ran += 0.05;
    return 7 + Math.floor(ran / burstMs) * cycleMs + (ran % burstMs);
  };
}

describe('how a quota is handed out', () => {
  it('is told from when a busy thread has its turns', () => {
    expect(quotaGrainMs(0.18, 10, clock(3.6, 20))).toBeCloseTo(20, 1);
    expect(quotaGrainMs(0.5, 100, clock(50, 100))).toBeCloseTo(100, 1);
  });

  it('is taken as it is written where there is nothing to see, and never for less', () => {
    expect(quotaGrainMs(0, 0)).toBe(0);
    // One thread of several cores never has to wait.
    expect(quotaGrainMs(2, 100)).toBe(100);
    expect(quotaGrainMs(0.9, 10, clock(1000, 1001))).toBe(10);
    // Another process has its turn, too.
    expect(quotaGrainMs(0.18, 10, clock(1, 3.5))).toBe(10);
  });
});
