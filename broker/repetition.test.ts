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

  it('are forgotten rather than kept without bound, the oldest first', () => {
    const lines: string[] = [];
    let now = 0;
    const repetition = new Repetition(
      (line) => lines.push(line),
      () => now,
      { quietMs: 1e9 },
    );
    for (let i = 0; i < 1001; i++, now += 5_000) repetition.say(`${i}`, 'x');
    repetition.say('0', 'again');
    repetition.say('900', 'not again');
    expect(lines.slice(1001)).toEqual(['again']);
  });

  it('are held up together when each is another one', () => {
    const lines: string[] = [];
    let now = 0;
    const repetition = new Repetition(
      (line) => lines.push(line),
      () => now,
    );
    for (let i = 0; i < 5_000; i++) repetition.say(`${i}`, `name ${i}`);
    expect(lines).toHaveLength(200);
    now = 5_000;
    repetition.say('one more', 'name');
    expect(lines.at(-1)).toBe('name (and 4800 lines before it that were too many to write)');
  });

  it('are one line of printable ASCII each, and not longer than a line should be', () => {
    const lines: string[] = [];
    const repetition = new Repetition((line) => lines.push(line));
    repetition.say('a', `pi-1~\u001b[2J\nFAKE\u202e${'\u2603'.repeat(5_000)}`);
    expect(lines[0]).toMatch(/^pi-1~\\u001b\[2J\\u000aFAKE\\u202e[ -~]+$/);
    expect(lines[0]?.length).toBeLessThan(1_100);
  });
});
