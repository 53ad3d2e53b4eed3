/** Chooses a frame's route through one plan: one replica index per stage. Deterministic, no clock. */
import type { PlanStage } from '../broker/plan.js';

export interface Network {
  readonly epoch: number;
  readonly stages: readonly RoutedStage[];
  /** Which part of the frames each replica of each stage can take, as planned: `weights[stage][replica]`. Only what replicas are to one another counts. */
  readonly weights?: readonly (readonly number[])[];
  /** Stages whose replicas take frames strictly in turn. */
  readonly inTurn?: readonly boolean[];
}

/** Of a coded stage `redundancy` parts of each replica may be missing. */
export type RoutedStage = Pick<PlanStage, 'agents'> & Partial<Pick<PlanStage, 'redundancy'>>;

export type Route = readonly number[];

interface ReplicaLoad {
  inFlight: number;
  /** Exponentially weighted mean latency of frames that went this way; 0 = none yet. */
  meanMs: number;
}

/** Weight of the newest frame in the mean: quick enough to notice a device that throttles, slow enough to ignore one hiccup. */
const NEWEST = 0.2;

/** Whether frames can take some way through these stages without the agents to avoid. */
export function hasRoute(stages: readonly RoutedStage[], avoid: (agent: string) => boolean): boolean {
  return stages.every((stage) => stage.agents.some((_, replica) => lackingIn(stage, replica, avoid) <= (stage.redundancy ?? 0)));
}

function lackingIn({ agents }: RoutedStage, replica: number, avoid: (agent: string) => boolean): number {
  return agents[replica]?.reduce((count, agent) => count + (avoid(agent) ? 1 : 0), 0) ?? 0;
}

export class Router {
  readonly epoch: number;
  readonly #stages: readonly RoutedStage[];
  readonly #loads: readonly ReplicaLoad[][];
  readonly #weights: Network['weights'];
  readonly #inTurn: readonly boolean[];
  /** Of each stage the replica that took the last frame. */
  readonly #last: number[];
  #turn = 0;

  constructor(network: Network) {
    this.epoch = network.epoch;
    this.#stages = network.stages;
    this.#loads = network.stages.map((stage) => stage.agents.map(() => ({ inFlight: 0, meanMs: 0 })));
    this.#weights = network.stages.length > 1 ? network.weights : undefined;
    this.#inTurn = network.inTurn ?? [];
    this.#last = network.stages.map(() => -1);
  }

  /**
   * The route whose replicas will be free soonest: least (frames in flight + 1) x time of one, in turn when equal. So a device of
   * half the speed gets half the frames. The time is the measured latency where a plan has one stage; with several, a frame's latency says little of any one of
   * them, and what the plan says that each replica takes stands for it. Of a stage in turn it is the next replica, whatever it has to do. Of a coded stage a replica that lacks one part is as good as any, if no other lacks less. Undefined when
   * some stage has no replica that can do without the agents to avoid.
   */
  pick(avoid: (agent: string) => boolean): Route | undefined {
    const route: number[] = [];
    this.#turn++;
    for (const [s, stage] of this.#stages.entries()) {
      let best: number | undefined;
      let bestCost = Number.POSITIVE_INFINITY;
      let bestLacking = Number.POSITIVE_INFINITY;
      const untriedMs = this.#untriedMs(s);
      for (let k = 0; k < stage.agents.length; k++) {
        const inTurn = this.#inTurn[s] === true;
        const replica = (k + (inTurn ? (this.#last[s] ?? -1) + 1 : this.#turn)) % stage.agents.length;
        const lacking = lackingIn(stage, replica, avoid);
        if (lacking > (stage.redundancy ?? 0) || lacking > bestLacking) continue;
        const cost = inTurn ? k : this.#cost(s, replica, untriedMs);
        if (lacking < bestLacking || cost < bestCost) {
          best = replica;
          bestCost = cost;
          bestLacking = lacking;
        }
      }
      if (best === undefined) return undefined;
      route.push(best);
    }
    return route;
  }

  /** Whether `pick` would find one. Costs nothing and takes no turn. */
  hasRoute(avoid: (agent: string) => boolean): boolean {
    return hasRoute(this.#stages, avoid);
  }

  /** Whether a frame on this route gives its result without what these agents would do for it. */
  survives(route: Route, without: ReadonlySet<string>): boolean {
    return this.#stages.every((stage, s) => lackingIn(stage, route[s] ?? 0, (agent) => without.has(agent)) <= (stage.redundancy ?? 0));
  }

  /** As `survives`, without also one of each of `unheard`, whichever suits. */
  survivesAny(route: Route, without: ReadonlySet<string>, unheard: readonly (readonly string[])[]): boolean {
    if (!this.survives(route, without)) return false;
    const open = unheard.find((either) => !either.some((agent) => without.has(agent)));
    return open === undefined || open.some((agent) => this.survivesAny(route, new Set([...without, agent]), unheard));
  }

  agentsOf(route: Route): Set<string> {
    return new Set(route.flatMap((replica, s) => this.#stages[s]?.agents[replica] ?? []));
  }

  started(route: Route): void {
    for (const load of this.#loadsOf(route)) load.inFlight++;
    for (const [s, replica] of route.entries()) this.#last[s] = replica;
  }

  /** The attempt is over; `latencyMs` when it gave the result. */
  ended(route: Route, latencyMs?: number): void {
    for (const load of this.#loadsOf(route)) {
      load.inFlight--;
      if (latencyMs !== undefined) load.meanMs = load.meanMs === 0 ? latencyMs : load.meanMs + NEWEST * (latencyMs - load.meanMs);
    }
  }

  #cost(stage: number, replica: number, untriedMs: number): number {
    const load = this.#loads[stage]?.[replica];
    if (load === undefined) return Number.POSITIVE_INFINITY;
    const weight = this.#weights?.[stage]?.[replica];
    // Half a frame: whoever is to have the ninth part of few frames gets the ninth part of them. A whole one would leave him with hardly any.
    if (weight !== undefined && weight > 0) return (load.inFlight + 0.5) / weight;
    return (load.inFlight + 1) * (load.meanMs > 0 ? load.meanMs : untriedMs);
  }

  /** A replica that has not been tried counts as fast as the fastest, so that it is tried. */
  #untriedMs(stage: number): number {
    let least = Number.POSITIVE_INFINITY;
    for (const { meanMs } of this.#loads[stage] ?? []) if (meanMs > 0 && meanMs < least) least = meanMs;
    return Number.isFinite(least) ? least : 1;
  }

  *#loadsOf(route: Route): Generator<ReplicaLoad> {
    for (const [s, replica] of route.entries()) {
      const load = this.#loads[s]?.[replica];
      if (load !== undefined) yield load;
    }
  }
}
