/**
 * Tries what could be best and keeps it: one device, replicas, a pipeline, and cuts into parts over the 2..n fastest devices with shares
 * in proportion to their speed. Devices that would slow the rest down are left out. One device stays unless another plan is
 * clearly better: a gain within the error of the cost model is none.
 */
import { best, bottleneckLine, draft, formatMs, refuse, score, seated } from './draft.js';
import { pipeline } from './pipeline.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal } from './problem.js';
import { replicas } from './replicas.js';
import { single } from './single.js';

/** A plan must beat one device by this much. */
const CLEAR_GAIN = 0.1;
const CUT_KINDS = ['auto', 'rows', 'channels'];

export function auto(problem: PlanProblem): PlanDraft | PlanRefusal {
  const { objective } = problem;
  const alone = single(problem);
  const drafts = [alone, replicas(problem), ...(problem.devices.length > 1 ? [pipeline(problem), ...cuts(problem)] : [])];
  const winner = best(drafts, objective);
  if (winner === undefined) {
    const reasons = drafts.filter(isRefusal).map((refusal) => refusal.reason);
    return refuse([...new Set(reasons)].slice(0, 3).join('; '));
  }
  const oneIsEnough = !isRefusal(alone) && score(winner.estimate, objective) > score(alone.estimate, objective) * (1 - CLEAR_GAIN);
  const chosen = oneIsEnough ? alone : winner;
  const others = drafts.filter((other) => isRefusal(other) || !sameSeats(other, chosen));
  return { ...chosen, why: explain(chosen, best(others, objective), oneIsEnough && problem.devices.length > 1, problem) };
}

/** Different planners may come to the same plan. */
function sameSeats(a: PlanDraft, b: PlanDraft): boolean {
  return JSON.stringify(a.stages) === JSON.stringify(b.stages);
}

export interface CutToTry {
  readonly kind: string;
  readonly devices: readonly Device[];
  readonly shares: readonly number[];
}

/**
 * Parts over the n fastest devices, with shares by speed. The caller may ask the model for these covers beforehand, with pauses between: each
 * may take a second, and is remembered.
 */
export function cutsToTry(devices: readonly Device[]): CutToTry[] {
  const sorted = bySpeed(devices);
  return sizes(sorted.length).flatMap((n) => {
    const taking = sorted.slice(0, n);
    const shares = taking.map((device) => device.macsPerSecond / (taking[0]?.macsPerSecond ?? 1));
    return CUT_KINDS.map((kind) => ({ kind, devices: taking, shares }));
  });
}

function cuts(problem: PlanProblem): (PlanDraft | PlanRefusal)[] {
  return cutsToTry(problem.devices).map(({ kind, devices, shares }) => {
    const specs = problem.facts.cover(kind, shares);
    if (isRefusal(specs)) return specs;
    const name = kind === 'auto' ? `parts:${devices.length}` : `${kind}:${devices.length}`;
    return draft(
      problem,
      name,
      specs.map((spec) => seated(spec, devices)),
    );
  });
}

/** 2, 3, 4, 6, 8, 12, 16, ... and all. */
function sizes(devices: number): number[] {
  const found: number[] = [];
  for (let n = 2; n <= devices; n *= 2) found.push(...[n, n * 1.5].filter((size) => size <= devices && Number.isInteger(size)));
  if (devices > 1 && !found.includes(devices)) found.push(devices);
  return found;
}

function explain(chosen: PlanDraft, runnerUp: PlanDraft | undefined, oneIsBest: boolean, problem: PlanProblem): string {
  const { objective } = problem;
  const say = (plan: PlanDraft): string =>
    objective === 'latency' ? formatMs(plan.estimate.latencyMs) : `${plan.estimate.fps.toFixed(1)} frames/s`;
  const first = oneIsBest
    ? `one device is best (${say(chosen)}): nothing else gains more than ${CLEAR_GAIN * 100} %; ${bottleneckLine(chosen.estimate)}`
    : bottleneckLine(chosen.estimate);
  const second =
    runnerUp === undefined
      ? 'runner-up: none that fits'
      : `runner-up: ${runnerUp.planner} over ${agentsOf(runnerUp)} agents, ${say(runnerUp)} instead of ${say(chosen)}`;
  return `${first}\n${second}\nwould change it: ${whatWouldChange(chosen, oneIsBest, problem)}`;
}

function whatWouldChange(chosen: PlanDraft, oneIsBest: boolean, problem: PlanProblem): string {
  if (problem.devices.length === 1) return 'a second agent';
  if (oneIsBest) return 'faster links between the agents, or a model with more work per byte';
  if (chosen.estimate.bottleneck.kind === 'link') return `a link of more than ${Math.round(problem.links.usual.bytesPerSecond / 1e6)} MB/s`;
  return `more speed on ${chosen.estimate.bottleneck.who}, or one more agent like it`;
}

function agentsOf(plan: PlanDraft): number {
  return new Set(plan.stages.flatMap((stage) => stage.agents.flat())).size;
}
