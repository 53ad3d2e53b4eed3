import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { factsOf } from '../model-library.js';
import { simulatePlan } from '../simulate/simulate.js';
import { computeMs } from './cost.js';
import { musicalChair2018 } from './musical-chair-2018.js';
import { type Device, isRefusal, type Links, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { spread } from './spread.js';

const MIB = 2 ** 20;
/** VGG16: 528 MiB of weights, 392 of them in its first fully connected layer. */
const VGG16 = factsOf(structureOf(drawZoo('vgg16')));

/** As agents of so much of a core, with the memory that a deployment may use of 512 MiB. */
function small(agent: string, cpu = 0.18): Device {
  return {
    agent,
    macsPerSecond: cpu * 1e11,
    memoryBytes: 435 * MIB,
    ...{
      aroundMs: 2 / cpu,
      runMs: 0.5 / cpu,
      nodeMs: 0.01 / cpu,
      messageMs: 0.1 / cpu,
      copyBytesPerSecond: 2e9 * cpu,
      memoryBytesPerSecond: cpu * 2e10,
    },
  };
}

function links(bitsPerSecond: number): Links {
  return { usual: { bytesPerSecond: bitsPerSecond / 8, latencyMs: 0.5 }, between: new Map() };
}

const asked = (devices: readonly Device[], bitsPerSecond: number): PlanProblem => ({
  ...{ facts: VGG16, devices, links: links(bitsPerSecond), objective: 'throughput', inFlight: 0 },
});

function planned(plan: PlanDraft | PlanRefusal): PlanDraft {
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan;
}

/** The best of what is found. */
function best(problem: PlanProblem): PlanDraft {
  const plans = spread(problem, []).filter((plan): plan is PlanDraft => !isRefusal(plan));
  const [first] = plans.toSorted((x, y) => y.estimate.fps - x.estimate.fps);
  if (first === undefined) throw new Error('nothing was found');
  return first;
}

/** Frames per second that all devices compute of the model's blocks, if they had the memory and frames went by themselves. */
function bound(devices: readonly Device[]): number {
  const blockMs = (device: Device): number =>
    VGG16.blocks.reduce((sum, { nodes }) => {
      const spec = { nodes, cut: 'whole' as const, shares: [1] };
      const parts = VGG16.stage(spec);
      const [whole] = isRefusal(parts) ? [] : parts;
      return sum + (whole === undefined ? Number.NaN : computeMs({ ...device, runMs: 0 }, whole, spec, 1));
    }, 0);
  return devices.reduce((sum, device) => sum + 1000 / blockMs(device), 0);
}

const equal = (count: number): Device[] => Array.from({ length: count }, (_, i) => small(`n${i}`));
const uneven = [1, 2, 4, 1, 2, 4].map((speed, i) => small(`n${i}`, 0.1 * speed));

describe('stages with the most work on all that have room', () => {
  it.each([4, 6, 8, 12])('keep %i equal agents, of which none can hold the model, at more than 0.9 of what they can compute', (count) => {
    const plan = best(asked(equal(count), 1e9));
    expect(plan.estimate.fps / bound(equal(count))).toBeGreaterThan(0.9);
    expect(plan.stages[0]?.agents).toHaveLength(count);
    for (const { needBytes, haveBytes } of plan.estimate.memory) expect(needBytes).toBeLessThanOrEqual(haveBytes);
  });

  it.each([
    ['six equal agents at 100 Mbit/s', equal(6), 1e8],
    ['six agents of speeds 1:2:4', uneven, 1e9],
  ] as const)('give %s more than 1.5 times the throughput of the plan of 2018', (_, devices, rate) => {
    const problem = asked(devices, rate);
    expect(best(problem).estimate.fps / planned(musicalChair2018(problem)).estimate.fps).toBeGreaterThan(1.5);
  });

  it.each([
    ['equal', equal(6)],
    ['uneven', uneven],
  ])('have enough frames in flight on %s agents, although runs of large layers stand in the way of small ones', (_, devices) => {
    const problem = asked(devices, 1e9);
    const plan = best(problem);
    const load = { kind: 'closed' as const, inFlight: plan.inFlight };
    const { fps } = simulatePlan({ draft: plan, devices, links: problem.links, load, frames: 300, noise: 0.1 });
    expect(fps / plan.estimate.fps).toBeGreaterThan(0.93);
  });
});
