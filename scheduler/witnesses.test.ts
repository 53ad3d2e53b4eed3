import { describe, expect, it } from 'vitest';
import { DISPATCHER } from '../broker/topics.js';
import { Witnesses } from './witnesses.js';

const MINUTE = 60_000;

/** One lie a second for so long, each contradicted by the peer's health. Returns how often it counted. */
function lie(witnesses: Witnesses, seconds: number, fromMs = 0, peer = (_i: number) => 'b'): number {
  let believed = 0;
  for (let i = 0; i < seconds; i++) {
    if (witnesses.says('liar', peer(i), fromMs + 1000 * i)) believed++;
    witnesses.heard(peer(i), fromMs + 1000 * i + 500);
  }
  return believed;
}

describe('the word of an agent on its peers', () => {
  it('counts a few times, and then no more while it goes on, about whomever it is', () => {
    const witnesses = new Witnesses();
    expect(lie(witnesses, 3600, 0, (i) => `peer ${i % 5}`)).toBe(3);
    expect(witnesses.doubted(3_600_000)).toMatchObject([{ agent: 'liar', times: 3600 }]);
    // Others are believed as ever.
    expect(witnesses.says('a', 'b', 3_600_000)).toBe(true);
  });

  it('counts less than a hundredth of the time, however cleverly it is spread', () => {
    const witnesses = new Witnesses();
    let believed = 0;
    for (let nowMs = 0; nowMs < 24 * 60 * MINUTE; nowMs += 1000) {
      if (witnesses.doubted(nowMs).length > 0) continue;
      if (witnesses.says('liar', 'b', nowMs)) believed++;
      witnesses.heard('b', nowMs + 500);
    }
    expect(believed).toBeLessThan(24 * 60 * 60 * 0.01);
  });

  it('counts again a while after the last contradiction', () => {
    const witnesses = new Witnesses();
    lie(witnesses, 3600);
    const endMs = 3_600_000;
    expect(witnesses.says('liar', 'b', endMs + 10 * MINUTE)).toBe(false);
    expect(witnesses.says('liar', 'b', endMs + 15 * MINUTE)).toBe(true);
    expect(witnesses.doubted(endMs + 15 * MINUTE)).toEqual([]);
  });

  it('is not doubted when another, or the dispatcher, says the same, when the peer really went, or when it is rare', () => {
    const witnesses = new Witnesses();
    for (const other of ['c', DISPATCHER]) {
      for (let i = 0; i < 100; i++) {
        expect([witnesses.says('a', 'b', i), witnesses.says(other, 'b', i)]).toEqual([true, true]);
        witnesses.heard('b', i);
      }
    }
    for (let i = 0; i < 100; i++) {
      expect(witnesses.says('a', 'b', i)).toBe(true);
      witnesses.gone('b');
      witnesses.heard('b', i);
    }
    // The dispatcher's own lanes are no hearsay.
    for (let i = 0; i < 100; i++) {
      expect(witnesses.says(DISPATCHER, 'b', i)).toBe(true);
      witnesses.heard('b', i);
    }
    for (let hour = 0; hour < 1000; hour++) {
      expect(witnesses.says('a', 'b', hour * 30 * MINUTE)).toBe(true);
      witnesses.heard('b', hour * 30 * MINUTE + 500);
    }
    expect(witnesses.doubted(1000 * 30 * MINUTE)).toEqual([]);
  });

  it('of many sends that fail at once is one word', () => {
    const witnesses = new Witnesses();
    for (let i = 0; i < 1000; i++) witnesses.says('a', 'b', i);
    witnesses.heard('b', 1000);
    expect(witnesses.says('a', 'b', 1001)).toBe(true);
  });
});
