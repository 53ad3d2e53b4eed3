/**
 * Peer tables: for each agent, who sends it activations and who gets its own, in all plans that are in force, being prepared or draining (the paper's "IP
 * table"). From plans and addresses to tables with versions; no effects.
 */
import type { Health, Neighbour, PeerEntry } from '../broker/messages.js';
import { type Plan, SINK, SOURCE } from '../broker/plan.js';
import { DISPATCHER } from '../broker/topics.js';

export interface Relation {
  /** It sends to this agent. */
  before: boolean;
  /** This agent sends to it. */
  after: boolean;
}

type Relations = ReadonlyMap<string, ReadonlyMap<string, Relation>>;

/** Plans do not change: each is looked through once. */
const known = new WeakMap<Plan, Relations>();

/** For each agent of the plan, and for the dispatcher: whom it exchanges activations with, on any route. */
export function neighboursOf(plan: Plan): Relations {
  const seen = known.get(plan);
  if (seen !== undefined) return seen;
  const all = new Map<string, Map<string, Relation>>();
  const relation = (of: string, to: string): Relation => {
    const mine = all.get(of) ?? new Map<string, Relation>();
    all.set(of, mine);
    const found = mine.get(to) ?? { before: false, after: false };
    mine.set(to, found);
    return found;
  };
  const holders = (stage: number, part: number): string[] => {
    if (stage === SOURCE || stage === SINK) return [DISPATCHER];
    return (plan.stages[stage]?.agents ?? []).flatMap((replica) => replica[part] ?? []);
  };
  const pairs = new Set<string>();
  for (const { fromStage, fromPart, toStage, toPart } of plan.wires) {
    const pair = `${fromStage} ${fromPart} ${toStage} ${toPart}`;
    // Several wires join the same seats when several tensors or boxes pass.
    if (pairs.has(pair)) continue;
    pairs.add(pair);
    for (const from of holders(fromStage, fromPart)) {
      for (const to of holders(toStage, toPart)) {
        if (from === to) continue;
        relation(to, from).before = true;
        relation(from, to).after = true;
      }
    }
  }
  known.set(plan, all);
  return all;
}

/** Graph shas of the slices that the agent is seated with. */
function slicesAt(plans: readonly Plan[], agent: string): string[] {
  const slices = plans.flatMap(({ stages }) =>
    stages.flatMap(({ parts, agents }) => parts.filter((_, p) => agents.some((replica) => replica[p] === agent)).map(({ slice }) => slice)),
  );
  return [...new Set(slices)];
}

export interface PeerTable {
  /** Grows with each change, of any table. */
  readonly version: number;
  readonly rows: readonly Neighbour[];
  /** Whom nobody may have to do with. */
  readonly out: readonly string[];
}

export interface Seen {
  readonly plans: readonly Plan[];
  /** Agents that get a table. */
  readonly agents: readonly string[];
  /** Where an agent, or the dispatcher, listens; undefined = nobody knows it. */
  readonly entry: (name: string) => PeerEntry | undefined;
  /** Agents whose certificate was revoked: everybody is told, since their lanes may outlive what tables name. Default: none. */
  readonly out?: readonly string[];
}

export class PeerTables {
  readonly #tables = new Map<string, PeerTable & { readonly text: string }>();
  #version = 0;

  get(agent: string): PeerTable | undefined {
    return this.#tables.get(agent);
  }

  /** Makes the tables anew; returns the agents whose table is another one now. Tables of agents that are not named are forgotten. */
  update({ plans, agents, entry, out = [] }: Seen): string[] {
    const named = new Set(agents);
    for (const agent of this.#tables.keys()) if (!named.has(agent)) this.#tables.delete(agent);
    const slices = new Map<string, string[]>();
    const slicesOf = (name: string): string[] => {
      const found = slices.get(name) ?? slicesAt(plans, name);
      slices.set(name, found);
      return found;
    };
    const changed: string[] = [];
    for (const agent of agents) {
      const rows = [...relationsOf(plans, agent)].flatMap(([name, relation]) => {
        const at = out.includes(name) ? undefined : entry(name);
        return at === undefined ? [] : [{ ...at, ...relation, slices: slicesOf(name) }];
      });
      const text = JSON.stringify([rows, out]);
      if (this.#tables.get(agent)?.text === text) continue;
      this.#tables.set(agent, { version: ++this.#version, rows, out, text });
      changed.push(agent);
    }
    return changed;
  }
}

/** Over all plans, by name; the dispatcher first, with whom everyone has to do. */
function relationsOf(plans: readonly Plan[], agent: string): Map<string, Relation> {
  const all = new Map<string, Relation>([[DISPATCHER, { before: false, after: false }]]);
  for (const plan of plans) {
    for (const [name, { before, after }] of neighboursOf(plan).get(agent) ?? []) {
      const sum = all.get(name);
      all.set(name, { before: before || sum?.before === true, after: after || sum?.after === true });
    }
  }
  const sorted = [...all].sort(([a], [b]) => Number(b === DISPATCHER) - Number(a === DISPATCHER) || (a < b ? -1 : 1));
  return new Map(sorted);
}

export interface BrokenLane {
  readonly peer: string;
  readonly why: string;
}

/** Direct lanes of the first health that are none in the second. */
export function brokenLanes(before: Health | null | undefined, now: Health): BrokenLane[] {
  if (before?.nonce !== now.nonce) return [];
  const direct = new Set(before.lanes.flatMap(({ peer, lane }) => (lane === 'direct' ? [peer] : [])));
  return now.lanes.flatMap(({ peer, lane, why }) => (direct.has(peer) && (lane === 'relay' || lane === 'down') ? [{ peer, why }] : []));
}
