/**
 * Shares by speed are where a good division begins: bands at the ends have one halo less, every part pays the same fixed costs however slow its device, and rows and channels
 * are whole numbers. Here each cut stage of a plan is divided anew until its parts take equally long, as they are cut in truth.
 */
import { seatMs } from './cost.js';
import { draft, nameOf } from './draft.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

/** Divisions tried for each stage. */
const ROUNDS = 4;
/** A stage that is quicker by less keeps its shares: bands that lie over those of the next stage need not travel. */
const WORTH = 0.01;
/** Parts of more devices than this take long to cut, and their rounding outweighs what is won. */
const MOST_PARTS = 16;

/** The same plan with levelled shares; undefined when no stage gains. */
export function levelled(problem: PlanProblem, { stages }: Pick<PlanDraft, 'stages'>): PlanDraft | PlanRefusal | undefined {
  const devices = new Map(problem.devices.map((device) => [device.agent, device]));
  const level = stages.map((stage) => levelledStage(problem, stage, devices));
  return level.every((stage, s) => stage === stages[s]) ? undefined : draft(problem, nameOf(level), level);
}

function levelledStage(problem: PlanProblem, stage: SeatedStage, devices: ReadonlyMap<string, Device>): SeatedStage {
  const { spec, agents } = stage;
  const [seats = []] = agents;
  if (agents.length !== 1 || spec.shares.length < 2 || spec.shares.length > MOST_PARTS || (spec.redundancy ?? 0) > 0) return stage;
  const timesOf = (shares: readonly number[]): number[] | undefined => {
    const parts = problem.facts.stage({ ...spec, shares });
    // A part that got nothing is left out: then a smaller team is another plan.
    if (isRefusal(parts) || parts.length !== shares.length) return undefined;
    return parts.map((part, p) => {
      const device = devices.get(seats[p] ?? '');
      if (device === undefined) return Number.POSITIVE_INFINITY;
      // What real frames said of a device scatters: shares that followed it would move seats for nothing.
      const { correction: _, ...usual } = device;
      return seatMs(usual, part, spec, shares[p] ?? 0);
    });
  };
  let shares = normalised(spec.shares);
  let times = timesOf(shares);
  const firstMs = Math.max(...(times ?? [Number.POSITIVE_INFINITY]));
  let best = { ms: firstMs, shares };
  for (let round = 0; round < ROUNDS && times !== undefined; round++) {
    const [rates, own] = [times.map((ms) => 1 / ms), shares];
    shares = normalised(own.map((share, p) => share * (rates[p] ?? 0)));
    times = timesOf(shares);
    const ms = Math.max(...(times ?? [Number.POSITIVE_INFINITY]));
    if (ms < best.ms) best = { ms, shares };
  }
  return best.ms < firstMs * (1 - WORTH) ? { ...stage, spec: { ...spec, shares: best.shares } } : stage;
}

function normalised(shares: readonly number[]): number[] {
  const total = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => share / total);
}
