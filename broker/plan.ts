/**
 * A plan seats slices on agents: plain data, printable, storable. See docs/architecture.md for the words.
 * Boxes are in the coordinates of the original model's tensors.
 */
import type { Box, DType, TensorInfo } from './tensor.js';

/** A file named by the sha256 (lower-case hex) of its bytes. */
export interface BlobRef {
  readonly sha256: string;
  readonly sizeBytes: number;
}

/** What one seat computes: an ONNX graph file and the external weight blobs that it names by sha256. */
export interface SliceRef {
  readonly graph: BlobRef;
  readonly blobs: readonly BlobRef[];
  /** Multiply-accumulates of one run. */
  readonly macs: number;
  /** Bytes of weights, and of the largest set of activations alive at once (an estimate). */
  readonly weightBytes: number;
  readonly activationBytes: number;
}

/** An input or output of a slice: the graph's own value name, and which box of which tensor it is. */
export interface Port {
  /** Name of the graph input or output inside the slice. */
  readonly name: string;
  /** Tensor of the model (or a partial of one: `tensor/partial:i`). */
  readonly tensor: string;
  readonly dtype: DType;
  readonly box: Box;
}

/** One part of one stage: which slice, and what goes in and out. Every replica of the stage has the same parts. */
export interface PlanPart {
  /** sha256 of the slice's graph: key into `Plan.slices`. */
  readonly slice: string;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

/** A stage: its parts, and for each replica the agent that holds each part. `agents[replica][part]`. */
export interface PlanStage {
  /** What the cut is called, for people: `whole`, `rows`, `columns`, `channels`, `inputs`, `pair`. */
  readonly cut: string;
  readonly parts: readonly PlanPart[];
  readonly agents: readonly (readonly string[])[];
  /**
   * How many of the last parts are parities (0 or 1): a parity computes with the sum of the other parts' weights, so that their outputs, and the one of any
   * part that is missing, can be told from it. See parity.ts.
   */
  readonly redundancy: number;
}

/** How payload bytes are encoded: `raw` for any dtype, `float16` for float32, `uint8` (affine, one byte an element) for float32 and float16. */
export type Encoding = 'raw' | 'float16' | 'uint8';

/** The dispatcher's end of a wire: frames enter at stage SOURCE and leave at stage SINK (part 0, replica 0). */
export const SOURCE = -1;
export const SINK = -2;

/**
 * A wire: `box` of `tensor` goes from an output port of (fromStage, fromPart) to an input port of (toStage, toPart), within one route.
 * At SOURCE, `output` is an index into `Plan.inputs`; at SINK, `input` is an index into `Plan.outputs`.
 */
export interface Wire {
  readonly fromStage: number;
  readonly fromPart: number;
  /** Index into the producing part's `outputs`. */
  readonly output: number;
  readonly toStage: number;
  readonly toPart: number;
  /** Index into the consuming part's `inputs`. */
  readonly input: number;
  readonly box: Box;
  /** How its boxes travel between agents; on one agent they are handed over as they are. */
  readonly encoding: Encoding;
}

/** Terms count the starts of schedulers. Beyond this it is none, and who says so is wrong; well below what a message can carry, so that a later one can always be said. */
export const MAX_TERM = 2 ** 40;
/** A scheduler that lost its folder believes agents that others reigned so many terms above its own. Else one that lies could use up all terms there are. */
export const MOST_TERMS_AHEAD = 1_000_000;

export interface Plan {
  readonly deployment: string;
  /** sha256 of the model file. */
  readonly model: string;
  readonly term: number;
  readonly epoch: number;
  /** Which planner made it, and its reasons in at most three lines. */
  readonly planner: string;
  readonly why: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly slices: Readonly<Record<string, SliceRef>>;
  readonly stages: readonly PlanStage[];
  /** Order matters: a message names its wire by the index in this list. */
  readonly wires: readonly Wire[];
  readonly predictedLatencyMs: number;
  readonly predictedFps: number;
}
