/**
 * Tries what could be best and keeps it: the baselines (one device, replicas, a pipeline), pipelines of replicated stages, the model's own covering cuts over
 * teams of devices, and a dynamic program over the block table that mixes all of these. What the table finds is cut and estimated for real before it is
 * compared, so the answer is never predicted worse than the best baseline. Devices that would slow the rest down are left out. One device stays unless
 * another plan is clearly better: a gain within the error of the cost model is none.
 */
import type { StageSpec } from '../../models/slicing/partition.js';
import { BlockTable } from './block-table.js';
import { slowdown } from './cost.js';
import { best, draft, refuse, score, seated } from './draft.js';
import { exact } from './exact.js';
import { agentsOf, alternativeOf, explain } from './explain.js';
import { fleet } from './fleet.js';
import { improve } from './improve.js';
import { everyLayout, FEW_DEVICES, sizes } from './options.js';
import { pipeline } from './pipeline.js';
import {
  bySpeed,
  classesOf,
  classKeys,
  type Device,
  isRefusal,
  type PlanDraft,
  type PlanProblem,
  type PlanRefusal,
  type SeatedStage,
} from './problem.js';
import { replicas } from './replicas.js';
import { search } from './search.js';
import { single } from './single.js';

/** A plan must beat one device by this much. */
const CLEAR_GAIN = 0.1;
/** Covers are made once, for a team of this size, and shared anew for others: where a cut goes hardly depends on how many take part. */
const COVER_PARTS = 2;
const COVER_KINDS = ['rows', 'channels'] as const;
/** More devices than this: teams and fleets only; the dynamic program's states would be too many. */
const SEARCHED_DEVICES = 16;
/** Of so many blocks on FEW_DEVICES, all plans are searched. */
const FEW_BLOCKS = 8;
const PASSES = [
  { lean: true, width: 1000, effort: 100_000 },
  { lean: false, width: 1000, effort: 100_000 },
  { lean: true, width: 5000, effort: 500_000 },
];
/** Only so few blocks are searched as widely as the last pass. */
const WIDE_BLOCKS = 6;
/** Of a plan's score: a smaller gain is within any error of the costs. */
const WORTH = 0.003;
/** Roughly how many stages the dynamic program may price. */
const SEARCH_EFFORT = 40_000;
/** A plan this near to all devices computing all the time needs no search for a better one. */
const NEAR_WORK_BOUND = 0.98;

type Attempt = PlanDraft | PlanRefusal;

export function auto(problem: PlanProblem): Attempt {
  const alone = single(problem);
  const attempts: Attempt[] = [alone];
  if (problem.devices.length > 1) {
    attempts.push(replicas(problem), pipeline(problem), ...teams(problem));
    const table = new BlockTable(problem.facts);
    attempts.push(...fleet(problem, table, 4).map((stages) => draft(problem, 'fleet', stages)));
    if (!nearBound(problem, attempts)) {
      const small = problem.devices.length <= FEW_DEVICES && table.length <= FEW_BLOCKS && problem.facts.stage !== undefined;
      if (small) attempts.push(...searchedWhole(problem, within(problem, attempts)));
      else attempts.push(...searched(problem, table, within(problem, attempts)));
    }
  }
  return choose(problem, alone, attempts);
}

/** Throughput cannot exceed all devices' MACs per second over the model's MACs (profiles may say otherwise: then the search decides). */
function nearBound(problem: PlanProblem, attempts: readonly Attempt[]): boolean {
  if (problem.objective !== 'throughput' || problem.devices.some((device) => device.profile !== undefined)) return false;
  const macs = problem.facts.blocks.reduce((sum, block) => sum + block.macs, 0);
  const bound = problem.devices.reduce((sum, device) => sum + speed(device), 0) / macs;
  return within(problem, attempts).some((plan) => plan.estimate.fps >= NEAR_WORK_BOUND * bound);
}

function choose(problem: PlanProblem, alone: Attempt, attempts: readonly Attempt[]): Attempt {
  const { objective } = problem;
  const refusals = attempts.filter(isRefusal);
  const allowed = attempts.filter((plan) => isRefusal(plan) || meets(problem, plan));
  const winner = simplest(allowed, best(allowed, objective), objective);
  if (winner === undefined) {
    const late = best(attempts, 'latency');
    if (late !== undefined) {
      return refuse(
        `no plan answers within ${problem.maxLatencyMs} ms; the quickest, ${late.planner}, takes ${Math.ceil(late.estimate.latencyMs)} ms`,
      );
    }
    return refuse([...new Set(refusals.map((refusal) => refusal.reason))].slice(0, 3).join('; '));
  }
  const oneIsEnough =
    !isRefusal(alone) && meets(problem, alone) && score(alone.estimate, objective) * (1 - CLEAR_GAIN) < score(winner.estimate, objective);
  const chosen = oneIsEnough ? alone : winner;
  const others = different(allowed, chosen);
  const ranked = others.sort((a, b) => score(a.estimate, objective) - score(b.estimate, objective));
  const why = explain(problem, {
    ...{ chosen, runnerUp: ranked[0], refusals, clearGain: CLEAR_GAIN },
    oneIsEnough: oneIsEnough && problem.devices.length > 1,
  });
  return { ...chosen, why, alternatives: ranked.slice(0, 5).map(alternativeOf) };
}

/** Of plans as good as the best but for a hundredth, the one with the fewest agents: devices that hardly help stay out. */
function simplest(attempts: readonly Attempt[], winner: PlanDraft | undefined, objective: PlanProblem['objective']): PlanDraft | undefined {
  if (winner === undefined) return undefined;
  let found = winner;
  for (const plan of attempts.filter(isDraft)) {
    if (score(plan.estimate, objective) <= score(winner.estimate, objective) * 1.01 && agentsOf(plan) < agentsOf(found)) found = plan;
  }
  return found;
}

function meets(problem: PlanProblem, plan: PlanDraft): boolean {
  return problem.maxLatencyMs === undefined || plan.estimate.latencyMs <= problem.maxLatencyMs;
}

function isDraft(attempt: Attempt): attempt is PlanDraft {
  return !isRefusal(attempt);
}

function within(problem: PlanProblem, attempts: readonly Attempt[]): readonly PlanDraft[] {
  return attempts.filter(isDraft).filter((plan) => meets(problem, plan));
}

/** Plans other than this one; different planners may come to the same. */
function different(attempts: readonly Attempt[], chosen: PlanDraft): PlanDraft[] {
  const seen = new Set([JSON.stringify(chosen.stages)]);
  return attempts.filter(isDraft).filter((plan) => {
    const key = JSON.stringify(plan.stages);
    const fresh = !seen.has(key);
    seen.add(key);
    return fresh;
  });
}

/** Parts over the n fastest devices, with shares by speed, in the stages of the model's own covers. */
function teams(problem: PlanProblem): Attempt[] {
  const sorted = bySpeed(problem.devices);
  return COVER_KINDS.flatMap((kind) => {
    const cover = problem.facts.cover(kind, new Array<number>(COVER_PARTS).fill(1));
    if (isRefusal(cover)) return [cover];
    return sizes(Math.min(sorted.length, SEARCHED_DEVICES)).map((n) => team(problem, `${kind}:${n}`, cover, sorted.slice(0, n)));
  });
}

function team(problem: PlanProblem, name: string, cover: readonly StageSpec[], devices: readonly Device[]): Attempt {
  const top = speed(devices[0]);
  const shares = devices.map((device) => speed(device) / top);
  const specs = cover.map((spec) => (spec.cut === 'whole' ? spec : { ...spec, shares }));
  return draft(
    problem,
    name,
    specs.map((spec) => seated(spec, devices)),
  );
}

/**
 * Few blocks on few devices: a search over all stages and layouts there are (exact.ts), again and again with what was found as the value to beat: over few
 * layouts, over all of them, and where the first did not see everything, wider.
 * A gain of less than `WORTH` is not looked for.
 */
function searchedWhole(problem: PlanProblem, known: readonly PlanDraft[]): Attempt[] {
  const keys = new Map(classKeys(problem.devices, problem.links).map((key, d) => [problem.devices[d]?.agent ?? '', key]));
  // Equal devices beside each other: the search tries one for all of them.
  const devices = [...problem.devices].sort(
    (a, b) => speed(b) - speed(a) || (keys.get(a.agent) ?? '').localeCompare(keys.get(b.agent) ?? '') || (a.agent < b.agent ? -1 : 1),
  );
  const found: Attempt[] = [];
  const { objective } = problem;
  let all = false;
  for (const { lean, ...limits } of PASSES) {
    if (all && lean) continue;
    if (limits.width > 1000 && problem.facts.blocks.length > WIDE_BLOCKS) continue;
    const incumbent = best([...known, ...within(problem, found)], objective);
    const bound = incumbent === undefined ? Number.POSITIVE_INFINITY : score(incumbent.estimate, objective) * (1 - WORTH);
    const { plans, complete } = exact({ ...problem, devices }, everyLayout(devices, objective, lean), { bound, finalists: 20, ...limits });
    found.push(...plans.map(({ stages }) => draft(problem, nameOf(stages), stages)));
    if (complete) all ||= lean;
    if (complete && !lean) break;
  }
  return found;
}

/** The dynamic program, its finalists cut and estimated; of many devices those that represent the classes best. */
function searched(problem: PlanProblem, table: BlockTable, known: readonly PlanDraft[]): Attempt[] {
  const devices = representatives(problem);
  const incumbent = best(known, problem.objective);
  const small = devices.length <= FEW_DEVICES && table.length <= 6;
  const bound = incumbent === undefined ? Number.POSITIVE_INFINITY : score(incumbent.estimate, problem.objective);
  const options = devices.length <= FEW_DEVICES ? 60 : 20;
  const pricing = ((table.length * (table.length + 1)) / 2) * options * Math.max(1, devices.length / 4);
  const width = small ? 500 : Math.floor(SEARCH_EFFORT / pricing);
  if (width < 2 || devices.length < 2) return [];
  // The table takes every stage to begin when all of the one before has arrived: what it puts a little above the bound may be below it in truth.
  const found = search(problem, table, devices, { width, finalists: small ? 60 : 6, bound: bound * (small ? 1.2 : 1.02) });
  const judged = found.map((stages) => draft(problem, nameOf(stages), stages));
  const starts = [...within(problem, judged), ...known].sort(
    (a, b) => score(a.estimate, problem.objective) - score(b.estimate, problem.objective),
  );
  const budget = { left: small ? 2000 : 40 };
  const improved = starts.slice(0, small ? 6 : 2).map((plan) => improve(problem, table, devices, plan, budget));
  return [...judged, ...improved.map((plan) => ({ ...plan, planner: nameOf(plan.stages) }))];
}

/** The fastest of each class in turn, so that all kinds are there. */
function representatives(problem: PlanProblem): Device[] {
  const devices = bySpeed(problem.devices);
  if (devices.length <= SEARCHED_DEVICES) return devices;
  const classes = classesOf(devices, problem.links);
  const taken: Device[] = [];
  for (let round = 0; taken.length < SEARCHED_DEVICES; round++) {
    for (const members of classes) {
      const device = members[round];
      if (device !== undefined && taken.length < SEARCHED_DEVICES) taken.push(device);
    }
  }
  return taken;
}

function nameOf(stages: readonly SeatedStage[]): string {
  const agents = new Set(stages.flatMap((stage) => stage.agents.flat())).size;
  const parts = stages.some((stage) => stage.spec.shares.length > 1);
  return `${parts ? 'parts' : stages.some((stage) => stage.agents.length > 1) ? 'fleet' : 'pipeline'}:${agents}`;
}

function speed(device: Device | undefined): number {
  return (device?.macsPerSecond ?? 0) / slowdown(device);
}
