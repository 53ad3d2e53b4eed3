/**
 * The best plan of a small problem, by trying all: stages of consecutive blocks; each whole on a device, whole on several in turn, or cut by rows over
 * several in shares of quarters. Judged by the planners' own estimate. Branches that cannot beat the bound by computing alone are cut off: nothing is
 * lost by that, as transfers and waiting only add.
 */
import { computeMs } from '../../scheduler/planners/cost.js';
import { draft, score } from '../../scheduler/planners/draft.js';
import { gridShares, subsets } from '../../scheduler/planners/options.js';
import { type Device, isRefusal, type ModelFacts, type PlanProblem, type SeatedStage } from '../../scheduler/planners/problem.js';

export interface Found {
  /** Score of the best plan that beats the bound, or the bound. */
  readonly best: number;
  /** Complete plans that were judged. */
  readonly judged: number;
  /** False: the time was over, a better one may exist. */
  readonly settled: boolean;
}

interface Priced {
  readonly stage: SeatedStage;
  /** ms of its slowest part. */
  readonly longest: number;
  /** ms per frame that it keeps each agent computing, at least. */
  readonly loads: ReadonlyMap<string, number>;
}

function everyStage(facts: ModelFacts, from: number, end: number, devices: readonly Device[]): SeatedStage[] {
  const nodes = [facts.blocks[from]?.nodes[0] ?? 0, facts.blocks[end - 1]?.nodes[1] ?? 0] as const;
  return subsets(devices.length).flatMap((set): SeatedStage[] => {
    const names = set.map((d) => devices[d]?.agent ?? '');
    const whole: SeatedStage = { spec: { nodes, cut: 'whole', shares: [1] }, agents: names.map((name) => [name]) };
    const grids = set.length === 1 ? [] : gridShares(set.length);
    return [whole, ...grids.map((shares): SeatedStage => ({ spec: { nodes, cut: 'rows', shares }, agents: [names] }))];
  });
}

/** Faster replicas take more frames, about by their speed: the bound must not claim more than this. */
const REPLICA_SLACK = 0.9;

function price(problem: PlanProblem, stage: SeatedStage): Priced | undefined {
  const byName = new Map(problem.devices.map((device) => [device.agent, device]));
  const parts = problem.facts.stage?.(stage.spec);
  if (parts === undefined || isRefusal(parts)) return undefined;
  const rates = stage.agents.map(([agent = '']) => byName.get(agent)?.macsPerSecond ?? 0);
  const total = rates.reduce((a, b) => a + b, 0);
  const loads = new Map<string, number>();
  let longest = 0;
  for (const [r, replica] of stage.agents.entries()) {
    for (const [p, agent] of replica.entries()) {
      const [device, part] = [byName.get(agent), parts[p]];
      if (device === undefined || part === undefined) continue;
      const ms = computeMs(device, part, stage.spec, 1);
      longest = stage.agents.length === 1 || longest === 0 ? Math.max(longest, ms) : Math.min(longest, ms);
      loads.set(agent, ms * (stage.agents.length === 1 ? 1 : (REPLICA_SLACK * (rates[r] ?? 0)) / total));
    }
  }
  return { stage, longest, loads };
}

/** `now` and `untilMs`: when to give up, on one clock. */
export function bruteForce(problem: PlanProblem, bound: number, untilMs = Number.POSITIVE_INFINITY, now = () => performance.now()): Found {
  const { facts, devices, objective, maxLatencyMs = Number.POSITIVE_INFINITY } = problem;
  const blocks = facts.blocks.length;
  const speedOf = new Map(devices.map((device) => [device.agent, device.macsPerSecond]));
  const speed = devices.reduce((sum, device) => sum + device.macsPerSecond, 0);
  /** ms that all devices together need for the blocks from `end` on. */
  const rest = Array.from({ length: blocks + 1 }, (_, end) => (1000 * facts.blocks.slice(end).reduce((sum, b) => sum + b.macs, 0)) / speed);
  const priced = new Map<number, Priced[]>();
  const at = (from: number, end: number): Priced[] => {
    const key = from * 1000 + end;
    const known = priced.get(key) ?? everyStage(facts, from, end, devices).flatMap((stage) => price(problem, stage) ?? []);
    priced.set(key, known);
    return known;
  };
  let [best, judged, settled] = [bound, 0, true];
  const hopeless = (latency: number, end: number, loads: ReadonlyMap<string, number>): boolean => {
    if (objective === 'latency') return latency + (rest[end] ?? 0) >= best;
    const done = [...loads].reduce((sum, [agent, ms]) => sum + ms * (speedOf.get(agent) ?? 0), 0) / speed;
    return Math.max(...loads.values()) >= best || done + (rest[end] ?? 0) >= best;
  };
  const go = (from: number, stages: readonly SeatedStage[], loads: ReadonlyMap<string, number>, latency: number): void => {
    if (from === blocks) {
      judged++;
      const plan = draft(problem, 'brute', stages);
      if (!isRefusal(plan) && plan.estimate.latencyMs <= maxLatencyMs) best = Math.min(best, score(plan.estimate, objective));
      return;
    }
    for (let end = blocks; end > from; end--) {
      for (const { stage, longest, loads: more } of at(from, end)) {
        if (!settled) return;
        if (now() > untilMs) {
          settled = false;
          return;
        }
        const next = new Map(loads);
        for (const [agent, ms] of more) next.set(agent, (next.get(agent) ?? 0) + ms);
        if (!hopeless(latency + longest, end, next)) go(end, [...stages, stage], next, latency + longest);
      }
    }
  };
  go(0, [], new Map(), 0);
  return { best, judged, settled };
}
