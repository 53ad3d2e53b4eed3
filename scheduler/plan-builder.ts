/** From a planner's draft and the written slices to the plan that agents get, and to the report that people read. */
import type { DeployRequest, PlanDetails, PlanReport } from '../broker/messages.js';
import type { Plan, PlanPart, PlanStage, SliceRef } from '../broker/plan.js';
import type { LoadedModel } from './model-source.js';
import { planFileText } from './plan-file.js';
import { seatOf } from './planners/estimate.js';
import type { CutFacts, PlanDraft } from './planners/problem.js';
import { redundancyOf } from './redundancy.js';
import type { Network } from './router.js';

/** The slices of a cut as they stand in the store: `slices[stage][part]`. */
export interface WrittenCut {
  readonly cut: CutFacts;
  readonly slices: readonly (readonly SliceRef[])[];
}

export interface PlanIdentity {
  readonly deployment: string;
  readonly model: string;
  readonly term: number;
  readonly epoch: number;
}

export function buildPlan(identity: PlanIdentity, draft: PlanDraft, written: WrittenCut): Plan {
  const { cut } = written;
  const slices: Record<string, SliceRef> = {};
  const stages = cut.stages.map((stage, s): PlanStage => {
    const parts = stage.parts.map((part, p): PlanPart => {
      const slice = written.slices[s]?.[p];
      if (slice === undefined) throw new Error(`stage ${s} part ${p} was not written`);
      slices[slice.graph.sha256] = slice;
      return { slice: slice.graph.sha256, inputs: part.inputs, outputs: part.outputs };
    });
    const replicas = draft.stages[s]?.agents ?? [];
    const agents = replicas.map((_, r) => parts.map((_, p) => seatOf(cut, draft.stages, s, r, p)));
    return { cut: stage.spec.cut, parts, agents, redundancy: stage.spec.redundancy ?? 0 };
  });
  return {
    ...identity,
    planner: draft.planner,
    why: draft.why,
    inputs: cut.inputs,
    outputs: cut.outputs,
    slices,
    stages,
    // Cut anew from the same stages: the same wires, but how they travel is the draft's.
    wires: cut.wires.map((wire, w) => ({ ...wire, encoding: draft.cut.wires[w]?.encoding ?? wire.encoding })),
    predictedLatencyMs: draft.estimate.latencyMs,
    predictedFps: draft.estimate.fps,
  };
}

/** `slices` is undefined for a plan that is only shown: nothing was written yet. */
export function reportOf(deployment: string, epoch: number, draft: PlanDraft, slices?: WrittenCut['slices']): PlanReport {
  const { latencyMs, usualLatencyMs = latencyMs, fps, seats, links, memory } = draft.estimate;
  return {
    deployment,
    epoch,
    planner: draft.planner,
    why: draft.why,
    basis: draft.basis ?? '',
    predictedLatencyMs: usualLatencyMs,
    predictedFps: fps,
    seats: seats.map(({ stage, replica, part, agent, macs, weightBytes, ms, bytesIn, bytesOut }) => ({
      stage,
      cut: draft.stages[stage]?.spec.cut ?? '',
      replica,
      part,
      agent,
      slice: slices?.[stage]?.[part]?.graph.sha256 ?? '',
      macs: Math.round(macs),
      weightBytes: Math.round(weightBytes),
      predictedMs: ms,
      bytesIn: Math.round(bytesIn),
      bytesOut: Math.round(bytesOut),
    })),
    links: [...links],
    memory: memory.map((row) => ({ ...row, haveBytes: Math.round(row.haveBytes) })),
    precision: draft.precision ?? null,
    redundancy: redundancyOf(draft) ?? null,
    details: null,
  };
}

/** What who asked for a plan gets besides: the plan as a file, and what it was compared with. `maxRelDiff` -1 = not verified. */
export function detailsOf(
  { name, shapes, images, objective, maxError }: DeployRequest,
  { sha256, facts, describe }: Pick<LoadedModel, 'sha256' | 'facts' | 'describe'>,
  draft: PlanDraft,
  maxRelDiff = -1,
): PlanDetails {
  const head = { deployment: name, model: sha256, shapes, images, objective: objective || 'latency', maxError };
  const { alternatives = [], changes = [] } = draft.explained ?? {};
  const file = planFileText({ ...head, ...(describe === undefined ? {} : { describe }) }, draft, facts);
  return { file, inFlight: draft.inFlight, maxRelDiff, alternatives, changes };
}

/** What decides which replica takes a frame. */
export function turnsOf({ stages, estimate }: PlanDraft): Required<Pick<Network, 'weights' | 'inTurn'>> {
  return { weights: estimate.weights, inTurn: stages.map(({ inTurn }) => inTurn === true) };
}

/** The agents that hold a seat of the plan. */
export function agentsOf(plan: Plan): Set<string> {
  return new Set(plan.stages.flatMap((stage) => stage.agents.flat()));
}

/** The names of all files that agents fetch for the plan. */
export function blobsOf({ slices }: Plan): string[] {
  return Object.values(slices).flatMap(({ graph, blobs }) => [graph.sha256, ...blobs.map((blob) => blob.sha256)]);
}

/** The slices that one agent needs. */
export function slicesOf(plan: Plan, agent: string): SliceRef[] {
  const needed = new Map<string, SliceRef>();
  for (const stage of plan.stages) {
    for (const replica of stage.agents) {
      for (const [p, holder] of replica.entries()) {
        const slice = plan.slices[stage.parts[p]?.slice ?? ''];
        if (holder === agent && slice !== undefined) needed.set(slice.graph.sha256, slice);
      }
    }
  }
  return [...needed.values()];
}
