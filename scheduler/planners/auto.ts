/**
 * Tries what could be best and keeps it: the baselines (one device, replicas, a pipeline, the plan of 2018), pipelines of replicated stages, the model's own
 * covering cuts over teams of devices, and a search: over all plans where the problem is small (small.ts), over teams, groups and mixtures where it is not
 * (large.ts); and, for throughput, the best of these with their heaviest stages on all agents that have room (spread.ts). All are cut and estimated in the same way before they are compared, so the answer is never predicted worse than the best baseline. Devices that
 * would slow the rest down are left out. One device stays unless another plan is clearly better: a gain within the error of the cost model is none.
 */
import { BlockTable } from './block-table.js';
import { coded } from './coded.js';
import { covers } from './covers.js';
import { best, draft, meets, nameOf, refuse, score, seatedDraft, seatsKey, within } from './draft.js';
import { exact } from './exact.js';
import { agentsOf, alternativeOf, explain } from './explain.js';
import { fleet } from './fleet.js';
import { beam, grouped, teamed } from './large.js';
import { type Levelled, levelled } from './level.js';
import { musicalChair2018 } from './musical-chair-2018.js';
import { FEW_DEVICES } from './options.js';
import { pipeline } from './pipeline.js';
import { bySpeed, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { refined } from './refine.js';
import { fewerReplicas, replicas } from './replicas.js';
import { single } from './single.js';
import { isSmall, small } from './small.js';
import { spread } from './spread.js';
import { mostFps } from './work-bound.js';

/** A plan must beat one device by this much. */
const CLEAR_GAIN = 0.1;
/** Of other plans, those that are named. */
const MOST_SHOWN = 5;
/** A plan this near to all devices computing all the time needs no search for a better one. */
const NEAR_WORK_BOUND = 0.99;

/**
 * Of plans for latency the best few that are not alike are refined (refine.ts), each with so much effort, divided by the number of devices: with many of them there are
 * many plans to choose from, and each takes longer to look at.
 */
const REFINED = 3;
const REFINED_OF_MANY = 1;
const MANY_DEVICES = 8;
const EFFORT = 60_000;

type Attempt = PlanDraft | PlanRefusal;

export function auto(problem: PlanProblem): Attempt {
  if (problem.redundancy !== undefined) return coded(problem, auto);
  const alone = single(problem);
  const attempts: Attempt[] = [alone];
  if (problem.devices.length === 1) attempts.push(...inStages(problem, alone));
  else if (problem.devices.length > 1) {
    const table = BlockTable.of(problem.facts);
    const everywhere = replicas(problem);
    const fewer = problem.objective === 'throughput' ? fewerReplicas(problem, everywhere) : undefined;
    attempts.push(everywhere, ...(fewer === undefined ? [] : [fewer]), pipeline(problem));
    if (problem.objective === 'throughput')
      attempts.push(...fleet(problem, table, 4).map((stages) => draft(problem, nameOf(stages), stages)));
    if (!nearBound(problem, attempts)) attempts.push(...searched(problem, table, attempts));
  }
  return choose(problem, alone, attempts);
}

/** Of one device and many blocks: beginnings that are kept, and stages that may be priced. */
const FEW_WAYS = { width: 30, effort: 100_000 };

/**
 * One device may hold in several stages what it cannot hold in one, as they load one after the other, and real frames may have said that it runs some stages quicker than the
 * whole. Where neither is so, stages gain nothing that would be clear.
 */
function inStages(problem: PlanProblem, alone: Attempt): Attempt[] {
  const [device] = problem.devices;
  const reason = isRefusal(alone) || (device?.correction?.stages.length ?? 0) > 0;
  if (device === undefined || !reason) return [];
  const limits = { ...FEW_WAYS, bound: Number.POSITIVE_INFINITY, finalists: 8 };
  const { plans } = exact(problem, [{ cut: 'whole', shares: [1], devices: [[0]] }], limits);
  return plans.map(({ stages }) => draft(problem, nameOf(stages), stages));
}

function searched(problem: PlanProblem, table: BlockTable, known: readonly Attempt[]): Attempt[] {
  const found = [...(isForTeams(problem) ? [] : covers(problem)), atWill(problem, musicalChair2018(problem))];
  const incumbents = () => within(problem, [...known, ...found]);
  if (isSmall(problem)) found.push(...small(problem, incumbents()));
  else if (problem.objective === 'latency') {
    found.push(...teamed(problem, table));
    // What the fastest few could do by themselves is found exactly, and more of them may only help.
    const few = { ...problem, devices: bySpeed(problem.devices).slice(0, FEW_DEVICES) };
    if (isSmall(few)) found.push(...small(few, incumbents()));
  } else {
    found.push(...grouped(problem, table));
    if (problem.maxLatencyMs !== undefined) found.push(...teamed(problem, table));
    found.push(...beam(problem, table, incumbents()));
  }
  if (problem.objective === 'throughput') return [...found, ...spread(problem, incumbents())];
  return [...found, ...quicker(problem, incumbents())];
}

/**
 * Latency of many devices: teams are searched in the same cuts, and a covering cut over all of them takes half of the time (VGG16 by channels on 16 devices has 3,873 of the
 * 5,906 wires that were made) to be no better.
 */
function isForTeams({ objective, devices }: PlanProblem): boolean {
  return objective === 'latency' && devices.length > MANY_DEVICES;
}

/** The quickest plans refined, with levelled shares, and the best of these refined once more: bands of uneven shares may end elsewhere. */
function quicker(problem: PlanProblem, known: readonly PlanDraft[]): PlanDraft[] {
  const count = problem.devices.length;
  const few = count > MANY_DEVICES ? REFINED_OF_MANY : REFINED;
  const starts = unlike(known.toSorted((a, b) => a.estimate.latencyMs - b.estimate.latencyMs)).slice(0, few);
  const effort = EFFORT / count;
  const found = starts.flatMap((start) => refined(problem, start, effort) ?? []);
  const stages: Levelled = new Map();
  const level = [...starts, ...found].flatMap((plan) => levelled(problem, plan, stages) ?? []).filter(isDraft);
  const quickest = best([...found, ...level], 'latency');
  const again = quickest === undefined || !level.includes(quickest) ? undefined : refined(problem, quickest, effort);
  return [...found, ...level, ...(again === undefined ? [] : [again])];
}

/** Of plans that are cut in the same ways the first: from like beginnings one comes to like ends. */
function unlike(plans: readonly PlanDraft[]): PlanDraft[] {
  const kinds = new Map<string, PlanDraft>();
  for (const plan of plans) {
    const kind = [...new Set(plan.stages.map(({ spec }) => spec.cut))].sort().join();
    if (!kinds.has(kind)) kinds.set(kind, plan);
  }
  return [...kinds.values()];
}

/** The same seats, but frames go to whoever is free first: what equal devices need not, and others must not do without. */
function atWill(problem: PlanProblem, plan: Attempt): Attempt {
  if (isRefusal(plan)) return plan;
  const stages = plan.stages.map(({ inTurn: _, ...stage }) => stage);
  const freed = seatedDraft(problem, plan.planner, plan.cut, stages);
  return isRefusal(freed) ? freed : { ...freed, why: plan.why };
}

/** No search finds more than devices can compute (work-bound.ts). */
function nearBound(problem: PlanProblem, attempts: readonly Attempt[]): boolean {
  if (problem.objective !== 'throughput') return false;
  const bound = mostFps(problem);
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
  const ranked = different(problem, allowed, chosen);
  const why = explain(problem, {
    ...{ chosen, runnerUp: ranked[0], refusals, clearGain: CLEAR_GAIN },
    oneIsEnough: oneIsEnough && problem.devices.length > 1,
  });
  // Of one kind the best: five kinds say more than five fleets that differ in where a stage ends.
  const kinds = new Map(ranked.toReversed().map((plan) => [plan.planner, plan]));
  const shown = ranked.filter((plan) => kinds.get(plan.planner) === plan).slice(0, MOST_SHOWN);
  return { ...chosen, why, alternatives: shown.map(alternativeOf) };
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

function isDraft(attempt: Attempt): attempt is PlanDraft {
  return !isRefusal(attempt);
}

/** Plans other than this one, best first; different planners may come to the same. */
function different({ objective }: PlanProblem, attempts: readonly Attempt[], chosen: PlanDraft): PlanDraft[] {
  const seen = new Set([seatsKey(chosen.stages)]);
  const ranked = attempts.filter(isDraft).sort((a, b) => score(a.estimate, objective) - score(b.estimate, objective));
  return ranked.filter((plan) => {
    const key = seatsKey(plan.stages);
    const fresh = !seen.has(key);
    seen.add(key);
    return fresh;
  });
}
