/** The planner against all plans there are, and against the clock. `PLANNER_SEEDS=50 PLANNER_EFFORT=5000000` looks at more cases, and looks longer; `PLANNER_UNEVEN=5000` at so many more uneven ones. */
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../models/random.js';
import { auto } from './auto.js';
import type { Layout } from './cells.js';
import { chain, randomProblem, unevenProblem } from './chain-model.js';
import { draft, score } from './draft.js';
import { exact } from './exact.js';
import { gridShares, subsets } from './options.js';
import {
  bySpeed,
  classesOf,
  type Device,
  isRefusal,
  type Objective,
  type PlanDraft,
  type PlanProblem,
  type SeatedStage,
} from './problem.js';

const MIB = 2 ** 20;
const SEEDS = Number(process.env.PLANNER_SEEDS ?? 1);
/** Stages that the yardstick may price for a case. Beyond it only the best beginnings are followed, and the case proves less. */
const EFFORT = Number(process.env.PLANNER_EFFORT ?? 60_000);

/** Everything a stage may be: whole on a device, whole on several in turn, or rows over several in shares of quarters. */
function layoutsOn(devices: number): Layout[] {
  return subsets(devices).flatMap((set): Layout[] => {
    const whole: Layout = { cut: 'whole', shares: [1], devices: set.map((d) => [d]) };
    const grids = set.length === 1 ? [] : gridShares(set.length);
    return [whole, ...grids.map((shares): Layout => ({ cut: 'rows', shares, devices: [set] }))];
  });
}

/** The best score of all plans, each cut and estimated: nothing is left out, nothing is remembered. */
function bruteForce(problem: PlanProblem): number {
  const { facts, devices, objective } = problem;
  const layouts = layoutsOn(devices.length);
  let best = Number.POSITIVE_INFINITY;
  const go = (done: number, stages: readonly SeatedStage[]): void => {
    if (done === facts.blocks.length) {
      const plan = draft(problem, 'brute', stages);
      const late = !isRefusal(plan) && plan.estimate.latencyMs > (problem.maxLatencyMs ?? Number.POSITIVE_INFINITY);
      if (!isRefusal(plan) && !late) best = Math.min(best, score(plan.estimate, objective));
      return;
    }
    for (let end = done + 1; end <= facts.blocks.length; end++) {
      const nodes = [facts.blocks[done]?.nodes[0] ?? 0, facts.blocks[end - 1]?.nodes[1] ?? 0] as const;
      for (const { cut, shares, devices: seats } of layouts) {
        const agents = seats.map((replica) => replica.map((d) => devices[d]?.agent ?? ''));
        go(end, [...stages, { spec: { nodes, cut, shares }, agents }]);
      }
    }
  };
  go(0, []);
  return best;
}

/** Is there a plan better than `bound`? By a search that drops only what provably cannot be. */
function anyBetter(problem: PlanProblem, bound: number) {
  const limits = { bound, finalists: 3, width: Number.POSITIVE_INFINITY, effort: EFFORT };
  const { plans, complete } = exact(problem, layoutsOn(problem.devices.length), limits);
  const scores = plans.map(({ stages, value }) => {
    const plan = draft(problem, 'yardstick', stages);
    if (isRefusal(plan)) return { value, shown: Number.NaN, real: Number.POSITIVE_INFINITY };
    const { estimate } = plan;
    // Where few frames fit into memory, fewer come out than the busiest resource allows.
    const shown = problem.objective === 'latency' ? estimate.latencyMs : estimate.bottleneck.ms;
    // Of replicas the estimate tells of the slowest; the search for latency follows the first, as planners ask it of none.
    const follows = problem.objective === 'throughput' || stages.every(({ agents }) => agents.length === 1);
    return { value, shown: follows ? shown : value, real: score(estimate, problem.objective) };
  });
  return { scores, complete };
}

/** Equal names for the objectives: the bounded one asks for a latency that the unbounded plan does not keep. */
type Wanted = Objective | 'throughput<ms';

interface Case {
  readonly seed: number;
  readonly blocks: number;
  readonly devices: number;
  readonly memory: boolean;
}

function problemOf({ seed, blocks, devices, memory }: Case, objective: Objective): PlanProblem {
  const made = randomProblem({ seed: seed * 100 + blocks * 10 + devices, blocks, devices, objective, tight: memory });
  // The search wants equal devices beside each other.
  return { ...made, devices: bySpeed(made.devices) };
}

/** Plans without a bound: a case under one begins with both, and they are cases themselves. */
const PLANNED = new Map<string, PlanDraft>();

function planned(one: Case, objective: Objective): PlanDraft {
  const key = `${JSON.stringify(one)} ${objective}`;
  const plan = PLANNED.get(key) ?? auto(problemOf(one, objective));
  if (isRefusal(plan)) throw new Error(`a chain fits on these devices: ${plan.reason}`);
  PLANNED.set(key, plan);
  return plan;
}

function asked(one: Case, wanted: Wanted): PlanProblem {
  const problem = problemOf(one, wanted === 'latency' ? 'latency' : 'throughput');
  if (wanted !== 'throughput<ms') return problem;
  const free = planned(one, 'throughput');
  const quick = planned(one, 'latency');
  return {
    ...problem,
    maxLatencyMs: quick.estimate.latencyMs * 1.02 + 0.5 * Math.max(0, free.estimate.latencyMs - quick.estimate.latencyMs),
  };
}

describe('the exact search', () => {
  const tiny = [
    [3, 2],
    [2, 3],
    [3, 3],
    [2, 4],
  ] as const;
  const wanted: readonly Wanted[] = ['latency', 'throughput', 'throughput<ms'];
  it.each(tiny.flatMap(([blocks, devices]) => wanted.map((objective) => [blocks, devices, objective] as const)))(
    '%i blocks on %i devices for %s: finds what looking at every plan finds',
    (blocks, devices, objective) => {
      for (const memory of [false, true]) {
        const problem = asked({ seed: 7, blocks, devices, memory }, objective);
        const { scores, complete } = anyBetter(problem, Number.POSITIVE_INFINITY);
        expect(complete).toBe(true);
        expect(Math.min(...scores.map(({ real }) => real))).toBeCloseTo(bruteForce(problem), 6);
      }
    },
    600_000,
  );

  it('adds up what the estimator says, also where hosts, links, media and the gateway are of their own kind', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const plain = asked({ seed, blocks: 4, devices: 3, memory: seed % 2 === 0 }, wanted[seed % 3] ?? 'latency');
      const next = createRandom(seed);
      const devices = plain.devices.map(
        (device, d): Device => ({
          ...device,
          ...(d < 2 ? { host: 'together', hostShare: 0.5 + 0.5 * next() } : {}),
          ...(d === 2 ? { link: { upBytesPerSecond: 3e6, downBytesPerSecond: 9e6, latencyMs: 2 } } : {}),
          copyBytesPerSecond: 1e8 * (1 + next()),
          otherDeployments: d % 2,
          ...(d > 0 ? { quota: { periodMs: 10 * d, fullSpeed: 0.2 + 0.6 * next() } } : {}),
        }),
      );
      const links = {
        ...plain.links,
        gateway: { upBytesPerSecond: 2e7, downBytesPerSecond: 1e7, latencyMs: 0.2 },
        ...{ gatewayFrameMs: 3, sharedBytesPerSecond: 5e7 },
        between: new Map([['d0>d1', { bytesPerSecond: 4e6, latencyMs: 4 }]]),
      };
      const { maxLatencyMs: _, ...open } = plain;
      const { scores } = anyBetter({ ...open, devices, links }, Number.POSITIVE_INFINITY);
      expect(scores.length).toBeGreaterThan(0);
      for (const { value, shown } of scores) expect(shown, `${open.objective} ${seed}`).toBeCloseTo(value, 6);
    }
  });
});

describe('the exact search on devices that real frames have corrected', () => {
  it.each(['latency', 'throughput'] as const)(
    'finds what looking at every plan finds, for %s',
    (objective) => {
      for (let seed = 1; seed <= 4; seed++) {
        const plain = asked({ seed, blocks: 3, devices: 2, memory: seed % 2 === 0 }, objective);
        const devices = plain.devices.map(
          (device, d): Device => ({
            ...device,
            correction: { all: d === 0 ? 0.6 : 1.5, stages: [{ nodes: [0, 1], cut: 'rows', factor: 0.5 }] },
            ...(d === 1 ? { quota: { periodMs: 20, fullSpeed: 0.3 } } : {}),
          }),
        );
        const problem = { ...plain, devices };
        const { scores, complete } = anyBetter(problem, Number.POSITIVE_INFINITY);
        expect(complete).toBe(true);
        expect(Math.min(...scores.map(({ real }) => real))).toBeCloseTo(bruteForce(problem), 6);
      }
    },
    600_000,
  );
});

describe('auto against all plans', () => {
  const sizes = [
    [2, 4],
    [3, 4],
    [4, 2],
    [4, 3],
    [4, 4],
    [5, 3],
    [5, 4],
    [6, 2],
    [6, 3],
    [6, 4],
  ] as const;
  const cases = sizes.flatMap(([blocks, devices]) =>
    (['latency', 'throughput', 'throughput<ms'] as const).flatMap((wanted) =>
      [false, true].map((memory) => [blocks, devices, wanted, memory] as const),
    ),
  );
  it.each(cases)(
    '%i blocks on %i devices for %s, memory tight: %s: nothing is 2 percent better',
    (blocks, devices, wanted, memory) => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const one = { seed, blocks, devices, memory };
        const problem = asked(one, wanted);
        const plan = wanted === 'throughput<ms' ? auto(problem) : planned(one, wanted);
        if (isRefusal(plan)) throw new Error(plan.reason);
        // One device is preferred to a gain below 10 %: that choice is not what is tested here.
        const found = score(plan.estimate, problem.objective) * (plan.why.startsWith('one device is best') ? 0.9 : 1);
        const { scores, complete } = anyBetter(problem, found / 1.02);
        if (process.env.PLANNER_SEEDS !== undefined && !complete)
          console.log(`${blocks} on ${devices} ${wanted} seed ${seed}: not all was seen`);
        expect(
          scores.map(({ real }) => found / real),
          `${plan.planner}, seed ${seed}`,
        ).toEqual([]);
      }
    },
    600_000,
  );
});

/** Every size, memory and objective in turn. Its devices are those of one class beside each other, as the yardstick wants them. */
function unevenCase(seed: number): PlanProblem | undefined {
  const [blocks, devices, tight] = [1 + (seed % 6), 1 + (Math.floor(seed / 6) % 4), Math.floor(seed / 24) % 2 === 1];
  const wanted = (['latency', 'throughput', 'throughput<ms'] as const)[Math.floor(seed / 48) % 3] ?? 'latency';
  const made = unevenProblem({ seed, blocks, devices, objective: wanted === 'latency' ? 'latency' : 'throughput', tight });
  const problem = { ...made, devices: classesOf(bySpeed(made.devices), made.links).flat() };
  if (wanted !== 'throughput<ms') return problem;
  const [quick, free] = [auto({ ...problem, objective: 'latency' }), auto(problem)];
  if (isRefusal(quick) || isRefusal(free)) return undefined;
  const [least, most] = [quick.estimate.latencyMs, free.estimate.latencyMs];
  return { ...problem, maxLatencyMs: least * 1.02 + 0.5 * Math.max(0, most - least) };
}

describe('auto on devices and links that all differ, some of them corrected, full, shared or under a quota', () => {
  // These were 6.1 and 4.1 % off.
  const once = [4383, 1534];
  const first = [3, 8, 27, 51, 58, 99, 106, 193];
  const more = Array.from({ length: Number(process.env.PLANNER_UNEVEN ?? 0) }, (_, i) => 100_000 + i);
  it('nothing is 2 percent better', () => {
    for (const seed of [...once, ...first, ...more]) {
      const problem = unevenCase(seed);
      if (problem === undefined) continue;
      const plan = auto(problem);
      const found = isRefusal(plan) ? Number.POSITIVE_INFINITY : score(plan.estimate, problem.objective);
      // One device, as one stage, is preferred to a gain below 10 %.
      const simple = !isRefusal(plan) && (plan.why.startsWith('one device is best') || plan.planner === 'single');
      const { scores } = anyBetter(problem, (found * (simple ? 0.9 : 1)) / 1.02);
      const better = scores.filter(({ real }) => real < Number.POSITIVE_INFINITY).map(({ real }) => found / real);
      expect(better, `seed ${seed}`).toEqual([]);
    }
  }, 3_600_000);
});

describe('auto where inputs are large', () => {
  const blocks = Array.from({ length: 100 }, (_, i) => ({ macs: 1e9 * (1 + (i % 5)), weightBytes: 20 * MIB, rows: 4 }));
  const thousand = (memoryBytes: number) =>
    Array.from({ length: 1000 }, (_, i): Device => ({ agent: `n${i}`, macsPerSecond: 1e9 * (1 + (i % 3)), memoryBytes }));
  const links = { usual: { bytesPerSecond: 120e6, latencyMs: 0.3 }, between: new Map() };

  it.each([4e9, 5e8])('keeps 1,000 devices of %d bytes at 95 percent of all their speed', (memory) => {
    const devices = thousand(memory);
    const plan = auto({ facts: chain(blocks), devices, links, objective: 'throughput', inFlight: 0 });
    if (isRefusal(plan)) throw new Error(plan.reason);
    const bound = devices.reduce((sum, device) => sum + device.macsPerSecond, 0) / blocks.reduce((sum, block) => sum + block.macs, 0);
    expect(plan.estimate.fps).toBeGreaterThan(0.95 * bound);
  });

  it('keeps a latency bound, or says what is possible', () => {
    const facts = chain(blocks.slice(0, 5));
    const devices = thousand(4e9).slice(0, 6);
    const ask = (maxLatencyMs: number) => auto({ facts, devices, links, objective: 'throughput', inFlight: 0, maxLatencyMs });
    const loose = ask(60_000);
    const tight = ask(2500);
    if (isRefusal(loose) || isRefusal(tight)) throw new Error('both are possible');
    expect(tight.estimate.latencyMs).toBeLessThanOrEqual(2500);
    expect(tight.estimate.fps).toBeLessThanOrEqual(loose.estimate.fps + 1e-9);
    expect(ask(10)).toMatchObject({ refused: true, reason: expect.stringContaining('within 10 ms') });
  });
});
