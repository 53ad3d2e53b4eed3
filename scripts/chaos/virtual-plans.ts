/**
 * What the virtual world plans and repairs with: models without files, who has which of their slices, and the questions that the real repair is asked. What it
 * answers is looked at here, too. Pure but for the shelves, which only grow.
 */
import type { SliceRef } from '../../broker/plan.js';
import { type ChainBlock, chain } from '../../scheduler/planners/chain-model.js';
import { draft } from '../../scheduler/planners/draft.js';
import {
  type CutFacts,
  type Device,
  isRefusal,
  type ModelFacts,
  type PlanDraft,
  type SeatedStage,
} from '../../scheduler/planners/problem.js';
import { planKey } from '../../scheduler/rebalance/moving.js';
import { decide, USUAL_HORIZON_MS, worthOf } from '../../scheduler/rebalance/worth.js';
import type { AgentRecord, Registry } from '../../scheduler/registry.js';
import type { Repair, RepairQuestion } from '../../scheduler/repair.js';
import { type Holdings, pauseBy } from '../../scheduler/repair-ahead.js';

const MIB = 2 ** 20;
export const LINKS = { usual: { bytesPerSecond: 1e8, latencyMs: 1 }, between: new Map() };
/** What agents do until a plan is in force: the same for all. */
const MOVE_COST = { prepareMs: 1000, pauseMs: 0, bytes: 0 };

/** Which model, cut how, on whom; undefined = no plan is possible. */
export type Planning = (ready: readonly string[], deployment: string) => PlanDraft | undefined;

/** Of three speeds. Memory holds some parts of a plan, and not all of it. */
export function deviceOf(agent: string): Device {
  return { agent, macsPerSecond: 1e9 * (1 + (Number(agent.slice(1)) % 3)), memoryBytes: 700 * MIB };
}

/** A chain of so many blocks, as a model whose stages can be coded, too: the parity is another part, as large as the largest. */
export function model(blocks: number): ModelFacts {
  const facts = chain(
    Array.from({ length: blocks }, (_, i): ChainBlock => ({ macs: 1e8, weightBytes: 40 * MIB * (1 + (i % 3)), rows: 40 })),
    40,
  );
  const cut = (specs: Parameters<ModelFacts['cut']>[0]): ReturnType<ModelFacts['cut']> => {
    const plain = facts.cut(specs);
    if (isRefusal(plain)) return plain;
    const stages = plain.stages.map((stage): CutFacts['stages'][number] => {
      const [largest] = stage.parts.toSorted((a, b) => b.macs - a.macs);
      if (stage.spec.redundancy !== 1 || largest === undefined) return stage;
      return { ...stage, parts: [...stage.parts, largest], partShares: [...stage.partShares, stage.parts.length] };
    });
    return { ...plain, stages };
  };
  return { ...facts, cut };
}

export type Stage = readonly [cut: 'whole' | 'rows', redundancy: 0 | 1, agents: readonly (readonly string[])[]];

/** One block a stage, on these agents. */
export function seated(facts: ModelFacts, stages: readonly Stage[]): PlanDraft | undefined {
  const seats = stages.map(([cut, redundancy, agents], s): SeatedStage => {
    const shares = Array.from({ length: (agents[0]?.length ?? 1) - redundancy }, () => 1);
    return { spec: { nodes: [s, s + 1], cut, shares, ...(redundancy === 0 ? {} : { redundancy }) }, agents };
  });
  const devices = [...new Set(stages.flatMap(([, , agents]) => agents.flat()))].map(deviceOf);
  const made = draft({ facts, devices, links: LINKS, objective: 'throughput', inFlight: 0 }, 'seated', seats);
  return isRefusal(made) ? undefined : made;
}

/** A model of its own for each deployment: `[stage][part]`. */
export function slicesOf({ cut }: PlanDraft, deployment: string): SliceRef[][] {
  return cut.stages.map(({ spec, parts }, s) =>
    parts.map(({ weightBytes }, p) => {
      const name = `${deployment} ${spec.nodes.join('-')} ${spec.shares.length}/${p} ${s}`;
      const blobs = [{ sha256: `weights of ${name}`, sizeBytes: weightBytes }];
      return { graph: { sha256: name, sizeBytes: 1000 }, blobs, macs: 1, weightBytes, activationBytes: 0 };
    }),
  );
}

/** Who has what: on the disks of machines, and in the memory of processes. */
export class Shelves implements Holdings {
  readonly #stored = new Map<string, Set<string>>();
  readonly #loaded = new Map<string, Set<string>>();

  constructor(private readonly nonceOf: (agent: string) => string) {}

  stored(agent: string, sha256: string): boolean {
    return this.#stored.get(agent)?.has(sha256) === true;
  }

  loaded(agent: string, sha256: string): boolean {
    return this.#loaded.get(this.nonceOf(agent))?.has(sha256) === true;
  }

  /** This process has prepared its seats. */
  add(agent: string, nonce: string, made: PlanDraft, slices: readonly (readonly SliceRef[])[]): void {
    const stored = this.#stored.get(agent) ?? new Set();
    const loaded = this.#loaded.get(nonce) ?? new Set();
    for (const [s, parts] of slices.entries()) {
      for (const [p, { graph, blobs }] of parts.entries()) {
        const share = made.cut.stages[s]?.partShares[p] ?? p;
        if (made.stages[s]?.agents.some((replica) => replica[share] === agent) !== true) continue;
        for (const { sha256 } of [graph, ...blobs]) stored.add(sha256);
        loaded.add(graph.sha256);
      }
    }
    this.#stored.set(agent, stored);
    this.#loaded.set(nonce, loaded);
  }
}

export interface InForce {
  readonly draft: PlanDraft;
  readonly slices: readonly (readonly SliceRef[])[];
  readonly nonces: ReadonlyMap<string, string>;
}

/** What the repair of a plan in force is asked, from what the registry knows: as the scheduler asks (drafting.ts, repairs.ts). */
export function questionOf({ draft: made, slices, nonces }: InForce, registry: Registry, shelves: Shelves): RepairQuestion {
  const serves = ({ agent, nonce }: AgentRecord): boolean => nonces.get(agent) === nonce && registry.serves(agent, nonce);
  const records = registry.all();
  const here = new Set(records.filter(serves).map(({ agent }) => agent));
  const ready = new Set(records.filter(({ state }) => state === 'ready').map(({ agent }) => agent));
  const devices = records.filter(({ agent }) => here.has(agent) || ready.has(agent)).map(({ agent }) => deviceOf(agent));
  return {
    draft: made,
    slices,
    lost: new Set([...nonces.keys()].filter((agent) => !here.has(agent))),
    devices,
    mayTake: (agent) => ready.has(agent),
    ...{ links: LINKS, objective: 'throughput', inFlight: 0 },
    pauseMs: pauseBy(shelves, devices, LINKS),
  };
}

/** What a repair must be; '' = it is. */
export function flawOf({ draft: before, lost, devices, mayTake }: RepairQuestion, { draft: now, moves, pauseMs }: Repair): string {
  const there = new Set(devices.map(({ agent }) => agent));
  if (!Number.isFinite(pauseMs)) return 'it never serves';
  for (const [s, { spec, agents }] of now.stages.entries()) {
    const [was, is] = [before, now].map(({ cut }) => cut.stages[s]?.parts ?? []);
    const { spec: specBefore, agents: seats = [] } = before.stages[s] ?? {};
    const bare = specBefore?.redundancy === 1 && spec.redundancy !== 1;
    if (is?.length !== (was?.length ?? 0) - (bare ? 1 : 0) || !is.every((part, p) => part === was?.[p])) return 'something is cut anew';
    if (bare && !seats.some((replica) => lost.has(replica.at(-1) ?? ''))) return `stage ${s} gives up a parity that is there`;
    if (agents.length === 0) return `stage ${s} has no replica`;
    for (const replica of agents) {
      const fits = (one: readonly string[], but: ReadonlySet<string>): boolean =>
        one.every((agent, i) => agent === replica[i] || but.has(agent));
      const olds = seats.map((one) => one.slice(0, replica.length));
      const old = olds.find((one) => fits(one, new Set())) ?? olds.find((one) => fits(one, lost));
      if (old === undefined) return `stage ${s} is on ${replica.join(', ')}, which no replica was on before`;
      for (const [i, agent] of replica.entries()) {
        if (!there.has(agent)) return `stage ${s} is seated on ${agent}, which is gone`;
        if (lost.has(old[i] ?? '') && !mayTake(agent)) return `${agent} takes a seat of stage ${s} and may not`;
      }
      if (spec.redundancy === 1 && new Set(replica).size < replica.length)
        return `stage ${s} is coded, and two of its parts are on one agent`;
    }
  }
  for (const { to, from } of moves) if (!lost.has(from) || !there.has(to)) return `a part moves from ${from} to ${to}`;
  const tight = now.estimate.memory.find(({ haveBytes, needBytes }) => haveBytes > 0 && needBytes > haveBytes);
  return tight === undefined ? '' : `the memory of ${tight.agent} does not hold it`;
}

/** Whether the plan in force stays: it is the same, or, when nothing forces a move, the other is not worth it. */
export function stays(now: PlanDraft, then: PlanDraft, forced: boolean): boolean {
  if (planKey(now) === planKey(then)) return true;
  const coded = ({ stages }: PlanDraft): number => stages.filter(({ spec }) => spec.redundancy === 1).length;
  if (coded(then) > coded(now)) return false;
  const want = { objective: 'throughput', pressed: false } as const;
  const choice = { current: worthOf(now.estimate, want), candidate: worthOf(then.estimate, want), cost: MOVE_COST, recent: 0 };
  return !forced && !decide({ ...choice, horizonMs: USUAL_HORIZON_MS }).move;
}
