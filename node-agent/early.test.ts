import { describe, expect, it } from 'vitest';
import type { ActivationHeader } from '../broker/messages.js';
import { EarlyBuffer } from './early.js';

const header = (frame: number, epoch = 1): ActivationHeader => ({
  deployment: 'd',
  term: 1,
  epoch,
  frame,
  attempt: 1,
  route: [0],
  wire: 0,
  lowWater: 0,
  remainingMs: 0,
  dtype: 'uint8',
  dims: [1],
  encoding: 'raw',
  scale: 1,
  zero: 0,
});

describe('messages that come early', () => {
  it('are given out by epoch in their order, once', () => {
    const early = new EarlyBuffer<string>(100, 10);
    expect([early.add(header(1), 'a', 10, 0), early.add(header(2, 2), 'b', 10, 0), early.add(header(3), 'c', 10, 0)]).toEqual([
      true,
      true,
      true,
    ]);
    expect(early.take('d', 1, 1).map((m) => m.data)).toEqual(['a', 'c']);
    expect(early.take('d', 1, 1)).toEqual([]);
    expect(early.take('d', 2, 2)).toEqual([]);
    expect([early.size, early.bytes]).toEqual([1, 10]);
  });

  it('are refused beyond the bound and given up after their time', () => {
    const early = new EarlyBuffer<string>(25, 10);
    expect([1, 2, 3].map((frame) => early.add(header(frame), `${frame}`, 10, frame))).toEqual([true, true, false]);
    expect(early.expire(10)).toEqual([]);
    expect(early.expire(11).map((m) => m.data)).toEqual(['1']);
    expect(early.add(header(4), '4', 10, 20)).toBe(true);
    expect(early.bytes).toBe(20);
  });
});
