import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { factsOf } from '../model-library.js';
import { simulatePlan } from '../simulate/simulate.js';
import { auto } from './auto.js';
import { computeMs } from './cost.js';
import { wholeSpec } from './draft.js';
import { musicalChair2018 } from './musical-chair-2018.js';
import { type Device, isRefusal, type Links, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';

const MIB = 2 ** 20;
/** VGG16: 528 MiB of weights, 392 of them in its first fully connected layer. */
const VGG16 = factsOf(structureOf(drawZoo('vgg16')));

/** As agents of so much of a core, with the memory that a deployment may use of 512 MiB. */
function small(agent: string, cpu = 0.18): Device {
  return {
    agent,
    macsPerSecond: cpu * 1e11,
    memoryBytes: 435 * MIB,
    ...{ aroundMs: 2 / cpu, runMs: 0.5 / cpu, nodeMs: 0.01 / cpu, messageMs: 0.1 / cpu, copyBytesPerSecond: 2e9 * cpu, memoryBytesPerSecond: cpu * 2e10 },
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

/** Frames per second of devices that hold all of the model, each by itself. */
function alone(devices: readonly Device[]): number {
  const spec = wholeSpec(VGG16);
  const parts = VGG16.stage(spec);
  const [whole] = isRefusal(parts) ? [] : parts;
  if (whole === undefined) throw new Error('a model is a stage');
  return devices.reduce((sum, device) => sum + 1000 / computeMs(device, whole, spec, 1), 0);
}

const equal = (count: number): Device[] => Array.from({ length: count }, (_, i) => small(`n${i}`));

describe('auto for throughput where no agent can hold the model', () => {
  it.each([2, 4, 6, 8, 12])('keeps %i equal agents at more than 0.85 of what they would compute with memory enough', (count) => {
    const devices = equal(count);
    const plan = planned(auto(asked(devices, 1e9)));
    expect(plan.estimate.fps / alone(devices)).toBeGreaterThan(0.85);
    for (const { needBytes, haveBytes } of plan.estimate.memory) expect(needBytes).toBeLessThanOrEqual(haveBytes);
  });

  it.each([
    ['six equal agents at 100 Mbit/s', equal(6), 1e8],
    ['six agents of speeds 1:2:4', [1, 2, 4, 1, 2, 4].map((speed, i) => small(`n${i}`, 0.1 * speed)), 1e9],
  ] as const)('gives %s more than 1.5 times the throughput of the plan of 2018', (_, devices, rate) => {
    const problem = asked(devices, rate);
    const [plan, papers] = [planned(auto(problem)), planned(musicalChair2018(problem))];
    expect(plan.estimate.fps / papers.estimate.fps).toBeGreaterThan(1.5);
  });

  it('has so many frames in flight that nobody waits for them, although runs of large layers stand in the way of small ones', () => {
    for (const devices of [equal(6), [1, 2, 4, 1, 2, 4].map((speed, i) => small(`n${i}`, 0.1 * speed))]) {
      const problem = asked(devices, 1e9);
      const plan = planned(auto(problem));
      const load = { kind: 'closed' as const, inFlight: plan.inFlight };
      const { fps } = simulatePlan({ draft: plan, devices, links: problem.links, load, frames: 300, noise: 0.1 });
      expect(fps / plan.estimate.fps).toBeGreaterThan(0.93);
    }
  });
});
