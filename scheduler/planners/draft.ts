/** From seated stages to a judged draft: the step that all planners end with. */
import { DISPATCHER } from '../../broker/topics.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import { type Estimate, estimator } from './estimate.js';
import {
  type CutFacts,
  type Device,
  isRefusal,
  type ModelFacts,
  type Objective,
  type PlanDraft,
  type PlanProblem,
  type PlanRefusal,
  type SeatedStage,
} from './problem.js';

export function refuse(reason: string): PlanRefusal {
  return { refused: true, reason };
}

/** The whole model as one stage of one part. */
export function wholeSpec(facts: ModelFacts): StageSpec {
  return { nodes: [0, facts.blocks.at(-1)?.nodes[1] ?? 0], cut: 'whole', shares: [1] };
}

/** Cuts, estimates, chooses the frames in flight, and refuses what does not fit into memory. */
export function draft(problem: PlanProblem, planner: string, stages: readonly SeatedStage[]): PlanDraft | PlanRefusal {
  const cut = problem.facts.cut(stages.map((stage) => stage.spec));
  return isRefusal(cut) ? cut : seatedDraft(problem, planner, cut, stages);
}

/** The same of a cut that is made already. */
export function seatedDraft(
  problem: Pick<PlanProblem, 'devices' | 'links' | 'objective' | 'inFlight' | 'maxLatencyMs'>,
  planner: string,
  cut: CutFacts,
  stages: readonly SeatedStage[],
): PlanDraft | PlanRefusal {
  const judge = estimator(cut, stages, problem.devices, problem.links);
  const useful = problem.inFlight > 0 ? problem.inFlight : usefulInFlight(judge(Number.MAX_SAFE_INTEGER), stages, problem);
  let inFlight = useful;
  let judged = judge(inFlight);
  if (problem.inFlight === 0 && tightOf(judged).length > 0) {
    // Frames that wait take memory: fewer of them may fit, at fewer frames per second.
    inFlight = largest(1, useful - 1, (frames) => tightOf(judge(frames)).length === 0);
    judged = judge(inFlight);
  }
  const tight = tightOf(judged);
  if (tight.length > 0) {
    const rows = tight.map((row) => `${row.agent} has ${mib(row.haveBytes)} of the ${mib(row.needBytes)} it needs`);
    return refuse(`${planner}: not enough memory: ${rows.join(', ')}`);
  }
  return { planner, why: '', stages, cut, inFlight, estimate: judged };
}

function tightOf({ memory }: Estimate): Estimate['memory'] {
  return memory.filter((row) => row.haveBytes > 0 && row.needBytes > row.haveBytes);
}

/** The largest of `low..high` that `fits`, where all below a fitting one fit; `low` when none does. */
function largest(low: number, high: number, fits: (value: number) => boolean): number {
  let [least, most] = [low, Math.max(low, high)];
  while (least < most) {
    const middle = Math.ceil((least + most) / 2);
    if (fits(middle)) least = middle;
    else most = middle - 1;
  }
  return least;
}

/**
 * Little's law: as many as keep the busiest resource busy, and some that wait, because no two frames take equally long: where many frames per second are wanted, one
 * for each that computes by itself, so that none is idle until its next frame has come; else one that arrives meanwhile. More would only wait.
 */
function usefulInFlight(
  judged: Estimate,
  stages: readonly SeatedStage[],
  { objective, maxLatencyMs }: Pick<PlanProblem, 'objective' | 'maxLatencyMs'>,
): number {
  const waits = objective === 'throughput' ? waitingMs(judged, stages) : 0;
  const needed = (judged.latencyMs + waits) / judged.bottleneck.ms;
  const agents = stages.reduce((sum, stage) => sum + stage.agents.flat().length, 0);
  // Who must answer within a time gains nothing by frames that wait.
  const waiting = objective === 'throughput' && maxLatencyMs === undefined ? byThemselves(stages) : 1;
  return Math.min(Math.max(32, 2 * agents), Math.max(2, Math.ceil(needed - 0.05) + waiting));
}

/** How many compute at once, each a frame of its own: replicas of all stages, but no more than there are agents, as one agent computes one run at a time. */
function byThemselves(stages: readonly SeatedStage[]): number {
  const replicas = stages.reduce((sum, { agents }) => sum + agents.length, 0);
  return Math.min(replicas, new Set(stages.flatMap(({ agents }) => agents.flat())).size);
}

/**
 * How long a frame waits on its way for runs of other frames on agents that hold seats of several stages: a run is not interrupted, and one more may have been handed to
 * the engine. One part waits for what is left of a run on average; of several parts one meets a run that has just begun.
 */
function waitingMs({ seats }: Estimate, stages: readonly SeatedStage[]): number {
  const runs = new Map<string, { readonly stage: number; readonly ms: number }[]>();
  for (const { agent, stage, ms } of seats) {
    const known = runs.get(agent);
    if (known === undefined) runs.set(agent, [{ stage, ms }]);
    else known.push({ stage, ms });
  }
  return stages.reduce((sum, { agents }, s) => {
    const others = agents
      .flat()
      .map((agent) => (runs.get(agent) ?? []).reduce((most, run) => (run.stage === s ? most : Math.max(most, run.ms)), 0));
    const longest = others.reduce((most, ms) => Math.max(most, ms), 0);
    return sum + ((agents[0]?.length ?? 1) > 1 ? longest : longest / 2);
  }, 0);
}

/** Smaller is better: ms per frame, by objective. */
export function score(judged: Pick<Estimate, 'latencyMs' | 'fps'>, objective: Objective): number {
  return objective === 'latency' ? judged.latencyMs : 1000 / judged.fps;
}

export function best(drafts: readonly (PlanDraft | PlanRefusal)[], objective: Objective): PlanDraft | undefined {
  let found: PlanDraft | undefined;
  for (const candidate of drafts) {
    if (isRefusal(candidate)) continue;
    const gain = found === undefined ? 1 : score(found.estimate, objective) - score(candidate.estimate, objective);
    // Equal by objective: the one with the shorter latency, then the earlier (simpler) one.
    const tie = found !== undefined && Math.abs(gain) < 1e-9 && candidate.estimate.latencyMs < found.estimate.latencyMs;
    if (gain > 1e-9 || tie) found = candidate;
  }
  return found;
}

export function meets(problem: PlanProblem, plan: PlanDraft): boolean {
  return problem.maxLatencyMs === undefined || plan.estimate.latencyMs <= problem.maxLatencyMs;
}

/** The plans among these that keep the latency bound. */
export function within(problem: PlanProblem, attempts: readonly (PlanDraft | PlanRefusal)[]): readonly PlanDraft[] {
  return attempts.filter((attempt): attempt is PlanDraft => !isRefusal(attempt) && meets(problem, attempt));
}

/** Equal for plans that are the same seat by seat, in whatever order replicas are listed and however exactly their weights are told. */
export function seatsKey(stages: readonly SeatedStage[]): string {
  return JSON.stringify(stages.map(({ spec, agents, inTurn = false }) => [spec, agents.map((seats) => seats.join(' ')).sort(), inTurn]));
}

/** What kind of plan this is, over how many agents. */
export function nameOf(stages: readonly SeatedStage[]): string {
  const agents = new Set(stages.flatMap((stage) => stage.agents.flat())).size;
  if (stages.length === 1 && stages[0]?.agents.every((seats) => seats.length === 1)) return agents === 1 ? 'single' : `replicas:${agents}`;
  const parts = stages.some((stage) => stage.spec.shares.length > 1);
  return `${parts ? 'parts' : stages.some((stage) => stage.agents.length > 1) ? 'fleet' : 'pipeline'}:${agents}`;
}

/** One agent per share, on one replica. */
export function seated(spec: StageSpec, devices: readonly Device[]): SeatedStage {
  return { spec, agents: [spec.shares.map((_, share) => devices[share % devices.length]?.agent ?? '')] };
}

export function bottleneckLine(judged: Estimate): string {
  const { kind, who, ms } = judged.bottleneck;
  const [end = '', side = ''] = who.split(' ');
  const owner = end === DISPATCHER ? 'the gateway' : end;
  const way = { up: ', sending', down: ', receiving' }[side] ?? '';
  const link = who === 'all' ? 'the medium that all links share' : `the link of ${owner}${way}`;
  const what = { compute: `computing on ${owner}`, host: `the cores of the machine ${who}`, link, pair: `the way ${sayPair(who)}` }[kind];
  return `bottleneck: ${what}, ${formatMs(ms)} of each frame`;
}

/** `a>b` of a bottleneck in words. */
export function sayPair(who: string): string {
  const [from = '', to = ''] = who.split('>').map((end) => (end === DISPATCHER ? 'the gateway' : end));
  return `from ${from} to ${to}`;
}

export function formatMs(ms: number): string {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function mib(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
