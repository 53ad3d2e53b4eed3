import { describe, expect, it } from 'vitest';
import { SETTLE_MS, type Signal, Watch } from './watch.js';

const slower: Signal = { kind: 'slower', why: 'agent a takes 2.0 times what was predicted' };
const came = (names: string): Signal => ({ kind: 'agents', why: `agent ${names} came` });

/** The seconds at which it was time to look. */
function looks(watch: Watch, from: number, to: number, signals: (second: number) => readonly Signal[]): number[] {
  const at: number[] = [];
  for (let s = from; s < to; s++) if (watch.observe(signals(s), s * 1000) !== undefined) at.push(s);
  return at;
}

describe('a watch', () => {
  it('looks when a signal has lasted, and then ever more rarely while it goes on', () => {
    const watch = new Watch(-SETTLE_MS);
    expect(looks(watch, 0, 1000, () => [slower])).toEqual([8, 23, 53, 113, 233, 473, 713, 953]);
  });

  it('does not look for what comes and goes', () => {
    const watch = new Watch(-SETTLE_MS);
    expect(looks(watch, 0, 600, (s) => (s % 10 < 6 ? [slower] : []))).toEqual([]);
  });

  it('looks at once for something new, and once for agents that join in a burst', () => {
    const watch = new Watch(-SETTLE_MS);
    const names = (s: number): string => ['b', 'b, c', 'b, c, d'][Math.min(2, s - 100)] ?? '';
    expect(looks(watch, 0, 130, (s) => (s < 100 ? [slower] : [slower, came(names(s))]))).toEqual([8, 23, 53, 105, 120]);
  });

  it('gives a new plan time to show what it does', () => {
    const watch = new Watch(-SETTLE_MS);
    expect(looks(watch, 0, 9, () => [slower])).toEqual([8]);
    watch.changed(10_000);
    expect(looks(watch, 10, 60, () => [slower])).toEqual([25, 40]);
  });
});
