/** Local improvement: of a plan's neighbours, judged by the exact estimate, the best one that gains, until none does or the budget is spent. */
import type { CutKind } from '../../models/slicing/partition.js';
import type { BlockTable } from './block-table.js';
import { draft, score } from './draft.js';
import { optionsFor } from './options.js';
import { type Device, isRefusal, type PlanDraft, type PlanProblem, type SeatedStage } from './problem.js';

/** How a stage is laid out, apart from which blocks it has. */
interface Layout {
  readonly cut: CutKind;
  readonly shares: readonly number[];
  readonly agents: readonly (readonly string[])[];
}

/** `budget`: plans that may be judged, shared by all calls. */
export function improve(
  problem: PlanProblem,
  table: BlockTable,
  devices: readonly Device[],
  start: PlanDraft,
  budget: { left: number },
): PlanDraft {
  const at = new Map(problem.facts.blocks.flatMap((block, b) => [[block.nodes[0], b] as const]));
  const seen = new Set<string>();
  let current = start;
  for (let gained = true; gained && budget.left > 0; ) {
    gained = false;
    for (const stages of neighbours(problem, table, devices, current.stages, at)) {
      const key = JSON.stringify(stages);
      if (seen.has(key)) continue;
      seen.add(key);
      if (budget.left-- <= 0) break;
      const next = draft(problem, start.planner, stages);
      if (isRefusal(next) || next.estimate.latencyMs > (problem.maxLatencyMs ?? Number.POSITIVE_INFINITY)) continue;
      if (score(next.estimate, problem.objective) >= score(current.estimate, problem.objective) * (1 - 1e-6)) continue;
      current = next;
      gained = true;
      break;
    }
  }
  return current;
}

function* neighbours(
  problem: PlanProblem,
  table: BlockTable,
  devices: readonly Device[],
  stages: readonly SeatedStage[],
  at: ReadonlyMap<number, number>,
): Generator<SeatedStage[]> {
  const bounds = [...stages.map((stage) => at.get(stage.spec.nodes[0]) ?? -1), problem.facts.blocks.length];
  // Stages that do not begin at blocks (covers) have no neighbours here.
  if (bounds.includes(-1)) return;
  const layouts = stages.map(({ spec, agents }): Layout => ({ cut: spec.cut, shares: spec.shares, agents }));
  const build = (b: readonly number[], l: readonly Layout[]): SeatedStage[] =>
    l.map(({ cut, shares, agents }, s) => ({ spec: table.spec(b[s] ?? 0, b[s + 1] ?? 0, cut, shares), agents }));
  for (let s = 1; s < stages.length; s++) {
    for (const step of [-1, 1]) {
      const moved = bounds.with(s, (bounds[s] ?? 0) + step);
      if ((moved[s] ?? 0) > (moved[s - 1] ?? 0) && (moved[s] ?? 0) < (moved[s + 1] ?? 0)) yield build(moved, layouts);
    }
    for (const kept of layouts.slice(s - 1, s + 1)) yield build(bounds.toSpliced(s, 1), layouts.toSpliced(s - 1, 2, kept));
  }
  const all = everyLayout(devices);
  for (const [s, own] of layouts.entries()) {
    for (const layout of all) {
      yield build(bounds, layouts.with(s, layout));
      for (let middle = (bounds[s] ?? 0) + 1; middle < (bounds[s + 1] ?? 0); middle++) {
        const finer = bounds.toSpliced(s + 1, 0, middle);
        yield build(finer, layouts.toSpliced(s, 1, layout, own));
        yield build(finer, layouts.toSpliced(s, 1, own, layout));
      }
    }
  }
}

function everyLayout(devices: readonly Device[]): Layout[] {
  return optionsFor(devices, new Float64Array(devices.length), undefined).flatMap((option): Layout[] => {
    const names = option.devices.map((d) => devices[d]?.agent ?? '');
    if (option.replicas || names.length === 1) return [{ cut: 'whole', shares: [1], agents: names.map((name) => [name]) }];
    return (['rows', 'channels'] as const).map((cut) => ({ cut, shares: option.shares, agents: [names] }));
  });
}
