import { describe, expect, it } from 'vitest';
import { auto } from './auto.js';
import { chain } from './chain-model.js';
import { mib } from './draft.js';
import { manual } from './manual.js';
import { pipeline } from './pipeline.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { replicas } from './replicas.js';
import { single } from './single.js';

const GMAC = 1e9;
const MIB = 2 ** 20;
const HEAVY = chain([
  { macs: GMAC, weightBytes: 10 * MIB, rows: 100 },
  { macs: GMAC, weightBytes: 20 * MIB, rows: 50 },
  { macs: 2 * GMAC, weightBytes: 200 * MIB, rows: 10 },
]);
const device = (agent: string, speed = 1, memoryMib = 2048): Device => ({
  agent,
  macsPerSecond: speed * GMAC,
  memoryBytes: memoryMib * MIB,
});
const four = ['a', 'b', 'c', 'd'].map((agent) => device(agent));

function problem(over: Partial<PlanProblem> = {}): PlanProblem {
  const links = { usual: { bytesPerSecond: 100e6, latencyMs: 1 }, between: new Map() };
  return { facts: HEAVY, devices: four, links, objective: 'latency', inFlight: 0, ...over };
}
function planned(plan: PlanDraft | PlanRefusal): PlanDraft {
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}
const seats = (plan: PlanDraft) => plan.stages.map((stage) => stage.agents);

describe('single', () => {
  it('takes the fastest device that can hold the model', () => {
    const devices = [device('slow'), device('quick', 3), device('small', 9, 200)];
    const plan = planned(single(problem({ devices })));
    expect(seats(plan)).toEqual([[['quick']]]);
    expect(plan.estimate.latencyMs).toBeCloseTo(4000 / 3 + 0.5 + 2 * 1.2 + 1 + 0.1, 0);
  });

  it('refuses with the tightest limit when no device can hold the model', () => {
    const refusal = single(problem({ devices: [device('a', 1, 300)] }));
    expect(refusal).toMatchObject({ refused: true, reason: expect.stringContaining('a has 300 MiB') });
  });
});

describe('replicas', () => {
  it('uses every device that can hold the model, and predicts the sum of their speeds', () => {
    const devices = [device('a', 2), device('b', 1), device('tiny', 1, 100)];
    const plan = planned(replicas(problem({ devices, objective: 'throughput' })));
    expect(seats(plan)).toEqual([[['a'], ['b']]]);
    expect(plan.estimate.fps).toBeCloseTo(3 / 4, 2);
    expect(plan.estimate.latencyMs).toBeCloseTo(4000, -2);
    // A frame alone goes to the fast one.
    expect(plan.estimate.usualLatencyMs).toBeCloseTo(2000, -2);
  });

  it('counts frames in flight by the mean of what they take, not by the slowest way', () => {
    const devices = [device('fast', 10), device('slow', 1)];
    const two = planned(replicas(problem({ devices, objective: 'throughput', inFlight: 2 })));
    // Of eleven frames the fast one takes ten, of 0.4 s each: two in flight keep both busy, where the slowest way alone would allow 0.5 frames/s.
    expect(two.estimate.fps).toBeCloseTo(11 / 4, 1);
  });
});

describe('pipeline', () => {
  it('balances stages over devices for throughput', () => {
    const plan = planned(pipeline(problem({ objective: 'throughput', devices: four.slice(0, 2) })));
    expect(plan.stages.map((stage) => stage.spec.nodes)).toEqual([
      [0, 2],
      [2, 3],
    ]);
    expect(plan.estimate.fps).toBeCloseTo(0.5, 2);
  });

  it('gives the heavy stage to the fast device', () => {
    const plan = planned(pipeline(problem({ objective: 'throughput', devices: [device('slow', 1), device('fast', 3)] })));
    const heavy = plan.stages.find((stage) => stage.spec.nodes[1] === 3);
    expect(heavy?.agents).toEqual([['fast']]);
  });

  it('divides a model that fits no device alone, also for latency', () => {
    const devices = [device('a', 1, 350), device('b', 1, 350)];
    expect(isRefusal(single(problem({ devices: devices.map((d) => ({ ...d, memoryBytes: 330 * MIB })) })))).toBe(true);
    const plan = planned(pipeline(problem({ devices: devices.map((d) => ({ ...d, memoryBytes: 330 * MIB })) })));
    expect(new Set(plan.stages.flatMap((s) => s.agents.flat())).size).toBe(2);
  });

  it('finds the best division of tiny cases, as brute force does', () => {
    const loads = [3, 1, 4, 1, 5, 2];
    const facts = chain(loads.map((g) => ({ macs: g * GMAC, weightBytes: MIB, rows: 1 })));
    const devices = [device('a', 1), device('b', 2), device('c', 4)];
    const plan = planned(pipeline(problem({ facts, devices, objective: 'throughput' })));
    let bestMs = Number.POSITIVE_INFINITY;
    const orders = [0, 1, 2].flatMap((x) => [0, 1, 2].flatMap((y) => [0, 1, 2].map((z) => [x, y, z])));
    for (const order of orders.filter((o) => new Set(o).size === 3)) {
      for (let i = 0; i <= 6; i++) {
        for (let j = i; j <= 6; j++) {
          const work = [loads.slice(0, i), loads.slice(i, j), loads.slice(j)].map((part) => part.reduce((a, b) => a + b, 0));
          bestMs = Math.min(bestMs, Math.max(...work.map((g, k) => (g * 1000) / 2 ** (order[k] ?? 0))));
        }
      }
    }
    expect(plan.estimate.bottleneck.ms).toBeCloseTo(bestMs, -1);
  });

  it('makes exactly as many stages as asked for, or says why not', () => {
    const manually = (parts: number) => manual(problem({ manual: { kind: 'stages', parts, shares: [] } }));
    expect(planned(manually(3)).stages).toHaveLength(3);
    expect(manually(4)).toMatchObject({ reason: expect.stringContaining('3 blocks') });
    expect(manually(5)).toMatchObject({ reason: expect.stringContaining('needs 5 agents') });
  });

  it('takes many blocks on many devices', () => {
    const facts = chain(Array.from({ length: 100 }, (_, i) => ({ macs: GMAC * (1 + (i % 5)), weightBytes: MIB, rows: 4 })));
    const devices = Array.from({ length: 24 }, (_, i) => device(`n${i}`, 1 + (i % 3)));
    const plan = planned(pipeline(problem({ facts, devices, objective: 'throughput' })));
    expect(plan.stages.length).toBeGreaterThan(10);
  });
});

describe('manual', () => {
  it('seats the largest share on the fastest agent', () => {
    const devices = [device('slow', 1), device('fast', 3)];
    const plan = planned(manual(problem({ devices, manual: { kind: 'rows', parts: 2, shares: [1, 3] } })));
    expect(seats(plan)).toEqual([[['fast', 'slow']]]);
    expect(plan.stages[0]?.spec.shares).toEqual([3, 1]);
    expect(plan.planner).toBe('rows:2');
  });

  it('refuses more parts than agents, and shares that do not match', () => {
    expect(manual(problem({ manual: { kind: 'rows', parts: 5, shares: [] } }))).toMatchObject({
      reason: expect.stringContaining('5 agents'),
    });
    expect(manual(problem({ manual: { kind: 'rows', parts: 2, shares: [1, 1, 1] } }))).toMatchObject({ refused: true });
  });
});

describe('auto', () => {
  it('cuts for latency when the links are fast, with shares by speed', () => {
    const plan = planned(auto(problem({ devices: [device('a', 3), device('b', 1)] })));
    expect(plan.planner).toBe('rows:2');
    expect(plan.stages[0]?.spec.shares).toEqual([1, 1 / 3]);
    expect(plan.estimate.latencyMs).toBeLessThan(1100);
    expect(plan.why.split('\n')).toHaveLength(3);
  });

  it('says that one device is best when the links are slow', () => {
    const facts = chain([{ macs: GMAC / 1000, weightBytes: MIB, rows: 4 }], 4);
    const links = { usual: { bytesPerSecond: 100e6, latencyMs: 5 }, between: new Map() };
    const plan = planned(auto(problem({ facts, links })));
    expect(plan.planner).toBe('single');
    expect(plan.why).toContain('one device is best');
    expect(plan.why.split('\n').length).toBeLessThanOrEqual(3);
  });

  it('replicates for throughput, and divides what fits nowhere whole', () => {
    expect(planned(auto(problem({ objective: 'throughput' }))).estimate.fps).toBeCloseTo(1, 1);
    const devices = four.map((d) => ({ ...d, memoryBytes: 330 * MIB }));
    const plan = planned(auto(problem({ devices, objective: 'throughput' })));
    const cover = planned(pipeline(problem({ devices, objective: 'throughput' })));
    expect(plan.estimate.fps).toBeGreaterThanOrEqual(cover.estimate.fps);
    expect(plan.stages.length).toBeGreaterThan(1);
  });

  it('seats the stage with the most work also where others sit, with as many frames for each as that leaves room for', () => {
    // 4, 1 and 1 s of work; all memory holds the first layer beside one of the others, none holds both of these.
    const facts = chain([
      { macs: 4 * GMAC, weightBytes: 10 * MIB, rows: 4 },
      { macs: GMAC, weightBytes: 150 * MIB, rows: 4 },
      { macs: GMAC, weightBytes: 150 * MIB, rows: 4 },
    ]);
    const devices = four.map((d) => ({ ...d, memoryBytes: (112 + 180) * MIB }));
    const plan = planned(auto(problem({ facts, devices, objective: 'throughput' })));
    // A layer on four by speed alone: 1 s on each, and 2 s where another layer is.
    expect(plan.estimate.fps).toBeGreaterThan(0.6);
    expect(plan.estimate.fps).toBeLessThan(4 / 6);
  });

  it('leaves out a device that would slow the others down', () => {
    const links = {
      usual: { bytesPerSecond: 100e6, latencyMs: 40 },
      between: new Map([['dispatcher>snail', { bytesPerSecond: 1e4, latencyMs: 500 }]]),
    };
    const plan = planned(auto(problem({ devices: [device('a', 2), device('b', 2), device('snail', 0.01)], links })));
    expect(seats(plan).flat(2)).not.toContain('snail');
  });

  it('seats no more replicas than the gateway can feed', () => {
    const devices = Array.from({ length: 60 }, (_, i) => device(`d${i}`, 1 + (i % 3)));
    const links = { usual: { bytesPerSecond: 1e5, latencyMs: 1 }, between: new Map() };
    const facts = { ...HEAVY, inputBytes: 50_000 };
    const asked = problem({ facts, devices, links, objective: 'throughput' });
    const [all, plan] = [planned(replicas(asked)), planned(auto(asked))];
    expect(all.estimate.bottleneck.kind).toBe('link');
    expect(plan.estimate.fps).toBeGreaterThanOrEqual(0.98 * all.estimate.fps);
    expect(new Set(seats(plan).flat(2)).size).toBeLessThan(20);
  });

  it('names every limit when nothing fits', () => {
    const devices = four.map((d) => ({ ...d, memoryBytes: 50 * MIB }));
    expect(auto(problem({ devices }))).toMatchObject({ refused: true, reason: expect.stringContaining(mib(50 * MIB)) });
  });
});
