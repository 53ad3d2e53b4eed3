/** Devices as they are at night: one that others have filled, one that real frames have corrected, one that is quick and has no room. */
import { describe, expect, it } from 'vitest';
import { auto } from './auto.js';
import { chain } from './chain-model.js';
import { score } from './draft.js';
import { filed } from './filed.js';
import { pipeline } from './pipeline.js';
import { type Device, isRefusal, type Objective, type PlanDraft, type PlanProblem } from './problem.js';
import { single } from './single.js';

const MIB = 2 ** 20;

function planned(answer: ReturnType<typeof auto>): PlanDraft {
  if (isRefusal(answer)) throw new Error(answer.reason);
  return answer;
}

/** Two blocks of 60 MiB, the second with nearly all the work; nobody holds both. */
const blocks = [
  { macs: 2e7, weightBytes: 60 * MIB, rows: 8 },
  { macs: 2e9, weightBytes: 60 * MIB, rows: 8 },
];
const device = (agent: string, macsPerSecond: number, memoryMib: number): Device => ({
  agent,
  macsPerSecond,
  memoryBytes: memoryMib * MIB,
});
const links = { usual: { bytesPerSecond: 1e8, latencyMs: 1 }, between: new Map() };
const ask = (devices: readonly Device[], objective: Objective): PlanProblem => ({
  facts: chain(blocks, 8),
  devices,
  links,
  objective,
  inFlight: 0,
});

describe('one device', () => {
  const alone = (over: Partial<Device>, count: number, memoryMib: number): PlanProblem => {
    const long = Array.from({ length: count }, () => ({ macs: 1e9, weightBytes: 60 * MIB, rows: 8 }));
    return { ...ask([{ ...device('one', 1e9, memoryMib), ...over }], 'latency'), facts: chain(long, 8) };
  };

  it.each([2, 12])('holds %i blocks in stages that load one after the other, where it cannot load them as one', (count) => {
    const tight = alone({ loadPeakFactor: 3 }, count, 112 + 60 * count + 150);
    expect(single(tight)).toMatchObject({ refused: true });
    const plan = planned(auto(tight));
    expect(plan.stages.length).toBeGreaterThan(1);
    expect(plan.estimate.memory.every(({ needBytes, haveBytes }) => needBytes <= haveBytes)).toBe(true);
  });

  it.each([2, 12])('runs %i blocks in stages that are known to run quicker than the whole', (count) => {
    const stages = [
      { nodes: [0, count - 1] as const, cut: 'whole' as const, factor: 0.5 },
      { nodes: [count - 1, count] as const, cut: 'whole' as const, factor: 0.5 },
    ];
    const plan = planned(auto(alone({ correction: { all: 1.5, stages } }, count, 4000)));
    expect(plan.stages.map(({ spec }) => spec.nodes)).toEqual(stages.map(({ nodes }) => nodes));
    expect(planned(auto(alone({ correction: { all: 0.5, stages: [] } }, count, 4000))).stages.length).toBe(1);
  });
});

describe('a device that has no room at all', () => {
  const able = [device('slow', 1e9, 180), device('fast', 4e9, 180)];
  it.each(['latency', 'throughput'] as const)('takes nothing from the search among the others, for %s', (objective) => {
    const without = planned(auto(ask(able, objective)));
    for (const speed of [1e8, 2e9, 9e9]) {
      // 1 byte is what planning says of an agent that other deployments have filled.
      for (const full of [device('full', speed, 70), { ...device('full', speed, 0), memoryBytes: 1 }]) {
        const found = planned(auto(ask([...able, full], objective)));
        expect(score(found.estimate, objective)).toBeCloseTo(score(without.estimate, objective), 6);
      }
    }
    // The heavy block on the fast device: a fortieth of the work goes to the slow one at most.
    expect(without.estimate.seats.filter(({ agent }) => agent === 'fast').some(({ macs }) => macs > 1e9)).toBe(true);
  });

  it('does not take the place of one that has, in a pipeline', () => {
    const plan = pipeline(ask([device('full', 9e9, 70), ...able], 'throughput'));
    expect(planned(plan).stages.flatMap(({ agents }) => agents.flat())).toEqual(['slow', 'fast']);
  });

  it('leaves the pipeline the one slow device that holds the large block', () => {
    const facts = chain(
      [
        { macs: 1e8, weightBytes: 10 * MIB, rows: 8 },
        { macs: 1e8, weightBytes: 100 * MIB, rows: 8 },
      ],
      8,
    );
    const devices = [device('a', 4e9, 130), device('b', 4e9, 130), device('c', 1e9, 220)];
    const plan = planned(pipeline({ ...ask(devices, 'throughput'), facts }));
    expect(plan.stages.at(-1)?.agents).toEqual([['c']]);
  });
});

describe('devices that real frames have corrected', () => {
  it('are not taken to be at their bound when they are quicker than was predicted', () => {
    // Bands ran in half the time on both: replicas reach the bound by MACs, and are not nearly the best.
    const factor = { all: 1, stages: [{ nodes: [0, 1] as const, cut: 'rows' as const, factor: 0.5 }] };
    const devices = ['a', 'b'].map((agent): Device => ({ ...device(agent, 2e9, 0), correction: factor }));
    const facts = chain([{ macs: 2e9, weightBytes: 10 * MIB, rows: 64 }], 8);
    const plan = planned(auto({ ...ask(devices, 'throughput'), facts }));
    expect(plan.estimate.fps).toBeGreaterThan(1.8 * (4e9 / 2e9));
  });
});

describe('bands for latency', () => {
  it('are handed out the other way round where that is quicker', () => {
    // All that counts is who gets the first bytes on its slow way: the one whose message comes first.
    const facts = chain(
      [
        { macs: 0, weightBytes: MIB, rows: 40 },
        { macs: 0, weightBytes: MIB, rows: 1 },
      ],
      400,
    );
    const devices = [{ ...device('a', 1.9e9, 0), otherDeployments: 2 }, device('b', 8.9e9, 0)];
    const gateway = { upBytesPerSecond: 13e6, downBytesPerSecond: 23e6, latencyMs: 1 };
    const problem = {
      ...ask(devices, 'latency'),
      facts,
      links: { usual: { bytesPerSecond: 1.5e6, latencyMs: 4.5 }, between: new Map(), gateway },
    };
    const names = (plan: PlanDraft): (readonly string[])[] => plan.stages.map(({ agents }) => agents[0] ?? []);
    const plan = planned(auto(problem));
    const order = names(plan);
    const turned = planned(auto({ ...problem, devices: devices.toReversed() }));
    expect(names(turned)).toEqual(order);
    expect(order).toEqual([['a', 'b']]);
  });
});

describe('a plan from a file', () => {
  it('is not taken silently when it is later than its own objective allows', () => {
    const devices = [device('a', 1e9, 0)];
    const stages = [{ spec: { nodes: [0, 2] as const, cut: 'whole' as const, shares: [1] }, agents: [['a']] }];
    const given = { ...ask(devices, 'throughput'), seated: { by: 'hand', stages } };
    expect(planned(filed({ ...given, maxLatencyMs: 5 })).why).toMatch(/\nlater than its objective allows: \d+ ms instead of 5 ms$/);
    expect(planned(filed({ ...given, maxLatencyMs: 60_000 })).why).not.toContain('later');
  });
});
