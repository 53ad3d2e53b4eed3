/** The seam between deciding and computing: what the scheduler needs of a model. Real: model-library.ts; tests use a small fake. */
import type { DeployRequest } from '../broker/messages.js';
import type { SliceRef } from '../broker/plan.js';
import type { TensorInfo } from '../broker/tensor.js';
import type { CutKind } from '../models/slicing/partition.js';
import type { PrecisionMeter } from '../models/slicing/precision.js';
import type { Tensors } from './assembly.js';
import type { WrittenCut } from './plan-builder.js';
import type { ModelFacts, PlanDraft } from './planners/problem.js';

/** Part `part` of nodes `[start, end)` in so many even parts. */
export interface SlicePart {
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
  readonly parts: number;
  readonly part: number;
}

export interface LoadedModel {
  readonly sha256: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly facts: ModelFacts;
  /** Writes the slices of a draft into the store. */
  write(draft: PlanDraft): Promise<WrittenCut>;
  /** Writes the slice of one part of one stage into the store, to be measured by itself; a stage of no nodes is a run that computes next to nothing. */
  slice?(part: SlicePart): Promise<SliceRef>;
  /** What nodes `[start, end)` are, for people: their operators and names. */
  describe?(start: number, end: number): string;
  /** Compares the slices with the whole model on random inputs; gives the largest difference relative to the largest output. Throws VERIFY_FAILED. */
  verify(written: WrittenCut): Promise<number>;
  /** What encodings of a draft's wires do to the model's outputs, on these inputs; on made-up ones when there are none. Throws what running throws. */
  meter(draft: PlanDraft, inputs: readonly Tensors[]): Promise<PrecisionMeter>;
}

export interface ManualCut {
  readonly kind: string;
  readonly parts: number;
}

export interface ModelSource {
  /** Throws MODEL_... codes. */
  load(request: Pick<DeployRequest, 'model' | 'shapes' | 'images'>): Promise<LoadedModel>;
  /** Frames from calibration files, by what a deploy request calls them. Throws FRAME_INVALID, MODEL_NOT_FOUND. */
  frames(names: readonly string[], inputs: readonly TensorInfo[]): Promise<Tensors[]>;
  /** `rows:4`, also `replicas:3`; `shares` may be empty. Throws CUT_INVALID. */
  parseCut(text: string, shares: readonly number[]): ManualCut;
}
