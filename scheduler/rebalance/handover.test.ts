import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Groups, handover } from './handover.js';

const tight = (names: string, loadMs = 100): Map<string, number> => new Map([...names].map((name) => [name, loadMs]));
/** `ab|cd e`: a first stage of two replicas of two parts, and a second one. */
const groups = (text: string): Groups => text.split(' ').map((stage) => stage.split('|').map((replica) => [...replica]));

describe('seats that are handed over', () => {
  it('go one by one while other replicas serve, without a pause', () => {
    const plan = handover({ from: groups('a|b|c'), to: groups('a b|c'), tight: tight('abc'), drainMs: 50 });
    expect(plan).toEqual({ before: [['a'], ['b']], after: ['c'], pauseMs: 0 });
  });

  it('go together where frames cannot do without them, and the pause is the slowest load', () => {
    const slow = new Map([...tight('a'), ['b', 700]]);
    const plan = handover({ from: groups('a b'), to: groups('b a'), tight: slow, drainMs: 50 });
    expect(plan).toEqual({ before: [['b', 'a']], after: [], pauseMs: 750 });
  });

  it('leave out those that the new plan can do without at first', () => {
    const plan = handover({ from: groups('a|b'), to: groups('a|b|x'), tight: tight('ab'), drainMs: 50 });
    expect(plan).toEqual({ before: [], after: ['a', 'b'], pauseMs: 0 });
  });

  it('are none where all fit', () => {
    expect(handover({ from: groups('a|b'), to: groups('a b'), tight: new Map(), drainMs: 50 }).before).toEqual([]);
  });

  it('leave a route open at every moment, or the pause is said', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    const plan = fc.array(
      fc.array(fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 3 }),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    const some = fc.uniqueArray(fc.constantFrom(...names));
    fc.assert(
      fc.property(plan, plan, some, (from, to, held) => {
        const loads = new Map(held.map((name, i) => [name, 100 + i]));
        const { before, after, pauseMs } = handover({ from, to, tight: loads, drainMs: 10 });
        const used = new Set(to.flat(2));
        const handed = [...before.flat(), ...after];
        // Each agent that cannot hold both, once.
        expect(handed.sort()).toEqual(held.filter((name) => used.has(name)).sort());
        const open = (plan: Groups, gone: ReadonlySet<string>): boolean =>
          plan.every((stage) => stage.some((agents) => !agents.some((agent) => gone.has(agent))));
        // The switch is possible.
        expect(open(to, new Set(after))).toBe(true);
        // Without a pause, the old plan serves up to the last agent before it.
        if (pauseMs === 0) expect(open(from, new Set(before.flat()))).toBe(true);
        else expect(open(from, new Set(before.slice(0, -1).flat()))).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
