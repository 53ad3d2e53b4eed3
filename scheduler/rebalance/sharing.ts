/**
 * Several deployments on the same agents: weighted max-min of served demand. What a deployment is given counts only up to what its clients ask for; of those that get
 * less, the one that gets the smallest part of it (by weight) comes first. Pure, but for the planner that it asks.
 */
import type { SeatEstimate } from '../planners/estimate.js';
import type { PlanDraft } from '../planners/problem.js';

/** Room above the rate that was seen: it was seen over seconds only. */
export const HEADROOM = 1.25;

export interface Demand {
  /** Frames per second offered. */
  readonly ratePerSecond: number;
  /** More come than are served. */
  readonly pressed: boolean;
  /** What it counts against others; 1 unless said otherwise. */
  readonly weight: number;
}

/** How well a demand is served: infinite when it is met with some room, else its served part / weight. */
export function served(fps: number, { ratePerSecond, pressed, weight }: Demand): number {
  if (!pressed && fps >= HEADROOM * ratePerSecond) return Number.POSITIVE_INFINITY;
  // Clients that wait for answers before they send more never offer more than is served: what a pressed one would send is not known, but more.
  const wanted = pressed ? Math.max(HEADROOM * ratePerSecond, Number.MIN_VALUE) : ratePerSecond;
  return fps / wanted / weight;
}

/** The part of each agent's time that a deployment keeps busy at its rate; a pressed one takes all that it gets. */
export function busyOf(alone: readonly SeatEstimate[], { ratePerSecond, pressed }: Demand): Map<string, number> {
  const busy = new Map<string, number>();
  for (const [agent, msPerFrame] of msPerFrameOf(alone)) {
    busy.set(agent, pressed ? 1 : Math.min(1, (msPerFrame * ratePerSecond) / 1000));
  }
  return busy;
}

/** How long one frame of the deployment keeps each agent busy on average: of replicas, the faster ones take more frames. */
function msPerFrameOf(seats: readonly SeatEstimate[]): Map<string, number> {
  const slowest = new Map<string, number>();
  for (const { stage, replica, ms } of seats) slowest.set(`${stage} ${replica}`, Math.max(slowest.get(`${stage} ${replica}`) ?? 0, ms));
  const perStage = new Map<number, number>();
  for (const [key, ms] of slowest) {
    const stage = Number(key.split(' ')[0]);
    perStage.set(stage, (perStage.get(stage) ?? 0) + 1 / ms);
  }
  const perFrame = new Map<string, number>();
  for (const { stage, replica, agent, ms } of seats) {
    const part = 1 / (slowest.get(`${stage} ${replica}`) ?? ms) / (perStage.get(stage) ?? 1);
    perFrame.set(agent, (perFrame.get(agent) ?? 0) + ms * part);
  }
  return perFrame;
}

/** Rounded, so that like devices stay in one class for planners. */
const STEP = 0.25;

/**
 * By agent, what takes its place in `Device.otherDeployments` (times are 1 + that as long): others take what they need, but never more than an even part, since agents
 * run frames in the order in which they come.
 */
export function othersOf(busy: readonly ReadonlyMap<string, number>[]): Map<string, number> {
  const others = new Map<string, number>();
  for (const agent of new Set(busy.flatMap((each) => [...each.keys()]))) {
    const here = busy.flatMap((each) => each.get(agent) ?? []);
    const taken = here.reduce((sum, part) => sum + part, 0);
    const left = Math.max(1 / (here.length + 1), 1 - taken);
    others.set(agent, Math.ceil((1 / left - 1) / STEP - 1e-9) * STEP);
  }
  return others;
}

export interface Sharer {
  readonly name: string;
  readonly demand: Demand;
  /** What its plan in force can do, by what is known now. */
  readonly fps: number;
  /** The agents of its plan, those that it would rather keep first. */
  readonly agents: readonly string[];
}

export interface Shift {
  readonly giver: string;
  /** The giver's new plan. */
  readonly giverDraft: PlanDraft;
  /** The agents that it gives up. */
  readonly freed: readonly string[];
  readonly takerDraft: PlanDraft;
  /** The least served of both, before and after. */
  readonly before: number;
  readonly after: number;
}

export interface Planning {
  /** It has taken long enough: what was found so far must do. */
  enough(): boolean;
  /** The giver's plan on these agents alone; undefined = there is none. */
  give(giver: string, keep: readonly string[]): Promise<PlanDraft | undefined>;
  /** The taker's plan when the giver holds what its new plan says, and nothing else. */
  take(giver: string, plan: PlanDraft): Promise<PlanDraft | undefined>;
}

/** Of so many others, those served best are asked to give. */
const MOST_GIVERS = 3;

/** The shift of agents from another deployment that serves the least served of both best; undefined = none does better than now. */
export async function shift(taker: Sharer, others: readonly Sharer[], planning: Planning): Promise<Shift | undefined> {
  const mine = served(taker.fps, taker.demand);
  const givers = others
    .map((other) => ({ ...other, now: served(other.fps, other.demand) }))
    .filter(({ agents, now }) => agents.length > 1 && now > mine)
    .sort((a, b) => b.now - a.now || (a.name < b.name ? -1 : 1));
  let best: Shift | undefined;
  for (const giver of givers.slice(0, MOST_GIVERS)) {
    const before = Math.min(mine, giver.now);
    for (const keep of keptNumbers(giver.agents.length)) {
      if (planning.enough()) return best;
      const kept = giver.agents.slice(0, keep);
      const giverDraft = await planning.give(giver.name, kept);
      const theirs = giverDraft === undefined ? 0 : served(giverDraft.estimate.fps, giver.demand);
      // With fewer agents it would be served worse still.
      if (giverDraft === undefined || theirs <= before) break;
      const takerDraft = await planning.take(giver.name, giverDraft);
      if (takerDraft === undefined) continue;
      const after = Math.min(theirs, served(takerDraft.estimate.fps, taker.demand));
      if (after <= Math.max(before, best?.after ?? 0)) continue;
      const holds = new Set(giverDraft.stages.flatMap(({ agents }) => agents.flat()));
      const freed = giver.agents.filter((agent) => !holds.has(agent));
      best = { giver: giver.name, giverDraft, freed, takerDraft, before, after };
    }
  }
  return best;
}

/** n - 1, 3/4, 1/2, 1/4 and 1 of n, each once, largest first. */
function keptNumbers(n: number): number[] {
  const numbers = [n - 1, Math.ceil((3 * n) / 4), Math.ceil(n / 2), Math.ceil(n / 4), 1];
  return [...new Set(numbers)].filter((k) => k >= 1 && k < n).sort((a, b) => b - a);
}
