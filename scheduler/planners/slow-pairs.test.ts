/** Pairs of ends that are slower with each other than with others: what they cost, by the estimator, by the tables of the search, and in simulated time. */
import { describe, expect, it } from 'vitest';
import { DISPATCHER } from '../../broker/topics.js';
import { createRandom } from '../../models/random.js';
import { simulatePlan } from '../simulate/simulate.js';
import type { Layout } from './cells.js';
import { chain, randomProblem } from './chain-model.js';
import { bottleneckLine, draft } from './draft.js';
import { burdens } from './estimate.js';
import { exact } from './exact.js';
import { explain } from './explain.js';
import { gridShares, subsets } from './options.js';
import { bySpeed, type Device, isRefusal, type Link, type Links, type PlanDraft, type PlanProblem, type SeatedStage } from './problem.js';

const MB = 1e6;

/** Devices without fixed costs of runs, nodes and messages: 0.2 ms of a message on a link are left. */
function device(agent: string, gmacs = 1): Device {
  return {
    ...{ agent, macsPerSecond: gmacs * 1e9, memoryBytes: 0, memoryBytesPerSecond: 1e15 },
    ...{ runMs: 0, nodeMs: 0, messageMs: 0, copyBytesPerSecond: 1e15 },
  };
}

const whole = (from: number, end: number, ...agents: string[]): SeatedStage => ({
  spec: { nodes: [from, end], cut: 'whole', shares: [1] },
  agents: agents.map((agent) => [agent]),
});

function drafted(problem: PlanProblem, stages: readonly SeatedStage[]): PlanDraft {
  const plan = draft(problem, 'test', stages);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

/** Of these ends every ordered pair with a chance of `part` has a rate of its own, from a hundredth of the usual one to three times it. */
function anyPairs(ends: readonly string[], usual: Link, part: number, next: () => number): Map<string, Link> {
  const pairs = ends.flatMap((a) => ends.flatMap((b) => (a !== b && next() < part ? [`${a}>${b}`] : [])));
  return new Map(pairs.map((pair) => [pair, { bytesPerSecond: usual.bytesPerSecond * 3 * 300 ** -next(), latencyMs: 3 * next() }]));
}

describe('a slow pair', () => {
  // 1 MB comes in, 1 KB goes out; 100 MB/s everywhere but to x, which computes as fast as the others.
  const problem: PlanProblem = {
    facts: chain([{ macs: 1e7, weightBytes: MB, rows: 1 }], 1000),
    devices: ['a', 'b', 'x'].map((name) => device(name)),
    links: {
      usual: { bytesPerSecond: 100 * MB, latencyMs: 0 },
      between: new Map([[`${DISPATCHER}>x`, { bytesPerSecond: 5 * MB, latencyMs: 0 }]]),
    },
    objective: 'throughput',
    inFlight: 30,
  };
  const inMs = (bytesPerSecond: number): number => 0.2 + ((1000 * 1024) / bytesPerSecond) * 1000;

  it('keeps neither the link of the gateway nor that of its agent for longer than their own rates say: others pass', () => {
    const { cut, stages } = drafted(problem, [{ ...whole(0, 1, 'a', 'b', 'x'), weights: [1, 1, 1] }]);
    const { loads, replicas } = burdens(cut, stages, problem.devices, problem.links);
    expect(loads.get(`link ${DISPATCHER} up`)).toBeCloseTo(inMs(100 * MB), 9);
    expect(loads.get('link x down')).toBeCloseTo(inMs(100 * MB) / 3, 9);
    expect(loads.get(`pair ${DISPATCHER}>x`)).toBeCloseTo(inMs(5 * MB) / 3, 9);
    expect([...loads.keys()].filter((key) => key.startsWith('pair'))).toEqual([`pair ${DISPATCHER}>x`]);
    // Whoever divides frames among replicas is told which of them keeps it.
    expect(replicas[0]?.map((row) => row.get(`pair ${DISPATCHER}>x`))).toEqual([undefined, undefined, expect.closeTo(inMs(5 * MB), 9)]);
  });

  it('is the bottleneck by name, where it is one', () => {
    const plan = drafted(problem, [whole(0, 1, 'x')]);
    expect(plan.estimate.bottleneck).toMatchObject({ kind: 'pair', who: `${DISPATCHER}>x` });
    expect(plan.estimate.bottleneck.ms).toBeCloseTo(inMs(5 * MB), 9);
    expect(bottleneckLine(plan.estimate)).toBe('bottleneck: the way from the gateway to x, 205 ms of each frame');
    const why = explain(problem, { chosen: plan, runnerUp: undefined, oneIsEnough: false, clearGain: 0.1, refusals: [] });
    expect(why).toContain('would change it: a faster way from the gateway to x');
  });

  it('takes one frame as long as its rate says', () => {
    const [near = 0, far = 0] = ['a', 'x'].map((agent) => drafted(problem, [whole(0, 1, agent)]).estimate.latencyMs);
    expect(far - near).toBeCloseTo(inMs(5 * MB) - inMs(100 * MB), 6);
  });

  it('of two quick ends of one machine keeps their links no longer than it takes', () => {
    const links: Links = {
      usual: { bytesPerSecond: MB, latencyMs: 0 },
      between: new Map([['a>b', { bytesPerSecond: 1000 * MB, latencyMs: 0 }]]),
    };
    const facts = chain([1, 1].map((g) => ({ macs: g * 1e7, weightBytes: MB, rows: 1000 })));
    const { cut, stages } = drafted({ ...problem, facts, links }, [whole(0, 1, 'a'), whole(1, 2, 'b')]);
    const { loads } = burdens(cut, stages, problem.devices, links);
    expect(loads.get('link a up')).toBeCloseTo(inMs(1000 * MB), 9);
    expect(loads.get('link b down')).toBeCloseTo(inMs(1000 * MB), 9);
    expect(loads.has('pair a>b')).toBe(false);
  });
});

describe('slow pairs of any kind', () => {
  it('cost the search what they cost the estimator', () => {
    let crossed = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const next = createRandom(seed);
      const objective = seed % 2 === 0 ? 'latency' : 'throughput';
      const plain = randomProblem({ seed, blocks: 2 + (seed % 2), devices: 3, objective, tight: false });
      const devices = bySpeed(plain.devices).map(
        (one, d): Device => ({
          ...one,
          ...(next() < 0.3 ? { otherDeployments: 1 } : {}),
          ...(next() < 0.5 ? { aroundMs: 5 * next(), messageMs: 2 * next(), copyBytesPerSecond: 100 * MB } : {}),
          ...(next() < 0.3 ? { link: { upBytesPerSecond: 3 * MB, downBytesPerSecond: 9 * MB, latencyMs: 1 } } : {}),
          ...(next() < 0.3 ? { quota: { periodMs: 10 * (d + 1), fullSpeed: 0.2 } } : {}),
        }),
      );
      const { usual } = plain.links;
      const between = anyPairs([...devices.map(({ agent }) => agent), DISPATCHER], usual, 0.4, next);
      const links = { usual, between, ...(seed % 5 === 0 ? { sharedBytesPerSecond: 30 * MB } : {}) };
      const problem = { ...plain, devices, links };
      const layouts = subsets(3).flatMap((set): Layout[] => [
        // Of replicas the search for latency follows the first, the estimator the slowest.
        ...(set.length === 1 || objective === 'throughput' ? [{ cut: 'whole' as const, shares: [1], devices: set.map((d) => [d]) }] : []),
        ...(set.length === 1 ? [] : gridShares(set.length).map((shares) => ({ cut: 'rows' as const, shares, devices: [set] }))),
      ]);
      const limits = { bound: Number.POSITIVE_INFINITY, finalists: 40, width: Number.POSITIVE_INFINITY, effort: 8_000 };
      const { plans } = exact(problem, layouts, limits);
      expect(plans.length).toBeGreaterThan(0);
      for (const { stages, value } of plans) {
        const { estimate } = drafted({ ...problem, inFlight: 1000 }, stages);
        expect(objective === 'latency' ? estimate.latencyMs : estimate.bottleneck.ms, `seed ${seed}`).toBeCloseTo(value, 6);
        if (estimate.bottleneck.kind === 'pair') crossed++;
      }
    }
    expect(crossed).toBeGreaterThan(50);
  }, 600_000);

  it('let through in simulated time what the estimator says, in pipelines and in bands', () => {
    const limits: string[] = [];
    for (let seed = 1; seed <= 30; seed++) {
      const next = createRandom(seed);
      const agents = ['a', 'b', 'c', 'd'];
      const usual = { bytesPerSecond: 20 * MB, latencyMs: next() };
      const links = { usual, between: anyPairs([...agents, DISPATCHER], usual, 0.5, next) };
      const link = { upBytesPerSecond: 2 * MB, downBytesPerSecond: 2 * MB, latencyMs: 1 };
      const fleet = agents.map((agent) => ({ ...device(agent, 1 + 3 * next()), ...(next() < 0.1 ? { link } : {}) }));
      const blocks = Array.from({ length: 3 }, () => ({ macs: 1e8 * next(), weightBytes: MB, rows: 50 + Math.floor(400 * next()) }));
      const problem: PlanProblem = { facts: chain(blocks), devices: fleet, links, objective: 'throughput', inFlight: 0 };
      const bands: SeatedStage = { spec: { nodes: [1, 2], cut: 'rows', shares: [0.5, 0.5] }, agents: [['b', 'd']] };
      const plan = drafted(problem, [whole(0, 1, 'a'), seed % 3 === 0 ? bands : whole(1, 2, 'b'), whole(2, 3, 'c')]);
      const { bottleneck } = plan.estimate;
      const inFlight = 4 * plan.inFlight;
      const { fps } = simulatePlan({
        ...{ draft: plan, devices: fleet, links, budget: inFlight, frames: 20 * inFlight, limits: { deadlineMs: 1e9 } },
        load: { kind: 'closed', inFlight },
      });
      const said = 1000 / bottleneck.ms;
      expect(fps / said, `seed ${seed}: ${bottleneck.kind} ${bottleneck.who}`).toBeGreaterThan(0.97);
      expect(fps / said, `seed ${seed}: ${bottleneck.kind} ${bottleneck.who}`).toBeLessThan(1.03);
      limits.push(bottleneck.kind);
    }
    expect(new Set(limits)).toEqual(new Set(['compute', 'link', 'pair']));
  }, 600_000);
});
