import { describe, expect, it } from 'vitest';
import { Answers, StallMeter } from './answers.js';

describe('answers', () => {
  it('go in one write while the kernel is busy with the last, in order and whole, and are refused beyond the bound', () => {
    const written: string[] = [];
    const taken: (() => void)[] = [];
    const write = (bytes: Uint8Array, done: () => void) => {
      written.push(Buffer.from(bytes).toString());
      taken.push(done);
    };
    const answers = new Answers({ write, mostBytes: 6 });
    for (const answer of ['a1', 'b2', 'c3']) expect(answers.give(Buffer.from(answer))).toBe(true);
    expect([written, answers.waitingBytes, answers.isGathering]).toEqual([['a1'], 6, true]);
    expect(answers.give(Buffer.from('d4'))).toBe(false);
    taken[0]?.();
    expect([written, answers.waitingBytes, answers.isGathering]).toEqual([['a1', 'b2c3'], 4, false]);
    taken[1]?.();
    expect(answers.waitingBytes).toBe(0);
    expect(answers.give(Buffer.from('e5'))).toBe(true);
    expect(written.at(-1)).toBe('e5');
  });
});

describe('stall meter', () => {
  const looks = (meter: StallMeter, count: number, waiting: number, taken: (look: number) => number) =>
    Array.from({ length: count }, (_, look) => meter.look(waiting, taken(look), 250)).indexOf(true);

  it('tells who takes nothing, later the more waits for him', () => {
    expect(looks(new StallMeter(1000), 100, 10, () => 7)).toBe(5);
    // A megabyte in one write: 16 s on half a megabit per second.
    expect(looks(new StallMeter(1000), 100, 2 ** 20, () => 7)).toBe(Math.ceil((1000 + 2 ** 20 / 64) / 250));
  });

  it('leaves alone who takes some now and then, or for whom nothing waits', () => {
    expect(looks(new StallMeter(1000), 100, 10, (look) => Math.floor(look / 4))).toBe(-1);
    expect(looks(new StallMeter(1000), 100, 0, () => 7)).toBe(-1);
  });
});
