import { describe, expect, it } from 'vitest';
import { Repetition } from './repetition.js';

describe('lines that repeat', () => {
  it('are written at once, then counted, then written with the count', () => {
    const lines: string[] = [];
    let now = 0;
    const repetition = new Repetition(
      (line) => lines.push(line),
      () => now,
    );
    for (let i = 0; i < 5; i++) repetition.say('a', `a ${i}`);
    repetition.say('b', 'b');
    now = 10_000;
    repetition.say('a', 'a 5');
    now = 20_000;
    repetition.say('a', 'a 6');
    expect(lines).toEqual(['a 0', 'b', 'a 5 (and 4 more like it before)', 'a 6']);
  });

  it('are forgotten rather than kept without bound', () => {
    const lines: string[] = [];
    const repetition = new Repetition(
      (line) => lines.push(line),
      () => 0,
    );
    for (let i = 0; i < 1001; i++) repetition.say(`${i}`, 'x');
    repetition.say('0', 'again');
    expect(lines.at(-1)).toBe('again');
  });
});
