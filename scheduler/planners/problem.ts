/**
 * What a planner is asked and what it answers: plain data and pure functions, so that planners can be tested, compared and run in numbers.
 * A planner is one function `(problem) => PlanDraft | PlanRefusal` in a file of its name.
 */
import type { Port, Wire } from '../../broker/plan.js';
import type { TensorInfo } from '../../broker/tensor.js';
import type { Block } from '../../models/model.js';
import type { StageSpec } from '../../models/slicing/partition.js';
import type { Estimate } from './estimate.js';

export type Objective = 'latency' | 'throughput';

export interface Device {
  readonly agent: string;
  /** As probed at its start; > 0. */
  readonly macsPerSecond: number;
  /** What this deployment may use: the device's memory less what other deployments hold on it. */
  readonly memoryBytes: number;
}

export interface Link {
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
}

export interface Links {
  readonly usual: Link;
  /** Key: `from>to`, agent names or `dispatcher`. */
  readonly between: ReadonlyMap<string, Link>;
}

/** What is known of one part before any byte of it is written. */
export interface PartFacts {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
}

/** A model cut into stages of parts; a `Partition` of models/slicing is one. */
export interface CutFacts {
  readonly stages: readonly { readonly spec: StageSpec; readonly parts: readonly PartFacts[]; readonly partShares: readonly number[] }[];
  readonly wires: readonly Wire[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

export interface PlanRefusal {
  readonly refused: true;
  /** For people: what is in the way, with the tightest limit. */
  readonly reason: string;
}

/** The model as planners see it. Both functions are pure; they may be slow, and may remember what they answered. */
export interface ModelFacts {
  readonly blocks: readonly Pick<Block, 'nodes' | 'macs' | 'weightBytes' | 'outBytes'>[];
  readonly inputBytes: number;
  cut(stages: readonly StageSpec[]): CutFacts | PlanRefusal;
  /** Stages that cut as much of the model as this kind can (`rows`, `channels`, ..., `auto` mixes them). */
  cover(kind: string, shares: readonly number[]): readonly StageSpec[] | PlanRefusal;
}

export interface PlanProblem {
  readonly facts: ModelFacts;
  readonly devices: readonly Device[];
  readonly links: Links;
  readonly objective: Objective;
  /** Frames in flight; 0 = the planner's choice. */
  readonly inFlight: number;
  /** A cut made by hand, such as rows in 4 parts; undefined = the planner's choice. */
  readonly manual?: { readonly kind: string; readonly parts: number; readonly shares: readonly number[] };
}

/** `agents[replica][share]`: who holds the part made of share i of the stage. */
export interface SeatedStage {
  readonly spec: StageSpec;
  readonly agents: readonly (readonly string[])[];
}

export interface PlanDraft {
  readonly planner: string;
  /** At most three lines: the bottleneck, the runner-up, what would change the choice. */
  readonly why: string;
  readonly stages: readonly SeatedStage[];
  readonly cut: CutFacts;
  readonly inFlight: number;
  readonly estimate: Estimate;
}

export type Planner = (problem: PlanProblem) => PlanDraft | PlanRefusal;

export function isRefusal(value: object): value is PlanRefusal {
  return 'refused' in value;
}

/** Fastest first; equal ones by name, so that the same question has the same answer. */
export function bySpeed(devices: readonly Device[]): Device[] {
  return [...devices].sort((a, b) => b.macsPerSecond - a.macsPerSecond || (a.agent < b.agent ? -1 : 1));
}
