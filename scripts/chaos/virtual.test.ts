/** The schedule of chaos in virtual time: the parts that decide, with up to 10,000 agents, and whole plans for up to 1,000. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { auto } from '../../scheduler/planners/auto.js';
import { chain } from '../../scheduler/planners/chain-model.js';
import { type Device, isRefusal, type PlanProblem } from '../../scheduler/planners/problem.js';
import { type FaultKind, KINDS, schedule } from './schedule.js';
import { type Seats, Virtual, type VirtualOptions } from './virtual.js';

const named = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `n${from + i}`);

/** Three stages: one cut in two parts, one in replicas, one whole; spread over who is there. */
function spread(ready: readonly string[]): Seats {
  const at = (i: number): string => ready[(i * 7) % ready.length] ?? '';
  return [[[at(0), at(1)]], [[at(2)], [at(3)], [at(4)]], [[at(5)]]];
}

function playRounds(
  seed: number,
  agents: number,
  rounds: number,
  plan = spread as VirtualOptions['plan'],
  kinds = KINDS as readonly FaultKind[],
): Virtual {
  const world = { agents: named(1, agents), spares: named(agents + 1, 2), kinds };
  const virtual = new Virtual({ agents: world.agents, seed, plan, framesPerSecond: 8 });
  const coming = schedule(seed, world);
  for (let i = 0; i < rounds; i++) virtual.play(coming.next().value);
  virtual.end();
  return virtual;
}

describe('registry, reconcile and frames under chaos in virtual time', () => {
  it('give each frame its one outcome and come to rest after every round, whatever the seed', () => {
    // Some kinds at a time: where all come, one covers up for the other.
    const some = fc.oneof(fc.constant([...KINDS]), fc.subarray([...KINDS], { minLength: 1, maxLength: 3 }));
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.integer({ min: 4, max: 40 }), some, (seed, agents, kinds) => {
        const virtual = playRounds(seed, agents, 10, spread, kinds);
        expect(virtual.results).toBeGreaterThan(100);
        // Explicit, and for want of somebody to compute them.
        const fair = ['FRAME_DEADLINE', 'FRAME_FAILED', 'FRAME_REFUSED', 'DEPLOYMENT_REMOVED'];
        expect([...virtual.codes.keys()].filter((code) => !fair.includes(code))).toEqual([]);
      }),
      { numRuns: 40 },
    );
  }, 120_000);

  it('do so with 10,000 agents', () => {
    const virtual = playRounds(4, 10_000, 2);
    expect(virtual.results).toBeGreaterThan(100);
    expect(virtual.events).toBeGreaterThan(5);
  }, 240_000);

  it('plan no more often than something happens to the agents of a plan', () => {
    const virtual = playRounds(9, 200, 20);
    expect(virtual.plans).toBeLessThan(4 * virtual.events);
  }, 60_000);
});

describe('whole plans under chaos in virtual time', () => {
  const facts = chain(
    Array.from({ length: 12 }, (_, i) => ({ macs: 1e8, weightBytes: 1e6 * (1 + (i % 3)), rows: 40 })),
    40,
  );
  /** What `auto` makes of those that are there. */
  const planned = (ready: readonly string[]): Seats | undefined => {
    const devices = ready.map((agent): Device => ({ agent, macsPerSecond: 1e9 * (1 + (Number(agent.slice(1)) % 3)), memoryBytes: 0 }));
    const links = { usual: { bytesPerSecond: 1e8, latencyMs: 1 }, between: new Map() };
    const problem: PlanProblem = { facts, devices, links, objective: 'throughput', inFlight: 0 };
    const draft = auto(problem);
    if (isRefusal(draft)) throw new Error(draft.reason);
    return draft.stages.map(({ agents }) => agents);
  };

  it.each([
    [12, 5],
    [1000, 2],
  ])(
    'seat nobody who is not there, and come to rest, with %i agents',
    (agents, rounds) => {
      const virtual = playRounds(5, agents, rounds, planned);
      expect(virtual.plans).toBeGreaterThan(2);
      expect(virtual.results).toBeGreaterThan(50);
    },
    180_000,
  );
});
