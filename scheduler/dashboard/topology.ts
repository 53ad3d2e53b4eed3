/** Who holds which part of which stage, and what lies between: from a plan and the lanes to a column of stages and hops. Pure. */
import type { DeploymentStatus, LinkRow, PlanReport, PlanRow } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { Lane, Lanes } from './lanes.js';

export interface SeatView {
  readonly agent: string;
  /** Of the agent. */
  readonly state: string;
  readonly replica: number;
  /** From 1; of `parts`. */
  readonly part: number;
  readonly parts: number;
  /** It holds the parity of a coded stage. */
  readonly parity: boolean;
  /** Of the stage's work, 0 to 1. */
  readonly share: number;
  /** Graph shas, one for each stage of the group. */
  readonly slices: readonly string[];
  readonly weightBytes: number;
  readonly predictedMs: number;
  /** Mean of real frames; 0 = none yet. */
  readonly measuredMs: number;
}

/** Neighbouring stages cut alike and seated alike. */
export interface StageGroup {
  readonly kind: 'stages';
  /** From 1. */
  readonly first: number;
  readonly last: number;
  readonly cut: string;
  /** Replica by replica, part by part. */
  readonly seats: readonly (readonly SeatView[])[];
  /** Among its own agents: borders that neighbours exchange. */
  readonly within: readonly Lane[];
}

/** From one group, or the gateway, to the next. */
export interface Hop {
  readonly kind: 'hop';
  readonly lanes: readonly Lane[];
  /** Agents that pass data on to themselves. */
  readonly stays: readonly string[];
}

export interface Topology {
  readonly deployment: string;
  readonly epoch: number;
  readonly planner: string;
  /** Hop, stages, hop, ..., hop: from the gateway and back to it. Empty without a plan. */
  readonly flow: readonly (StageGroup | Hop)[];
  /** Lanes that jump over stages. */
  readonly across: readonly Lane[];
}

export function topologyOf(deployment: DeploymentStatus, states: ReadonlyMap<string, string>, lanes: Lanes): Topology {
  const { name, plan } = deployment;
  if (plan === null) return { deployment: name, epoch: deployment.epoch, planner: '', flow: [], across: [] };
  const groups = groupsOf(plan, deployment, states);
  const used = new Set<LinkRow>();
  const among = (from: readonly string[], to: readonly string[]): Lane[] => {
    const [givers, takers] = [new Set(from), new Set(to)];
    return plan.links.flatMap((link) => {
      if (!givers.has(link.from) || !takers.has(link.to)) return [];
      used.add(link);
      return [lanes.between(link.from, link.to, link.bytesPerFrame)];
    });
  };
  const flow: (StageGroup | Hop)[] = [];
  let before: readonly string[] = [DISPATCHER];
  for (const group of groups) {
    const agents = agentsOf(group);
    flow.push(hop(before, agents, among), { ...group, within: among(agents, agents) });
    before = agents;
  }
  flow.push(hop(before, [DISPATCHER], among));
  const across = plan.links.filter((link) => !used.has(link)).map(({ from, to, bytesPerFrame }) => lanes.between(from, to, bytesPerFrame));
  return { deployment: name, epoch: plan.epoch, planner: plan.planner, flow, across };
}

function hop(from: readonly string[], to: readonly string[], among: (from: readonly string[], to: readonly string[]) => Lane[]): Hop {
  return { kind: 'hop', lanes: among(from, to), stays: from.filter((agent) => to.includes(agent)) };
}

function agentsOf({ seats }: Pick<StageGroup, 'seats'>): readonly string[] {
  return [...new Set(seats.flat().map(({ agent }) => agent))];
}

function groupsOf(plan: PlanReport, deployment: DeploymentStatus, states: ReadonlyMap<string, string>): Omit<StageGroup, 'within'>[] {
  const stages = new Map<number, PlanRow[]>();
  for (const row of plan.seats) {
    const alike = stages.get(row.stage);
    if (alike === undefined) stages.set(row.stage, [row]);
    else alike.push(row);
  }
  const runs: { key: string; rows: PlanRow[][] }[] = [];
  for (const [, rows] of [...stages].sort(([a], [b]) => a - b)) {
    const sorted = rows.sort((a, b) => a.replica - b.replica || a.part - b.part);
    const coded = plan.redundancy?.rows.some(({ stage }) => stage === sorted[0]?.stage) === true;
    const key = JSON.stringify([coded, sorted.map(({ cut, replica, part, agent }) => [cut, replica, part, agent])]);
    const last = runs.at(-1);
    if (last?.key === key) last.rows.push(sorted);
    else runs.push({ key, rows: [sorted] });
  }
  return runs.map(({ rows }) => groupOf(rows, plan, deployment, states));
}

function groupOf(
  rows: readonly (readonly PlanRow[])[],
  plan: PlanReport,
  { live }: DeploymentStatus,
  states: ReadonlyMap<string, string>,
): Omit<StageGroup, 'within'> {
  const [first = []] = rows;
  const numbers = rows.flatMap(([row]) => (row === undefined ? [] : [row.stage]));
  const measured = new Map(live.map((row) => [place(row), row.measuredMs]));
  const coded = plan.redundancy?.rows.find(({ stage }) => stage === numbers[0]);
  const replicas = [...new Set(first.map(({ replica }) => replica))];
  const seats = replicas.map((replica) => {
    const parts = first.filter((row) => row.replica === replica);
    const work = rows.flat().filter((row) => row.replica === replica);
    const total = sum(work.map(({ macs }) => macs));
    return parts.map((row): SeatView => {
      const mine = work.filter(({ part }) => part === row.part);
      return {
        agent: row.agent,
        state: states.get(row.agent) ?? 'unknown',
        replica,
        part: row.part + 1,
        parts: parts.length,
        parity: coded?.parts === row.part,
        share: total === 0 ? 1 / parts.length : sum(mine.map(({ macs }) => macs)) / total,
        slices: mine.map(({ slice }) => slice),
        weightBytes: sum(mine.map(({ weightBytes }) => weightBytes)),
        predictedMs: sum(mine.map(({ predictedMs }) => predictedMs)),
        measuredMs: sum(mine.map((one) => measured.get(place(one)) ?? 0)),
      };
    });
  });
  return { kind: 'stages', first: (numbers[0] ?? 0) + 1, last: (numbers.at(-1) ?? 0) + 1, cut: first[0]?.cut ?? '', seats };
}

function place({ stage, replica, part }: { readonly stage: number; readonly replica: number; readonly part: number }): string {
  return `${stage} ${replica} ${part}`;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
