import { describe, expect, it } from 'vitest';
import { FrameTrace } from './frame-trace.js';

const WISH = { deployment: 'd', frames: 2, forMs: 1000 };

describe("the dispatcher's trace", () => {
  it('has whole frames only: those issued since it began, until there are enough', () => {
    const clock = { ms: 100 };
    const trace = new FrameTrace(() => clock.ms);
    expect(trace.issued('d', 1, 1)).toBe(false);
    trace.start(WISH);
    expect(trace.issued('d', 4, 2)).toBe(false);
    expect(trace.issued('other', 4, 1)).toBe(false);
    expect([5, 6, 7].map((frame) => trace.issued('d', frame, 1))).toEqual([true, true, false]);
    expect(trace.issued('d', 5, 2)).toBe(true);
    clock.ms = 140;
    trace.left('send', 5, 1, 130, { agent: 'pi-1', wire: { toStage: 0, toPart: 3 } }, 9);
    trace.answered('d', 5, 2, 35);
    trace.answered('d', 7, 1, 1);
    expect(trace.read('d')).toMatchObject({ agent: 'dispatcher', frames: 1, why: '' });
    const none = { stage: -1, replica: 0, part: 0 };
    expect(trace.read('d').spans).toEqual([
      {
        ...{ kind: 'send', frame: 5, attempt: 1, ...none, peer: 'pi-1', toStage: 0, toPart: 3 },
        ...{ startUs: 130_000, durationUs: 10_000, bytes: 9 },
      },
      {
        ...{ kind: 'frame', frame: 5, attempt: 2, ...none, peer: '', toStage: -1, toPart: 0 },
        ...{ startUs: 105_000, durationUs: 35_000, bytes: 0 },
      },
    ]);
    clock.ms = 2000;
    trace.start(WISH);
    clock.ms = 4000;
    expect(trace.issued('d', 8, 1)).toBe(false);
    expect(trace.read('x').why).not.toBe('');
  });
});
