/**
 * Coded redundancy was asked for: everything that can be coded is, in as many parts as pays, with a parity beside them. The fastest device holds the parities (as much work
 * as the longest part) and what has to be whole; the others hold the parts, so that any one of them may fall without a frame noticing.
 */
import { slowdown } from './cost.js';
import { best, bottleneckLine, draft, refuse } from './draft.js';
import { agentsOf, alternativeOf } from './explain.js';
import { sizes } from './options.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type PlanRefusal, type SeatedStage } from './problem.js';

const MOST_PARTS = 16;

/** Answers a problem with `redundancy`. */
export function coded(problem: PlanProblem, without: (problem: PlanProblem) => PlanDraft | PlanRefusal): PlanDraft | PlanRefusal {
  const attempts = partsTried(problem).map((parts) => inParts(problem, parts));
  const allowed = attempts.filter(
    (plan) => isRefusal(plan) || plan.estimate.latencyMs <= (problem.maxLatencyMs ?? Number.POSITIVE_INFINITY),
  );
  const chosen = best(allowed, problem.objective);
  if (chosen !== undefined) {
    const others = attempts.filter((plan): plan is PlanDraft => !isRefusal(plan) && plan !== chosen);
    return { ...chosen, why: whyOf(chosen), alternatives: others.slice(0, 5).map(alternativeOf) };
  }
  const reason = reasonOf(problem, attempts);
  if (problem.redundancy?.otherwise !== 'without')
    return refuse(`redundancy 1: ${reason}; ask for it without --redundancy, or with another cut`);
  const { redundancy, ...plainly } = problem;
  const plan = without(plainly);
  return isRefusal(plan) ? plan : { ...plan, why: `without redundancy, as ${reason}\n${plan.why}`.split('\n').slice(0, 3).join('\n') };
}

/** How many parts besides the parity; a cut made by hand says it. */
function partsTried({ manual, devices }: PlanProblem): readonly number[] {
  if (manual !== undefined) return [manual.parts];
  const most = Math.min(devices.length - 1, MOST_PARTS);
  // One part and its double would be two whole devices; it is tried where there are no more.
  return most < 2 ? [1] : sizes(most).filter((parts) => parts > 1);
}

function inParts(problem: PlanProblem, parts: number): PlanDraft | PlanRefusal {
  const { facts, manual } = problem;
  const sorted = bySpeed(problem.devices);
  const [first, ...others] = sorted;
  if (first === undefined || others.length < parts) {
    return refuse(`${parts === 1 ? 'a part' : `${parts} parts`} and a parity need ${parts + 1} agents, ${sorted.length} can take part`);
  }
  const seats = others.slice(0, parts);
  const shares = manual !== undefined && manual.shares.length > 0 ? [...manual.shares].sort((a, b) => b - a) : sharesOf(seats);
  if (shares.length !== parts) return refuse(`channels:${parts} with ${shares.length} shares; give ${parts}`);
  const specs = facts.coded?.(shares) ?? refuse('this model cannot be coded');
  if (isRefusal(specs)) return specs;
  const names = seats.map(({ agent }) => agent);
  const stages = specs.map((spec): SeatedStage => {
    return { spec, agents: [spec.redundancy === 1 ? [...names, first.agent] : [first.agent]] };
  });
  return draft(problem, `coded:${parts}+1`, stages);
}

/** By speed; equal devices get equal shares, so that their slices are equal where the model allows it. */
function sharesOf(devices: readonly Device[]): number[] {
  const speeds = devices.map((device) => device.macsPerSecond / slowdown(device));
  const top = Math.max(...speeds);
  return speeds.map((speed) => speed / top);
}

function whyOf(plan: PlanDraft): string {
  const stages = plan.stages.filter(({ spec }) => spec.redundancy === 1).length;
  const what = `${stages} of ${plan.stages.length} stages are coded over ${agentsOf(plan)} agents: of each any one part may be missing`;
  return `${what}\n${bottleneckLine(plan.estimate)}`;
}

function reasonOf({ maxLatencyMs }: PlanProblem, attempts: readonly (PlanDraft | PlanRefusal)[]): string {
  const reasons = attempts.filter(isRefusal).map(({ reason }) => reason);
  if (reasons.length < attempts.length) return `no coded plan answers within ${maxLatencyMs} ms`;
  return [...new Set(reasons)].slice(0, 2).join('; ');
}
