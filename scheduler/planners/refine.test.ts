import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { factsOf } from '../model-library.js';
import { auto } from './auto.js';
import { randomProblem } from './chain-model.js';
import { covers } from './covers.js';
import { draft, seated, wholeSpec } from './draft.js';
import { exact } from './exact.js';
import { finer } from './finer.js';
import { everyLayout } from './options.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { refined } from './refine.js';

const MIB = 2 ** 20;
const PLENTY = 1_000_000;
const VGG16 = factsOf(structureOf(drawZoo('vgg16')));

/** As an agent of 0.18 core on a server, where a run costs little besides computing. */
const device = (agent: string, speed = 1): Device => ({
  agent,
  macsPerSecond: speed * 16e9,
  memoryBytesPerSecond: speed * 3e9,
  memoryBytes: 870 * MIB,
  ...{ aroundMs: 1 / speed, runMs: 1 / speed, nodeMs: 0.06 / speed, messageMs: 0.1 / speed, copyBytesPerSecond: speed * 4e8 },
});
const team = (count: number): Device[] => Array.from({ length: count }, (_, i) => device(`n${i}`));
const asked = (devices: readonly Device[], over: Partial<PlanProblem> = {}): PlanProblem => ({
  ...{ facts: VGG16, devices, objective: 'latency', inFlight: 0 },
  links: { usual: { bytesPerSecond: 125e6, latencyMs: 0.5 }, between: new Map() },
  ...over,
});
function planned(plan: PlanDraft | PlanRefusal | undefined): PlanDraft {
  if (plan === undefined || isRefusal(plan)) throw new Error(plan?.reason ?? 'nothing was found');
  return plan;
}

describe('a refined plan', () => {
  it('goes on from a covering cut whose stages begin where no block does', () => {
    const problem = asked(team(4));
    const start = planned(covers(problem).find((plan) => !isRefusal(plan) && plan.planner === 'rows:4'));
    const starts = new Set(VGG16.blocks.map(({ nodes }) => nodes[0]));
    expect(start.stages.some(({ spec }) => !starts.has(spec.nodes[0]))).toBe(true);
    const found = planned(refined(problem, start, PLENTY));
    expect(found.estimate.latencyMs).toBeLessThan(0.97 * start.estimate.latencyMs);
  });

  it('is never slower than it was, and nothing is left to gain by the same steps', () => {
    for (const count of [3]) {
      const problem = asked(team(count));
      const start = planned(draft(problem, 'single', [seated(wholeSpec(VGG16), problem.devices)]));
      const found = planned(refined(problem, start, PLENTY));
      expect(found.estimate.latencyMs).toBeLessThan(start.estimate.latencyMs);
      expect(refined(problem, found, PLENTY)).toBeUndefined();
    }
  });

  it('of small problems comes near the best of all plans, from whatever it begins with', () => {
    const ratios = Array.from({ length: 3 }, (_, seed) => {
      const problem = randomProblem({ seed, blocks: 4, devices: 3, objective: 'latency', tight: false });
      const { plans } = exact(problem, everyLayout(problem.devices, 'latency', true), {
        ...{ bound: Number.POSITIVE_INFINITY, finalists: 1, width: 50, effort: 5_000 },
      });
      const best = planned(draft(problem, 'best', plans[0]?.stages ?? []));
      const start = planned(draft(problem, 'single', [seated(wholeSpec(problem.facts), problem.devices)]));
      return (refined(problem, start, PLENTY) ?? start).estimate.latencyMs / best.estimate.latencyMs;
    }).sort((a, b) => a - b);
    expect(ratios[1]).toBeLessThan(1.02);
    expect(ratios.at(-1)).toBeLessThan(1.5);
  });

  it('does not begin with replicas', () => {
    const problem = asked(team(2));
    const start = planned(draft(problem, 'replicas', [{ spec: wholeSpec(VGG16), agents: [['n0'], ['n1']] }]));
    expect(refined(problem, start, PLENTY)).toBeUndefined();
  });

  it('ends when its effort is spent', () => {
    const problem = asked(team(4));
    const start = planned(draft(problem, 'single', [seated(wholeSpec(VGG16), problem.devices)]));
    const [some, all] = [refined(problem, start, 500), planned(refined(problem, start, PLENTY))];
    expect(some?.estimate.latencyMs ?? start.estimate.latencyMs).toBeGreaterThan(all.estimate.latencyMs);
  });
});

describe('plans for latency', () => {
  it('on more devices are no slower than on the fastest four of them', () => {
    const limited = (agent: string): Device => ({
      ...device(agent),
      ...{ aroundMs: 6.7, messageMs: 2.2, runMs: 2.8, quota: { periodMs: 17.5, fullSpeed: 0.18 } },
    });
    const all = Array.from({ length: 8 }, (_, i) => limited(`n${i}`));
    const facts = factsOf(structureOf(drawZoo('alexnet')));
    const [four, eight] = [4, 8].map((count) => planned(auto(asked(all.slice(0, count), { facts }))).estimate.latencyMs);
    expect(eight).toBeLessThanOrEqual((four ?? 0) * 1.01);
  });

  it('divide the fully connected layers of VGG16, whose weights are most of what one device reads', () => {
    const plan = planned(auto(asked(team(6))));
    const heavy = VGG16.blocks.filter(({ weightBytes }) => weightBytes > 60 * MIB);
    for (const { nodes } of heavy) {
      const stage = plan.stages.find(({ spec }) => spec.nodes[0] <= nodes[0] && spec.nodes[1] > nodes[0]);
      expect(stage?.spec.shares.length).toBeGreaterThan(1);
    }
  });
});

describe('finer blocks', () => {
  it('add up to the blocks that they are made of', () => {
    const inside = VGG16.blocks.flatMap(({ nodes: [start, end] }) => (end - start > 1 ? [start + 1] : []));
    const fine = finer(VGG16, [0, ...inside, 10_000]);
    expect(fine.blocks.length).toBe(VGG16.blocks.length + inside.length);
    const sum = (blocks: typeof VGG16.blocks, figure: 'macs' | 'weightBytes'): number => blocks.reduce((all, one) => all + one[figure], 0);
    for (const figure of ['macs', 'weightBytes'] as const) expect(sum(fine.blocks, figure)).toBe(sum(VGG16.blocks, figure));
    expect(fine.blocks.map(({ nodes }) => nodes[0])).toEqual(
      [...VGG16.blocks.map(({ nodes }) => nodes[0]), ...inside].sort((a, b) => a - b),
    );
    expect(finer(VGG16, [0])).toBe(VGG16);
  });
});
