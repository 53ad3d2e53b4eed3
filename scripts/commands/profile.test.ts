import { describe, expect, it } from 'vitest';
import type { ProfileReport } from '../../broker/messages.js';
import { profiledAgents, profileProgress } from './profile.js';

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
    // The gateway was started again, and begins anew.
    expect(at(2, 34_000)).toBe('measuring 2 of 100: conv1, whole');
    expect(at(6, 38_000)).toBe('measuring 6 of 100, about 2 min left: conv1, whole');
  });
});

describe('after measuring', () => {
  it('plans are said to stand on the times of those classes only of which every block was measured whole', () => {
    const device = (fingerprint: string, agents: string[]) => ({ fingerprint, text: '', agents, threads: 1, runMs: 0 });
    const row = (fingerprint: string, startNode: number, code: string) => ({
      fingerprint,
      threads: 1,
      what: 'block',
      parts: 1,
      startNode,
      code,
    });
    const report = {
      classes: [device('f', ['a', 'b']), device('g', ['c']), device('h', ['d'])],
      rows: [
        row('f', 0, ''),
        row('f', 1, ''),
        { ...row('f', 1, 'AGENT_OUT_OF_MEMORY'), parts: 2 },
        row('g', 0, ''),
        row('g', 1, 'PROFILE_FAILED'),
      ],
    } as unknown as ProfileReport;
    expect(profiledAgents(report)).toEqual({ known: ['a', 'b'], guessed: ['c', 'd'] });
  });
});
