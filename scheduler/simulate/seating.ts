/** A draft made ready to be run: who sits where, which wires leave each part, how long each seat computes. */
import { codedInputs } from '../../broker/parity.js';
import { SINK, SOURCE } from '../../broker/plan.js';
import type { InForce } from '../frame-types.js';
import { turnsOf } from '../plan-builder.js';
import { aroundMs } from '../planners/cost.js';
import { estimate, seatOf, wireBytes } from '../planners/estimate.js';
import type { Device, Links, PlanDraft } from '../planners/problem.js';
import type { Route } from '../router.js';

export interface Leaving {
  readonly toStage: number;
  readonly toPart: number;
  readonly bytes: number;
  /** Of the boxes of a coded input: which of `Seating.coded`. */
  readonly coded?: number;
}

export interface Part {
  /** Boxes that must have arrived before it runs: of a coded input all but one. */
  readonly wiresIn: number;
  readonly leaving: readonly Leaving[];
  /** Position among all parts of the plan. */
  readonly index: number;
  /** By replica, ms at full speed. */
  readonly runMs: readonly number[];
  /** Names the slice: an agent that has it need not fetch it. */
  readonly slice: string;
  readonly weightBytes: number;
  /** Nodes whose weights it holds entirely, as whole stages and bands do; undefined = only parts of them. */
  readonly holds: readonly [number, number] | undefined;
}

const KEEPS_WEIGHTS: ReadonlySet<string> = new Set(['whole', 'rows', 'columns']);

export interface Seating extends InForce {
  readonly draft: PlanDraft;
  readonly parts: readonly (readonly Part[])[];
  readonly partCount: number;
  /** Wires of the inputs, and how many bring outputs to the dispatcher. */
  readonly entering: readonly Leaving[];
  readonly results: number;
  /** Of each coded input of the plan: how many of its boxes are enough. */
  readonly coded: readonly number[];
  /** Wires from an input straight to an output. */
  readonly passing: number;
  readonly agents: ReadonlySet<string>;
}

export interface SeatOptions {
  readonly devices: readonly Device[];
  readonly links: Links;
  readonly epoch: number;
  readonly budget: number;
  readonly timesOfDrafts: boolean;
}

export function seat(draft: PlanDraft, { devices, links, epoch, budget, timesOfDrafts }: SeatOptions): Seating {
  const { cut, stages } = draft;
  const { seats } = timesOfDrafts ? draft.estimate : estimate(cut, stages, devices, links, budget);
  const around = new Map(devices.map((device) => [device.agent, aroundMs(device)]));
  const ms = new Map(seats.map((s) => [`${s.stage}/${s.replica}/${s.part}`, s.ms + (around.get(s.agent) ?? 0)]));
  const leaving = new Map<string, Leaving[]>();
  const arriving = new Map<string, number>();
  let passing = 0;
  const coded: number[] = [];
  const codedOf = new Map<number, number>();
  const codedStages = cut.stages.map(({ parts, spec }) => ({ parts, redundancy: spec.redundancy ?? 0 }));
  const consumers = cut.stages.flatMap(({ parts }, s) => parts.map((_, p): readonly [number, number] => [s, p]));
  for (const [s, p] of [...consumers, [SINK, 0] as const]) {
    for (const group of codedInputs(codedStages, cut.wires, s, p)) {
      for (const w of [...group.parts, group.parity]) codedOf.set(w, coded.length);
      coded.push(group.parts.length);
      const to = s === SINK ? 'results' : `${s}/${p}`;
      arriving.set(to, (arriving.get(to) ?? 0) - 1);
    }
  }
  for (const [w, wire] of cut.wires.entries()) {
    if (wire.fromStage === SOURCE && wire.toStage === SINK) passing++;
    const from = `${wire.fromStage}/${wire.fromPart}`;
    const known = leaving.get(from) ?? [];
    const group = codedOf.get(w);
    known.push({
      toStage: wire.toStage,
      toPart: wire.toPart,
      bytes: wireBytes(cut, wire),
      ...(group === undefined ? {} : { coded: group }),
    });
    leaving.set(from, known);
    const to = wire.toStage === SINK ? 'results' : `${wire.toStage}/${wire.toPart}`;
    arriving.set(to, (arriving.get(to) ?? 0) + 1);
  }
  let index = 0;
  const parts = cut.stages.map((stage, s) =>
    stage.parts.map(
      (part, p): Part => ({
        wiresIn: arriving.get(`${s}/${p}`) ?? 0,
        leaving: leaving.get(`${s}/${p}`) ?? [],
        index: index++,
        runMs: (stages[s]?.agents ?? []).map((_, r) => ms.get(`${s}/${r}/${p}`) ?? 0),
        slice: JSON.stringify([stage.spec, p]),
        weightBytes: part.weightBytes,
        holds: KEEPS_WEIGHTS.has(stage.spec.cut) ? stage.spec.nodes : undefined,
      }),
    ),
  );
  const seated = stages.map((stage, s) => ({
    redundancy: stage.spec.redundancy ?? 0,
    agents: stage.agents.map((_, r) => (cut.stages[s]?.parts ?? []).map((_part, p) => seatOf(cut, stages, s, r, p))),
  }));
  return {
    ...{ epoch, budget, expectedMs: draft.estimate.latencyMs, stages: seated, draft, parts, partCount: index, passing, coded },
    ...turnsOf(draft),
    entering: (leaving.get(`${SOURCE}/0`) ?? []).filter((wire) => wire.toStage !== SINK),
    results: arriving.get('results') ?? 0,
    agents: new Set(seated.flatMap((stage) => stage.agents.flat())),
  };
}

/** The agent that holds a part on this route. */
export function holder(seating: Seating, route: Route, stage: number, part: number): string {
  return seating.stages[stage]?.agents[route[stage] ?? 0]?.[part] ?? '';
}
