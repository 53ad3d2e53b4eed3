import { describe, expect, it } from 'vitest';
import { limitOf, usualLimit } from './usage.js';

const link = { what: 'link of a, up', share: 0.5 };
const quota = { what: 'compute (quota of a)', share: 0.95 };

describe('what limits a figure', () => {
  it('is the busiest resource when it is nearly full, and waiting when none is', () => {
    expect(limitOf([link, quota])).toBe('compute (quota of a), 95 %');
    expect(limitOf([link])).toBe('waiting; busiest: link of a, up, 50 %');
    expect(limitOf([])).toBe('');
  });

  it('names the agent that could do much more, of those that do anything', () => {
    const of = (name: string, share: number) => ({ what: `compute (quota of ${name})`, share });
    expect(limitOf([of('a', 0.99), of('b', 0.61), of('c', 0.95), of('seatless', 0.01)])).toBe(
      'compute (quota of a), 99 %; idlest: compute (quota of b), 61 %',
    );
    expect(limitOf([of('a', 0.99), of('b', 0.93)])).toBe('compute (quota of a), 99 %');
    expect(limitOf([link, of('a', 0.4)])).toBe('waiting; busiest: link of a, up, 50 %');
  });

  it('is that of the median measurement, not of an odd one', () => {
    const odd = { what: "the gateway's busiest thread", share: 1 };
    expect(usualLimit([[odd], [link], [link, quota]])).toBe('compute (quota of a), 95 %');
    expect(usualLimit([[odd], [link], [link]])).toBe('waiting; busiest: link of a, up, 50 %');
    expect(usualLimit([])).toBe('');
  });
});
