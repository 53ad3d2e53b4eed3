/**
 * Shares by speed are where a good division begins: bands at the ends have one halo less, every part pays the same fixed costs however slow its device, and rows and channels
 * are whole numbers. Here each cut stage of a plan is divided anew until its parts take equally long, as they are cut in truth.
 */
import { seatMs } from './cost.js';
import { draft, nameOf } from './draft.js';
import { type Device, isRefusal, type PartFacts, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

/** Divisions tried for each stage. */
const ROUNDS = 4;
/** A stage that is quicker by less keeps its shares: bands that lie over those of the next stage need not travel. */
const WORTH = 0.01;
/** Parts of more devices than this take long to cut, and their rounding outweighs what is won. */
const MOST_PARTS = 16;

/** Stages that were levelled already: plans of one problem have many in common. */
export type Levelled = Map<string, SeatedStage>;

/** The same plan with levelled shares; undefined when no stage gains. */
export function levelled(
  problem: PlanProblem,
  { stages, cut }: Pick<PlanDraft, 'stages' | 'cut'>,
  known: Levelled = new Map(),
): PlanDraft | PlanRefusal | undefined {
  const devices = new Map(problem.devices.map((device) => [device.agent, device]));
  const level = stages.map((stage, s) => {
    const key = JSON.stringify(stage);
    const made = known.get(key) ?? levelledStage(problem, stage, cut.stages[s]?.parts ?? [], devices);
    known.set(key, made);
    return made.spec.shares.every((share, p) => share === stage.spec.shares[p]) ? stage : made;
  });
  return level.every((stage, s) => stage === stages[s]) ? undefined : draft(problem, nameOf(level), level);
}

/** `parts`: as it is cut now. */
function levelledStage(
  problem: PlanProblem,
  stage: SeatedStage,
  parts: readonly PartFacts[],
  devices: ReadonlyMap<string, Device>,
): SeatedStage {
  const { spec, agents } = stage;
  const [seats = []] = agents;
  if (agents.length !== 1 || spec.shares.length < 2 || spec.shares.length > MOST_PARTS || (spec.redundancy ?? 0) > 0) return stage;
  const timesOf = (made: readonly PartFacts[] | PlanRefusal, shares: readonly number[]): number[] | undefined => {
    // A part that got nothing is left out: then a smaller team is another plan.
    if (isRefusal(made) || made.length !== shares.length) return undefined;
    return made.map((part, p) => {
      const device = devices.get(seats[p] ?? '');
      if (device === undefined) return Number.POSITIVE_INFINITY;
      // What real frames said of a device scatters: shares that followed it would move seats for nothing.
      const { correction: _, ...usual } = device;
      return seatMs(usual, part, spec, shares[p] ?? 0);
    });
  };
  let shares = normalised(spec.shares);
  let times = timesOf(parts, shares);
  const firstMs = Math.max(...(times ?? [Number.POSITIVE_INFINITY]));
  // However shares are moved, some part keeps all that it has: none is quicker than the quickest is now.
  if (Math.min(...(times ?? [])) >= firstMs * (1 - WORTH)) return stage;
  let best = { ms: firstMs, shares };
  for (let round = 0; round < ROUNDS && times !== undefined; round++) {
    const [rates, own] = [times.map((ms) => 1 / ms), shares];
    shares = normalised(own.map((share, p) => share * (rates[p] ?? 0)));
    times = timesOf(problem.facts.stage({ ...spec, shares }), shares);
    const ms = Math.max(...(times ?? [Number.POSITIVE_INFINITY]));
    if (ms < best.ms) best = { ms, shares };
  }
  return best.ms < firstMs * (1 - WORTH) ? { ...stage, spec: { ...spec, shares: best.shares } } : stage;
}

function normalised(shares: readonly number[]): number[] {
  const total = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => share / total);
}
