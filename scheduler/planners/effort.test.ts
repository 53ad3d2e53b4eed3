/** How much a plan costs to find, counted and not timed: what planners ask of the model takes most of their time, and a step back would hide in the noise of a clock. */
import { describe, expect, it } from 'vitest';
import { drawZoo } from '../../models/zoo/index.js';
import { structureOf } from '../../models/zoo/structure.js';
import { factsOf } from '../model-facts.js';
import { auto } from './auto.js';
import { type CutFacts, type Device, isRefusal, type Links, type ModelFacts, type Objective, type PlanRefusal } from './problem.js';

const MIB = 2 ** 20;
const LINKS: Links = { usual: { bytesPerSecond: 120e6, latencyMs: 0.3 }, between: new Map() };
const DEVICES = Array.from({ length: 16 }, (_, i): Device => ({ agent: `n${i}`, macsPerSecond: 5e9, memoryBytes: 870 * MIB }));

interface Effort {
  /** Plans that were cut whole and estimated. */
  plans: number;
  /** Parts that were cut: of single stages, and of whole plans that were not known yet. */
  parts: number;
  wires: number;
}

/** The same facts; what is asked of them is counted in `effort`. */
function counted(facts: ModelFacts, effort: Effort): ModelFacts {
  const known = new Set<CutFacts | PlanRefusal>();
  return {
    ...facts,
    stage: (spec) => {
      const parts = facts.stage(spec);
      if (!isRefusal(parts)) effort.parts += parts.length;
      return parts;
    },
    cut: (specs) => {
      const cut = facts.cut(specs);
      effort.plans++;
      if (isRefusal(cut) || known.has(cut)) return cut;
      known.add(cut);
      effort.parts += cut.stages.reduce((sum, { parts }) => sum + parts.length, 0);
      effort.wires += cut.wires.length;
      return cut;
    },
  };
}

function effortFor(objective: Objective): Effort {
  const effort: Effort = { plans: 0, parts: 0, wires: 0 };
  const facts = counted(factsOf(structureOf(drawZoo('vgg16'))), effort);
  const plan = auto({ facts, devices: DEVICES, links: LINKS, objective, inFlight: 0 });
  if (isRefusal(plan)) throw new Error(plan.reason);
  return effort;
}

// Bounds are a fifth above what it takes: 1,315 parts and 1,809 wires for latency, 33 parts for throughput.
describe('planning VGG16 on 16 devices', () => {
  it('cuts few parts for latency: no stage again whose parts are known', () => {
    const { plans, parts, wires } = effortFor('latency');
    expect(plans).toBeLessThanOrEqual(9);
    expect(parts).toBeLessThanOrEqual(1580);
    expect(wires).toBeLessThanOrEqual(2170);
  });

  it('searches for nothing where replicas compute all that devices can', () => {
    const { plans, parts } = effortFor('throughput');
    expect(plans).toBeLessThanOrEqual(12);
    expect(parts).toBeLessThanOrEqual(40);
  });
});
