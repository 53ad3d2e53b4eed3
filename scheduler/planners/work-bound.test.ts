import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { factsOf } from '../model-facts.js';
import { auto } from './auto.js';
import { randomProblem, unevenProblem } from './chain-model.js';
import { type Device, isRefusal, type Links, type PlanDraft, type PlanProblem } from './problem.js';
import { replicas } from './replicas.js';
import { single } from './single.js';
import { mostFps } from './work-bound.js';

const VGG16 = factsOf(structureOf(drawZoo('vgg16')));
const LINKS: Links = { usual: { bytesPerSecond: 1e9, latencyMs: 0.1 }, between: new Map() };

function on(devices: readonly Device[]): PlanProblem {
  return { facts: VGG16, devices, links: LINKS, objective: 'throughput', inFlight: 0 };
}
function fpsOf(plan: PlanDraft | { readonly refused: true; readonly reason: string }): number {
  if (isRefusal(plan)) throw new Error(plan.reason);
  return plan.estimate.fps;
}

describe('the most frames that devices can compute', () => {
  it('is what equal devices do that each have all of the model, layers that wait for memory included', () => {
    const devices = Array.from({ length: 16 }, (_, i): Device => ({ agent: `n${i}`, macsPerSecond: 5e9, memoryBytes: 0 }));
    const bound = mostFps(on(devices));
    const reached = fpsOf(replicas(on(devices)));
    expect(reached).toBeLessThanOrEqual(bound);
    expect(reached).toBeGreaterThan(0.999 * bound);
    // By MACs alone it would seem that a fourteenth more is possible.
    expect(bound).toBeLessThan((0.95 * 16 * 5e9) / drawZoo('vgg16').macs);
  });

  it('allows for devices that each do what they do best, and together more than whole models each', () => {
    const devices: Device[] = [
      { agent: 'computes', macsPerSecond: 30e9, memoryBytes: 0, memoryBytesPerSecond: 0.4e9 },
      { agent: 'reads', macsPerSecond: 1e9, memoryBytes: 0, memoryBytesPerSecond: 20e9 },
    ];
    const plan = fpsOf(auto(on(devices)));
    const alone = devices.map((device) => fpsOf(single(on([device])))).reduce((a, b) => a + b, 0);
    expect(plan).toBeGreaterThan(1.1 * alone);
    expect(mostFps(on(devices))).toBeGreaterThanOrEqual(plan);
  });

  it.each([
    ['a random', randomProblem],
    ['an uneven', unevenProblem],
  ])('is never less than what a plan of %s problem does', (_, made) => {
    for (let seed = 1; seed <= 12; seed++) {
      const problem = made({ seed, blocks: 2 + (seed % 3), devices: 2 + (seed % 2), objective: 'throughput', tight: seed % 2 === 0 });
      const plan = auto(problem);
      if (!isRefusal(plan)) expect(plan.estimate.fps, `seed ${seed}`).toBeLessThanOrEqual(mostFps(problem) * (1 + 1e-9));
    }
  });
});
