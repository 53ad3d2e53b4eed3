import { describe, expect, it } from 'vitest';
import { profileProgress } from './profile.js';

describe('the progress of measuring', () => {
  it('says how long the rest takes at the pace of the last rows, once there are a few', () => {
    let nowMs = 0;
    const text = profileProgress(() => nowMs);
    const at = (done: number, ms: number): string => {
      nowMs = ms;
      return text({ done, total: 100, current: 'conv1, whole' });
    };
    expect(text({ done: 0, total: 0, current: '' })).toBe('reading the model');
    // 40 were known: they were done at once, and say nothing of the others.
    expect(at(40, 0)).toBe('measuring 40 of 100: conv1, whole');
    expect(at(42, 4000)).toBe('measuring 42 of 100: conv1, whole');
    expect(at(45, 10_000)).toBe('measuring 45 of 100, about 2 min left: conv1, whole');
    expect(at(45, 12_000)).toBe('measuring 45 of 100, about 2 min left: conv1, whole');
    // 20 rows later the slow ones count no more.
    for (let done = 46; done <= 90; done++) at(done, 10_000 + (done - 45) * 500);
    expect(at(91, 33_000)).toBe('measuring 91 of 100, about 5 s left: conv1, whole');
  });
});
