/** What must hold of `auto` whatever the devices, links and models are. */
import { describe, expect, it } from 'vitest';
import { createRandom } from '../../models/random.js';
import { auto } from './auto.js';
import { type ChainBlock, chain } from './chain-model.js';
import { score } from './draft.js';
import { musicalChair2018 } from './musical-chair-2018.js';
import { pipeline } from './pipeline.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem } from './problem.js';
import { replicas } from './replicas.js';
import { single } from './single.js';

const MIB = 2 ** 20;

/** 1 to 30 blocks on 1 to 12 devices of any kind: some on one host, some with links of their own, memory from plenty to hardly any. */
function anyProblem(seed: number): PlanProblem {
  const next = createRandom(seed);
  const upTo = (most: number): number => 1 + Math.floor(most * next());
  const blocks = Array.from(
    { length: upTo(seed % 4 === 0 ? 30 : 7) },
    (): ChainBlock => ({
      macs: 1e7 * upTo(40),
      weightBytes: MIB * upTo(60),
      rows: 4 * upTo(40),
    }),
  );
  const total = blocks.reduce((sum, block) => sum + block.weightBytes, 0);
  const memory = [0, 2 * total + 200 * MIB, 0.6 * total + 130 * MIB][seed % 3] ?? 0;
  const devices = Array.from(
    { length: upTo(12) },
    (_, i): Device => ({
      agent: `n${i}`,
      macsPerSecond: 1e8 * 2 ** Math.floor(6 * next()),
      memoryBytes: memory,
      otherDeployments: next() < 0.2 ? 1 : 0,
      ...(next() < 0.3 ? { host: `h${i % 2}`, hostShare: 0.5 } : {}),
      ...(next() < 0.2 ? { link: { upBytesPerSecond: 1e6, downBytesPerSecond: 4e6, latencyMs: 3 } } : {}),
    }),
  );
  const usual = { bytesPerSecond: 125e3 * 10 ** (3 * next()), latencyMs: 5 * next() };
  const between = new Map(next() < 0.3 ? [['n0>n1', { bytesPerSecond: 1e5, latencyMs: 20 }] as const] : []);
  return {
    facts: chain(blocks, 40),
    devices,
    links: { usual, between, ...(next() < 0.2 ? { sharedBytesPerSecond: 3e6 } : {}) },
    objective: next() < 0.5 ? 'latency' : 'throughput',
    inFlight: 0,
  };
}

function planned(problem: PlanProblem): PlanDraft {
  const plan = auto(problem);
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

describe('auto, whatever it is asked', () => {
  const baselines = { single, replicas, pipeline, 'musical-chair-2018': musicalChair2018 };

  it('is never predicted worse than a baseline, but for the one device and the fewer agents that it says it prefers', () => {
    let compared = 0;
    for (let seed = 1; seed <= 40; seed++) {
      const problem = anyProblem(seed);
      const plan = auto(problem);
      for (const [name, baseline] of Object.entries(baselines)) {
        const other = baseline(problem);
        if (isRefusal(other)) continue;
        if (isRefusal(plan)) throw new Error(`seed ${seed}: ${name} has a plan, auto has none: ${plan.reason}`);
        compared++;
        const tolerance = plan.why.startsWith('one device is best') ? 1 / 0.9 : 1.0201;
        const ratio = score(plan.estimate, problem.objective) / score(other.estimate, problem.objective);
        expect(ratio, `seed ${seed}: ${plan.planner} against ${name}`).toBeLessThanOrEqual(tolerance + 1e-9);
      }
      if (isRefusal(plan)) continue;
      // Every agent once per stage and replica, every share seated, memory kept.
      for (const { spec, agents } of plan.stages) {
        for (const replica of agents) expect(replica).toHaveLength(spec.shares.length);
        expect(new Set(agents.flat()).size).toBe(agents.flat().length);
      }
      for (const { needBytes, haveBytes } of plan.estimate.memory) if (haveBytes > 0) expect(needBytes).toBeLessThanOrEqual(haveBytes);
    }
    expect(compared).toBeGreaterThan(60);
  }, 600_000);

  it('gives the same plan for the same question', () => {
    for (const seed of [3, 8, 14]) expect(auto(anyProblem(seed))).toEqual(auto(anyProblem(seed)));
  });
});

describe('auto where one device is best, or some are better left out', () => {
  const facts = chain(
    Array.from({ length: 6 }, () => ({ macs: 5e7, weightBytes: 4 * MIB, rows: 60 })),
    60,
  );
  const equal = (count: number): Device[] =>
    Array.from({ length: count }, (_, i) => ({ agent: `n${i}`, macsPerSecond: 5e9, memoryBytes: 1e9 }));
  const over = (bitsPerSecond: number, latencyMs = 1) => ({ usual: { bytesPerSecond: bitsPerSecond / 8, latencyMs }, between: new Map() });

  it('says so on 1 Mbit/s of one medium, and why', () => {
    // 490 ms there and back: what four devices save of 12 ms is nothing. (On links with two directions bands would answer while others still arrive.)
    const light = chain(
      Array.from({ length: 6 }, () => ({ macs: 1e7, weightBytes: 4 * MIB, rows: 60 })),
      60,
    );
    const plan = planned({
      facts: light,
      devices: equal(4),
      links: { ...over(1e6), sharedBytesPerSecond: 125e3 },
      objective: 'latency',
      inFlight: 0,
    });
    expect(plan.planner).toBe('single');
    expect(plan.why).toMatch(/^one device is best \(.*\): nothing else gains more than 10 %; bottleneck: /);
    expect(plan.why).toContain('would change it: faster links');
  });

  it('does not take it for best on fast links', () => {
    const plan = planned({ facts, devices: equal(4), links: over(1e10, 0.1), objective: 'latency', inFlight: 0 });
    expect(plan.stages.flatMap((stage) => stage.agents.flat()).length).toBeGreaterThan(2);
  });

  it('takes what the link of the gateway can carry, and no more devices than that keeps busy', () => {
    // 60 KiB in and out at 1 Mbit/s: about one frame in 490 ms, whatever the number of agents; one agent computes it in 60 ms.
    const plan = planned({ facts, devices: equal(8), links: over(1e6), objective: 'throughput', inFlight: 0 });
    expect(plan.stages.flatMap((stage) => stage.agents.flat())).toHaveLength(1);
    expect(plan.why).toContain('link');
  });

  it('does without devices that hardly move', () => {
    const snails = equal(50).map((device, i): Device => (i < 2 ? device : { ...device, macsPerSecond: 1 }));
    for (const objective of ['latency', 'throughput'] as const) {
      const plan = planned({ facts, devices: snails, links: over(1e9), objective, inFlight: 0 });
      const used = new Set(plan.stages.flatMap((stage) => stage.agents.flat()));
      expect(
        [...used].filter((agent) => !['n0', 'n1'].includes(agent)),
        objective,
      ).toEqual([]);
    }
  });

  it('plans for fifty devices, for one block, and for three hundred', () => {
    const fifty = planned({ facts, devices: equal(50), links: over(1e9), objective: 'throughput', inFlight: 0 });
    expect(fifty.estimate.fps).toBeGreaterThan(0.9 * 50 * (5e9 / 3e8));
    const one = chain([{ macs: 1e9, weightBytes: MIB, rows: 64 }], 64);
    expect(planned({ facts: one, devices: equal(5), links: over(1e9), objective: 'latency', inFlight: 0 }).estimate.latencyMs).toBeLessThan(
      70,
    );
    const many = chain(
      Array.from({ length: 300 }, (_, i) => ({ macs: 1e7 * (1 + (i % 3)), weightBytes: 4 * MIB, rows: 8 })),
      8,
    );
    for (const objective of ['latency', 'throughput'] as const) {
      const plan = planned({ facts: many, devices: equal(6), links: over(1e9), objective, inFlight: 0 });
      // 1.2 GB of weights: on no device alone.
      expect(plan.stages.length, objective).toBeGreaterThan(1);
    }
  }, 600_000);
});
