/** Why a plan was chosen, in three lines: the bottleneck, the runner-up, what would change the choice. */
import { DISPATCHER } from '../../broker/topics.js';
import { bottleneckLine, formatMs, sayPair } from './draft.js';
import type { Alternative, PlanDraft, PlanProblem, PlanRefusal } from './problem.js';

export interface Reasons {
  readonly chosen: PlanDraft;
  readonly runnerUp: PlanDraft | undefined;
  /** One device is taken although another plan is a little better by the numbers. */
  readonly oneIsEnough: boolean;
  readonly clearGain: number;
  /** Plans that did not come about. */
  readonly refusals: readonly PlanRefusal[];
}

export function explain(problem: PlanProblem, reasons: Reasons): string {
  const { chosen, runnerUp, oneIsEnough, clearGain } = reasons;
  const say = (plan: PlanDraft): string =>
    problem.objective === 'latency' ? formatMs(plan.estimate.latencyMs) : `${plan.estimate.fps.toFixed(1)} frames/s`;
  const first = oneIsEnough
    ? `one device is best (${say(chosen)}): nothing else gains more than ${clearGain * 100} %; ${bottleneckLine(chosen.estimate)}`
    : bottleneckLine(chosen.estimate);
  const second = runnerUp === undefined ? 'runner-up: none that fits' : `runner-up: ${besides(runnerUp, chosen, say)}`;
  return `${first}\n${second}\nwould change it: ${whatWouldChange(problem, reasons)}`;
}

/** The other plan against the chosen one; where figures do not tell them apart, what did: the number of agents. */
function besides(other: PlanDraft, chosen: PlanDraft, say: (plan: PlanDraft) => string): string {
  const [mine, more] = [agentsOf(chosen), agentsOf(other)];
  const over = `${other.planner} over ${more} agent${more === 1 ? '' : 's'}`;
  if (say(other) !== say(chosen)) return `${over}, ${say(other)} instead of ${say(chosen)}`;
  return more > mine ? `${over}, no better than this on ${mine}` : `${over}, as good: ${say(other)}`;
}

function whatWouldChange(problem: PlanProblem, { chosen, oneIsEnough, refusals }: Reasons): string {
  const { bottleneck } = chosen.estimate;
  if (problem.devices.length === 1) return 'a second agent';
  const hosts = new Set(problem.devices.map((device) => device.host ?? device.agent));
  if (hosts.size === 1) return 'agents on other machines: those here share the cores of one';
  const short = refusals.find((refusal) => refusal.reason.includes('not enough memory'));
  const memory = short === undefined ? '' : `; or more memory (${short.reason.split(': ').at(-1)?.split(',')[0]})`;
  if (bottleneck.kind === 'pair') return `a faster way ${sayPair(bottleneck.who)}${memory}`;
  // More agents all wait for the same link: what is between them changes nothing.
  if (oneIsEnough && bottleneck.kind === 'link' && bottleneck.who.split(' ')[0] === DISPATCHER) {
    return `faster links at the gateway, or smaller frames${memory}`;
  }
  if (oneIsEnough) return `faster links between the agents, or a model with more work per byte${memory}`;
  if (bottleneck.kind === 'link') return `a link of more than ${Math.round(problem.links.usual.bytesPerSecond / 1e6)} MB/s${memory}`;
  return `more speed on ${bottleneck.who}, or one more agent like it${memory}`;
}

export function agentsOf(plan: PlanDraft): number {
  return new Set(plan.stages.flatMap((stage) => stage.agents.flat())).size;
}

/** Its latency is the one that is shown of the plan itself: of replicas the usual way, not the slowest. */
export function alternativeOf(plan: PlanDraft): Alternative {
  const { latencyMs, usualLatencyMs = latencyMs, fps } = plan.estimate;
  return { planner: plan.planner, agents: agentsOf(plan), latencyMs: usualLatencyMs, fps };
}
