/**
 * What the slicer gives to everyone else. A partition is a model cut into stages of parts, with the wires between them computed from boxes.
 * Making a partition touches no weights (planners make thousands); `writeSlices` writes the graphs and blobs of one.
 */
import type { Port, SliceRef, Wire } from '../../broker/plan.js';
import type { TensorInfo } from '../../broker/tensor.js';
import type { Model } from '../model.js';

export const CUT_KINDS = ['whole', 'rows', 'columns', 'channels', 'inputs', 'pair'] as const;
export type CutKind = (typeof CUT_KINDS)[number];

/** One stage as asked for: nodes `[start, end)` of the model, how to cut them, and relative shares (one per part; need not sum to 1). */
export interface StageSpec {
  readonly nodes: readonly [number, number];
  readonly cut: CutKind;
  readonly shares: readonly number[];
  /** 1: a parity part is added, and any one part may be missing; only with cut `channels`, see stage.ts. Absent = 0. */
  readonly redundancy?: number;
}

/** One part as analysed: no bytes yet. */
export interface PartCut {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** Multiply-accumulates of this part. */
  readonly macs: number;
  /** Of each node of the stage, in order: this part's MACs (0 for nodes left out). For honest coverage. */
  readonly nodeMacs: readonly number[];
  readonly weightBytes: number;
  /** Largest sum of activations alive at once, bytes (estimate). */
  readonly activationBytes: number;
}

export interface StageCut {
  readonly spec: StageSpec;
  /**
   * Empty parts are dropped: may be fewer than shares. `partShares[i]` is the index into spec.shares of part i; of a parity, which comes last, it is
   * `shares.length`.
   */
  readonly parts: readonly PartCut[];
  readonly partShares: readonly number[];
}

/** A stage that cannot be cut so. */
export interface CutRefusal {
  readonly refused: true;
  /** For people: what is in the way, naming the node. */
  readonly reason: string;
  /** Index of the node in the way. */
  readonly node: number;
}

export interface Partition {
  readonly model: Model;
  readonly stages: readonly StageCut[];
  /** In the terms of broker/plan.ts: SOURCE/SINK ends included. Every box of every port is covered exactly once. */
  readonly wires: readonly Wire[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Bytes on all wires between different parts-or-ends; wires between part p of a stage and part p of the next band stage count as local (0) when both stages have the same number of parts. */
  readonly bytesMoved: number;
}

/** Slices written: `slices[stage][part]`; equal slices have equal `graph.sha256`. Files stand in the store directory, named by sha256. */
export interface WrittenPartition {
  readonly partition: Partition;
  readonly slices: readonly (readonly SliceRef[])[];
  readonly directory: string;
}

// Functions (see the files of these names):
//   cutStage(model, spec, held): StageCut | CutRefusal                                       cut.ts
//   partition(model, specs): Partition                     throws CUT_NOT_POSSIBLE            cut.ts
//   coverCut(model, kind, shares, options): CoverResult    stages that cover what can be      cover.ts
//   writeSlices(partition, directory): Promise<WrittenPartition>                              write.ts
//   regionFrom(model, start, cut, held)                    how far a stage can reach, and why  region.ts
//   runPartition(written, engine, inputs): Promise<...>    the oracle: parts in order          run.ts
