/** The schedule of chaos in virtual time: the parts that decide, the local repair among them, with up to 10,000 agents, and whole plans for up to 1,000. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { auto } from '../../scheduler/planners/auto.js';
import { isRefusal, type PlanDraft, type PlanProblem } from '../../scheduler/planners/problem.js';
import { type FaultKind, KINDS, schedule } from './schedule.js';
import { Virtual } from './virtual.js';
import { deviceOf, LINKS, model, type Planning, type Stage, seated } from './virtual-plans.js';

const named = (from: number, count: number): string[] => Array.from({ length: count }, (_, i) => `n${from + i}`);

const [SHORT, LONG] = [model(3), model(200)];

/** One model in three stages, spread over who is there: cut in two parts, in replicas, whole. The other, `c`, is coded where there are agents enough. */
function spread(ready: readonly string[], deployment: string): PlanDraft | undefined {
  const at = (i: number): string => ready[(i * 7) % ready.length] ?? '';
  const [one = '', two = '', three = '', four] = ready.slice(-4);
  if (deployment === 'c' && four !== undefined) {
    return seated(SHORT, [
      ['rows', 1, [[one, two, three]]],
      ['rows', 1, [[two, four, one]]],
      ['whole', 0, [[four]]],
    ]);
  }
  return seated(SHORT, [
    ['rows', 0, [[at(0), at(1)]]],
    ['whole', 0, [[at(2)], [at(3)], [at(4)]]],
    ['whole', 0, [[at(5)]]],
  ]);
}

/** A stage for each of 200 agents, as far as there are so many. */
function long(ready: readonly string[]): PlanDraft | undefined {
  return seated(
    LONG,
    Array.from({ length: 200 }, (_, i): Stage => ['whole', 0, [[ready[i % ready.length] ?? '']]]),
  );
}

interface Play {
  readonly seed: number;
  readonly agents: number;
  readonly rounds: number;
  readonly plan?: Planning;
  readonly kinds?: readonly FaultKind[];
  readonly deployments?: readonly string[];
  /** Agents beside them to which nothing happens. */
  readonly others?: number;
}

function playRounds({ seed, agents, rounds, plan = spread, kinds = KINDS, deployments = ['a', 'b', 'c'], others = 0 }: Play): Virtual {
  const world = { agents: named(1, agents), spares: named(agents + 1, 2), kinds };
  const bystanders = named(agents + 3, others);
  const virtual = new Virtual({ agents: [...world.agents, ...bystanders], seed, plan, deployments, framesPerSecond: 8 });
  const coming = schedule(seed, world);
  for (let i = 0; i < rounds; i++) {
    const round = coming.next().value;
    virtual.play({ ...round, present: [...round.present, ...bystanders] });
  }
  virtual.end();
  return virtual;
}

describe('registry, reconcile, repair and frames under chaos in virtual time', () => {
  it('give each frame its one outcome and come to rest after every round, whatever the seed', () => {
    // Some kinds at a time: where all come, one covers up for the other.
    const some = fc.oneof(fc.constant([...KINDS]), fc.subarray([...KINDS], { minLength: 1, maxLength: 3 }));
    const all = { repairs: 0, unrepaired: 0 };
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e6 }), fc.integer({ min: 4, max: 40 }), some, (seed, agents, kinds) => {
        const { service } = playRounds({ seed, agents, rounds: 10, kinds });
        expect(service.results).toBeGreaterThan(100);
        // Explicit, and for want of somebody to compute them.
        const fair = ['FRAME_DEADLINE', 'FRAME_FAILED', 'FRAME_REFUSED', 'DEPLOYMENT_REMOVED'];
        expect([...service.codes.keys()].filter((code) => !fair.includes(code))).toEqual([]);
        all.repairs += service.repairs;
        all.unrepaired += service.unrepaired;
      }),
      { numRuns: Number(process.env.CHAOS_RUNS ?? 40) },
    );
    // Most losses are repaired; some cannot be.
    expect(all.repairs).toBeGreaterThan(2 * all.unrepaired);
  }, 600_000);

  it('do so with 10,000 agents, of which 300 have bad luck', () => {
    const { service, events } = playRounds({ seed: 4, agents: 300, others: 9700, rounds: 1, plan: long, deployments: ['a'] });
    expect(service.results).toBeGreaterThan(100);
    // All but one of them at once, and with them nearly all of a plan of 200 stages: others take them over.
    expect(events).toBeGreaterThan(500);
    expect(service).toMatchObject({ repairs: 1, unrepaired: 0 });
  }, 240_000);

  it('plan no more often than something happens to the agents of a plan', () => {
    const { service, events } = playRounds({ seed: 9, agents: 200, rounds: 20 });
    expect(service.plans + service.repairs).toBeLessThan(4 * events);
  }, 60_000);
});

describe('whole plans under chaos in virtual time', () => {
  const facts = model(12);
  /** What `auto` makes of those that are there. */
  const planned = (ready: readonly string[]): PlanDraft | undefined => {
    const problem: PlanProblem = { facts, devices: ready.map(deviceOf), links: LINKS, objective: 'throughput', inFlight: 0 };
    const draft = auto(problem);
    return isRefusal(draft) ? undefined : draft;
  };

  it.each([
    [12, 5],
    [1000, 2],
  ])(
    'seat nobody who is not there, and come to rest, with %i agents',
    (agents, rounds) => {
      const { service } = playRounds({ seed: 5, agents, rounds, plan: planned, deployments: ['a', 'b'] });
      expect(service.plans).toBeGreaterThan(2);
      expect(service.results).toBeGreaterThan(50);
    },
    180_000,
  );
});
