/** How much of a model a partition really cuts, and what the cut costs. Pure; from the analysis alone. */
import { indexOf } from './model-index.js';
import type { Partition } from './partition.js';
import { covered } from './stage-cost.js';

export interface Coverage {
  /** MACs of nodes of which every part does less than 0.7 / MACs of the whole model. */
  readonly coveredMacsRatio: number;
  /** MACs of all parts / MACs of the whole model: the price of halos and of what every part repeats. */
  readonly totalMacsRatio: number;
  /** MACs of the busiest device / MACs of the whole model, when part i of every cut stage (by index of its share) and all whole stages sit on device i and 0. */
  readonly maxPartMacsRatio: number;
}

/** A model without MACs has nothing to cover: its ratios are 0, 1 and 1. Pipelines (all stages whole) take each stage for a device of its own. */
export function coverageOf(partition: Partition): Coverage {
  const { macs, macsBefore } = indexOf(partition.model);
  const whole = macsBefore.at(-1) ?? 0;
  if (whole === 0) return { coveredMacsRatio: 0, totalMacsRatio: 1, maxPartMacsRatio: 1 };
  const pipeline = partition.stages.every((stage) => stage.spec.cut === 'whole');
  const devices = new Map<number, number>();
  let cut = 0;
  let total = 0;
  for (const [s, stage] of partition.stages.entries()) {
    const [start, end] = stage.spec.nodes;
    if (stage.spec.cut !== 'whole') for (let i = start; i < end; i++) if (covered(stage, i - start, macs[i] ?? 0)) cut += macs[i] ?? 0;
    stage.parts.forEach((part, p) => {
      const device = pipeline ? s : (stage.partShares[p] ?? 0);
      total += part.macs;
      devices.set(device, (devices.get(device) ?? 0) + part.macs);
    });
  }
  return { coveredMacsRatio: cut / whole, totalMacsRatio: total / whole, maxPartMacsRatio: Math.max(...devices.values()) / whole };
}
