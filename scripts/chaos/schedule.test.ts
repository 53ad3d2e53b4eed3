import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { actsOf, faultText, KINDS, type Round, schedule } from './schedule.js';

const WORLD = { agents: ['a1', 'a2', 'a3', 'a4', 'a5', 'a6'], spares: ['a7', 'a8'] };

function first(seed: number, count: number, world = WORLD): Round[] {
  const rounds = schedule(seed, world);
  return Array.from({ length: count }, () => rounds.next().value);
}

describe('the schedule of a chaos run', () => {
  it('is the same for the same seed, and another for another', () => {
    expect(first(7, 40)).toEqual(first(7, 40));
    expect(first(7, 40)).not.toEqual(first(8, 40));
  });

  it('has every kind of fault within ten minutes of rounds', () => {
    for (const seed of [1, 2, 3]) {
      const kinds = new Set(first(seed, 24).flatMap(({ faults }) => faults.map(({ kind }) => kind)));
      expect([...KINDS].filter((kind) => !kinds.has(kind))).toEqual([]);
    }
  });

  it('has at most one fault of each machine in a round, of agents that are there, and leaves some', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        let present = new Set(WORLD.agents);
        for (const round of first(seed, 30)) {
          const targets = round.faults.map(({ target }) => target);
          expect(new Set(targets).size).toBe(targets.length);
          for (const { kind, target } of round.faults) {
            if (kind === 'join') expect(present.has(target)).toBe(false);
            else if (target.startsWith('a')) expect(present.has(target)).toBe(true);
          }
          present = new Set(round.present);
          expect(present.size).toBeGreaterThanOrEqual(3);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('undoes in order what does not pass by itself', () => {
    for (const round of first(3, 60)) {
      const acts = actsOf(round);
      expect(acts.map(({ atMs }) => atMs)).toEqual(acts.map(({ atMs }) => atMs).toSorted((a, b) => a - b));
      for (const fault of round.faults) {
        const own = acts.filter((act) => act.fault === fault).map((act) => act.do);
        expect(own).toEqual(fault.forMs > 0 ? ['begin', 'undo'] : ['begin']);
      }
    }
  });

  it('does only what the world can do', () => {
    const world = { ...WORLD, kinds: ['hang', 'lie'] as const };
    expect(new Set(first(1, 50, world).flatMap(({ faults }) => faults.map(({ kind }) => kind)))).toEqual(new Set(['hang', 'lie']));
  });

  it('says in words what happens', () => {
    const fault = { kind: 'slow-link', target: 'a1', atMs: 400, forMs: 5000, value: 2.5e6 } as const;
    expect(faultText(fault)).toBe('slow-link a1 to 2.5 Mbit/s for 5.0 s at 0.4 s');
    expect(faultText({ kind: 'lie', target: 'a1', atMs: 0, forMs: 0, value: 0, lies: ['garbage', 'old-term'] })).toBe(
      'lie (garbage, old-term) a1 at 0.0 s',
    );
    expect(faultText({ kind: 'clock', target: 'gateway', atMs: 0, forMs: 2000, value: -86_400_000 })).toBe(
      'clock gateway by -1.000 days for 2.0 s at 0.0 s',
    );
  });
});
