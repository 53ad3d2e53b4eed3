/**
 * Local repair of a plan that lost agents: the same slices and wires, with other agents in the seats of the lost ones. Nothing is cut or written anew, so it can
 * serve as soon as the slices are where they are wanted. Pure.
 *
 * A replica that is whole goes on by itself; broken replicas beside it are left out until the next full plan. A stage without a whole replica keeps the one that
 * lost least, and spares or neighbours take its empty seats. Who takes them is the choice that loses least service:
 *
 *   cost = pause until the slices are there + HORIZON_MS x the part of the service that is lost against the best repair, in ms
 *
 * So the fewest bytes are moved, unless that makes the plan much slower. Seats of one lost agent go to one other, as bands of following stages stay together
 * then, or each to its own, whichever costs less. No two parts of a coded stage come to one agent; where nobody is left for the parities that a lost agent held,
 * the stages go on without them until the next full plan.
 */
import type { SliceRef } from '../broker/plan.js';
import type { StageSpec } from '../models/slicing/partition.js';
import { computeMs } from './planners/cost.js';
import { bottleneckLine, mib, refuse, score, seatedDraft } from './planners/draft.js';
import type { Estimate } from './planners/estimate.js';
import {
  type Device,
  isRefusal,
  type Links,
  type Objective,
  type PlanDraft,
  type PlanRefusal,
  type SeatedStage,
} from './planners/problem.js';

export const REPAIR = 'repair';

/** A repair is in force for about so long: then a full plan follows. */
export const HORIZON_MS = 10_000;
/** Whole plans that are estimated for one repair, and how many for one decision. */
const MOST_TRIES = 64;
const TRIES = 6;

export interface RepairQuestion {
  /** The plan that lost agents, and its slices as written: `[stage][part]`. */
  readonly draft: PlanDraft;
  readonly slices: readonly (readonly SliceRef[])[];
  readonly lost: ReadonlySet<string>;
  /** Of them those that are there, and whose links are slow. Default: none. */
  readonly slow?: ReadonlySet<string>;
  /** All that hold seats and are not lost, and those that could take some; a lost one may be there again, as another process. */
  readonly devices: readonly Device[];
  readonly mayTake: (agent: string) => boolean;
  readonly links: Links;
  readonly objective: Objective;
  /** Frames in flight as asked for; 0 = the planner's choice. */
  readonly inFlight: number;
  /** How long until an agent that is asked now has all these slices loaded, ms; infinite = it cannot have them. */
  readonly pauseMs: (agent: string, slices: readonly SliceRef[]) => number;
}

/** A full plan after a repair must be better by so much, or what serves goes on serving. */
const CLEAR_GAIN = 0.05;

/** Whether a plan is so much better than the one in force that its agents should move. */
export function worthMoving(now: Estimate, then: Estimate, objective: string): boolean {
  const by: Objective = objective.startsWith('throughput') ? 'throughput' : 'latency';
  return score(then, by) < (1 - CLEAR_GAIN) * score(now, by);
}

/** One part that another agent takes over. */
export interface Move {
  readonly from: string;
  readonly to: string;
  readonly stage: number;
  readonly part: number;
  readonly slice: SliceRef;
}

export interface Repair {
  readonly draft: PlanDraft;
  readonly moves: readonly Move[];
  /** Of the slowest agent that takes over seats. */
  readonly pauseMs: number;
}

/** A seat that is empty: `share` of the only replica that is left of a stage. */
interface Hole {
  readonly stage: number;
  readonly share: number;
  readonly from: string;
  readonly parts: readonly number[];
  readonly slices: readonly SliceRef[];
  readonly bytes: number;
}

/** Who takes each group of holes, in the order of the groups. */
type Takers = readonly string[];

export function repair(question: RepairQuestion): Repair | PlanRefusal {
  const answer = withItsParities(question);
  const without = isRefusal(answer) ? withoutParities(question.draft, question.lost) : undefined;
  if (without === undefined) return answer;
  const other = withItsParities({ ...question, draft: without });
  if (isRefusal(other)) return other;
  const [done = '', ...rest] = other.draft.why.split('\n');
  return { ...other, draft: { ...other.draft, why: [`${done}; stages go on without the parities that it held`, ...rest].join('\n') } };
}

/** The plan without the parities of lost agents, which nothing needs while all other parts are there. Undefined when they held none. */
function withoutParities(draft: PlanDraft, lost: ReadonlySet<string>): PlanDraft | undefined {
  const bare = new Set<number>();
  for (const [s, { spec, agents }] of draft.stages.entries()) {
    if (spec.redundancy === 1 && agents.some((replica) => lost.has(replica[spec.shares.length] ?? ''))) bare.add(s);
  }
  if (bare.size === 0) return undefined;
  const parityOf = (stage: number): number => (bare.has(stage) ? (draft.cut.stages[stage]?.parts.length ?? 0) - 1 : -1);
  const plain = ({ redundancy: _, ...spec }: StageSpec): StageSpec => spec;
  const stages = draft.stages.map((stage, s) =>
    bare.has(s) ? { spec: plain(stage.spec), agents: stage.agents.map((replica) => replica.slice(0, -1)) } : stage,
  );
  const cuts = draft.cut.stages.map(({ spec, parts, partShares }, s) =>
    bare.has(s) ? { spec: plain(spec), parts: parts.slice(0, -1), partShares: partShares.slice(0, -1) } : { spec, parts, partShares },
  );
  const wires = draft.cut.wires.filter((wire) => wire.fromPart !== parityOf(wire.fromStage) && wire.toPart !== parityOf(wire.toStage));
  return { ...draft, stages, cut: { stages: cuts, wires, inputs: draft.cut.inputs, outputs: draft.cut.outputs } };
}

function withItsParities(question: RepairQuestion): Repair | PlanRefusal {
  const repairing = new Repairing(question);
  const { holes } = repairing;
  if (holes.length === 0) return repairing.judge([], []) ?? refuse(`${REPAIR}: what is left of the plan does not fit into memory`);
  const byAgent = new Map<string, Hole[]>();
  for (const hole of holes) byAgent.set(hole.from, [...(byAgent.get(hole.from) ?? []), hole]);
  const together = [...byAgent.values()].sort((a, b) => bytesOf(b) - bytesOf(a) || (a[0]?.from ?? '').localeCompare(b[0]?.from ?? ''));
  const apart = [...holes].sort((a, b) => b.bytes - a.bytes || a.stage - b.stage || a.share - b.share).map((hole) => [hole]);
  const found = [repairing.solve(together), together.length === apart.length ? undefined : repairing.solve(apart)];
  const best = repairing.cheapest(found.filter((one): one is Repair => one !== undefined));
  return best ?? refuse(`${REPAIR}: no agent can take over the seats of ${[...question.lost].join(', ')}`);
}

class Repairing {
  readonly holes: readonly Hole[];
  readonly #q: RepairQuestion;
  readonly #stages: readonly SeatedStage[];
  readonly #devices: ReadonlyMap<string, Device>;
  /** Of those that keep seats: how long each frame keeps them busy, ms, and the bytes that they hold. */
  readonly #busyMs = new Map<string, number>();
  readonly #heldBytes = new Map<string, number>();
  #tries = 0;

  constructor(question: RepairQuestion) {
    this.#q = question;
    this.#devices = new Map(question.devices.map((device) => [device.agent, device]));
    this.#stages = question.draft.stages.map((stage, s) => this.#kept(stage, s));
    this.holes = this.#stages.flatMap((stage, s) => this.#holesOf(stage, s));
    const { memory, seats } = question.draft.estimate;
    for (const { agent, needBytes } of memory) if (!question.lost.has(agent)) this.#heldBytes.set(agent, needBytes);
    for (const { agent, stage, ms } of seats) {
      if (question.lost.has(agent)) continue;
      const replicas = this.#stages[stage]?.agents.length ?? 1;
      this.#busyMs.set(agent, (this.#busyMs.get(agent) ?? 0) + ms / replicas);
    }
  }

  /** Undefined when nobody can take some of the groups. */
  solve(groups: readonly (readonly Hole[])[]): Repair | undefined {
    const extraMs = new Map<string, number>();
    const extraBytes = new Map<string, number>();
    const shortlists: string[][] = [];
    const takers: string[] = [];
    for (const group of groups) {
      const ranked = this.#ranked(group, groups, takers, extraMs, extraBytes);
      const [first] = ranked;
      if (first === undefined) return undefined;
      shortlists.push(ranked);
      takers.push(first);
      extraMs.set(first, (extraMs.get(first) ?? 0) + this.#msOn(first, group));
      extraBytes.set(first, (extraBytes.get(first) ?? 0) + bytesOf(group));
    }
    return this.#improved(groups, takers, shortlists);
  }

  /** One group after the other: whether another of its best candidates makes a better repair, with the rest as it is. */
  #improved(groups: readonly (readonly Hole[])[], first: Takers, shortlists: readonly (readonly string[])[]): Repair | undefined {
    let takers = first;
    let best = this.judge(groups, takers);
    for (const g of groups.keys()) {
      let tried = 0;
      const found: { readonly takers: Takers; readonly repair: Repair }[] = best === undefined ? [] : [{ takers, repair: best }];
      for (const candidate of shortlists[g] ?? []) {
        // What does not fit into memory is only found out by trying.
        if ((tried >= TRIES && found.length > 0) || this.#tries >= MOST_TRIES) break;
        if (candidate === takers[g]) continue;
        tried++;
        const other = takers.with(g, candidate);
        const repaired = this.judge(groups, other);
        if (repaired !== undefined) found.push({ takers: other, repair: repaired });
      }
      const cheapest = this.cheapest(found.map(({ repair }) => repair));
      takers = found.find(({ repair }) => repair === cheapest)?.takers ?? takers;
      best = cheapest;
    }
    return best;
  }

  /** The whole repaired plan, estimated. Undefined when it does not fit, or nobody can have the slices in time. */
  judge(groups: readonly (readonly Hole[])[], takers: Takers): Repair | undefined {
    this.#tries++;
    const { draft, links, objective, inFlight, pauseMs } = this.#q;
    const stages = this.#stages.map((stage) => ({ ...stage, agents: stage.agents.map((replica) => [...replica]) }));
    const moves: Move[] = [];
    const slicesOf = new Map<string, SliceRef[]>();
    for (const [g, group] of groups.entries()) {
      const to = takers[g] ?? '';
      slicesOf.set(to, [...(slicesOf.get(to) ?? []), ...group.flatMap(({ slices }) => slices)]);
      for (const { stage, share, from, parts, slices } of group) {
        const replica = stages[stage]?.agents[0];
        if (replica !== undefined) replica[share] = to;
        for (const [i, slice] of slices.entries()) moves.push({ from, to, stage, part: parts[i] ?? 0, slice });
      }
    }
    if (stages.some(({ spec, agents }) => spec.redundancy === 1 && agents.some((replica) => new Set(replica).size < replica.length))) {
      return undefined;
    }
    const longest = [...slicesOf].reduce((most, [agent, slices]) => Math.max(most, pauseMs(agent, unique(slices))), 0);
    if (!Number.isFinite(longest)) return undefined;
    const concerned = new Set(stages.flatMap(({ agents }) => agents.flat()));
    const devices = this.#q.devices.filter(({ agent }) => concerned.has(agent));
    const judged = seatedDraft({ devices, links, objective, inFlight }, REPAIR, draft.cut, stages);
    if (isRefusal(judged) || !Number.isFinite(judged.estimate.latencyMs)) return undefined;
    const { precision, basis } = draft;
    const kept = { ...(precision === undefined ? {} : { precision }), ...(basis === undefined ? {} : { basis }) };
    return { draft: { ...judged, ...kept, why: this.#why(moves, judged) }, moves, pauseMs: longest };
  }

  cheapest(repairs: readonly Repair[]): Repair | undefined {
    const { objective } = this.#q;
    const quickest = repairs.reduce((least, { draft }) => Math.min(least, score(draft.estimate, objective)), Number.POSITIVE_INFINITY);
    const cost = ({ draft, pauseMs }: Repair): number => pauseMs + HORIZON_MS * (1 - quickest / score(draft.estimate, objective));
    return repairs.reduce<Repair | undefined>((best, one) => (best === undefined || cost(one) < cost(best) - 1e-6 ? one : best), undefined);
  }

  /** Candidates for a group by what can be told without a whole plan, the cheapest first. */
  #ranked(
    group: readonly Hole[],
    groups: readonly (readonly Hole[])[],
    takers: Takers,
    extraMs: ReadonlyMap<string, number>,
    extraBytes: ReadonlyMap<string, number>,
  ): string[] {
    const { mayTake, devices, pauseMs } = this.#q;
    const slices = unique(group.flatMap((hole) => hole.slices));
    const rows: { readonly agent: string; readonly pauseMs: number; readonly busyMs: number }[] = [];
    for (const { agent, memoryBytes } of devices) {
      if (!mayTake(agent) || this.#endangers(agent, group)) continue;
      const held = (this.#heldBytes.get(agent) ?? 0) + (extraBytes.get(agent) ?? 0);
      if (memoryBytes > 0 && held + bytesOf(group) > memoryBytes) continue;
      const already = groups.flatMap((other, g) => (takers[g] === agent ? other.flatMap((hole) => hole.slices) : []));
      const pause = pauseMs(agent, unique([...already, ...slices]));
      if (!Number.isFinite(pause)) continue;
      const busyMs = (this.#busyMs.get(agent) ?? 0) + (extraMs.get(agent) ?? 0) + this.#msOn(agent, group);
      rows.push({ agent, pauseMs: pause, busyMs });
    }
    const floor = Math.max(
      rows.reduce((least, { busyMs }) => Math.min(least, busyMs), Number.POSITIVE_INFINITY),
      this.#q.objective === 'throughput' ? this.#q.draft.estimate.bottleneck.ms : 0,
    );
    const cost = (row: (typeof rows)[number]): number => row.pauseMs + HORIZON_MS * (1 - floor / Math.max(floor, row.busyMs));
    return rows.sort((a, b) => cost(a) - cost(b) || (a.agent < b.agent ? -1 : 1)).map(({ agent }) => agent);
  }

  /** With two parts of a coded stage on one agent, its loss would be more than the parity can stand in for. */
  #endangers(agent: string, group: readonly Hole[]): boolean {
    return group.some(({ stage }) => {
      const { spec, agents } = this.#stages[stage] ?? {};
      return spec?.redundancy === 1 && agents?.[0]?.includes(agent) === true && !this.#q.lost.has(agent);
    });
  }

  #msOn(agent: string, group: readonly Hole[]): number {
    const device = this.#devices.get(agent);
    if (device === undefined) return Number.POSITIVE_INFINITY;
    let ms = 0;
    for (const { stage, share, parts } of group) {
      const cut = this.#q.draft.cut.stages[stage];
      const spec = this.#stages[stage]?.spec;
      if (cut === undefined || spec === undefined) continue;
      const total = spec.shares.reduce((sum, one) => sum + one, 0);
      for (const p of parts) {
        const part = cut.parts[p];
        // A parity is as long as the longest part.
        if (part !== undefined) ms += computeMs(device, part, spec, (spec.shares[share] ?? Math.max(...spec.shares)) / total);
      }
    }
    return ms;
  }

  /** The replicas that are whole; where none is, the one that lost the fewest bytes. */
  #kept(stage: SeatedStage, s: number): SeatedStage {
    const { lost } = this.#q;
    const whole = [...stage.agents.keys()].filter((r) => stage.agents[r]?.some((agent) => lost.has(agent)) === false);
    const { weights, ...rest } = stage;
    if (whole.length > 0) {
      const kept = { ...rest, agents: whole.map((r) => stage.agents[r] ?? []) };
      return weights === undefined ? kept : { ...kept, weights: whole.map((r) => weights[r] ?? 0) };
    }
    const [least] = stage.agents
      .map((replica) => ({ replica, bytes: bytesOf(this.#holesOf({ ...stage, agents: [replica] }, s)) }))
      .sort((a, b) => a.bytes - b.bytes);
    return { ...rest, agents: least === undefined ? [] : [least.replica] };
  }

  #holesOf(stage: SeatedStage, s: number): Hole[] {
    const { draft, slices, lost } = this.#q;
    const cut = draft.cut.stages[s];
    return (stage.agents[0] ?? []).flatMap((from, share): Hole[] => {
      if (!lost.has(from)) return [];
      const parts = [...(cut?.parts.keys() ?? [])].filter((p) => (cut?.partShares[p] ?? p) === share);
      const needed = parts.flatMap((p) => slices[s]?.[p] ?? []);
      return [{ stage: s, share, from, parts, slices: needed, bytes: needed.reduce((sum, slice) => sum + slice.weightBytes, 0) }];
    });
  }

  #why(moves: readonly Move[], { estimate }: PlanDraft): string {
    const lost = [...this.#q.lost].filter((agent) => this.#q.draft.stages.some(({ agents }) => agents.flat().includes(agent)));
    const takes = moves.map(({ to, stage, part, slice }) => `${to} takes stage ${stage + 1} part ${part + 1} (${mib(slice.weightBytes)})`);
    const done = takes.length === 0 ? 'what is left goes on' : takes.slice(0, 4).join(', ') + (takes.length > 4 ? ', ...' : '');
    const isSlow = lost.every((agent) => this.#q.slow?.has(agent) === true);
    return `local repair ${isSlow ? 'around the slow link of' : 'after the loss of'} ${lost.join(', ')}: ${done}\n${bottleneckLine(estimate)}`;
  }
}

function bytesOf(holes: readonly Hole[]): number {
  return holes.reduce((sum, { bytes }) => sum + bytes, 0);
}

function unique(slices: readonly SliceRef[]): SliceRef[] {
  return [...new Map(slices.map((slice) => [slice.graph.sha256, slice])).values()];
}
