/** The model in memory: structure and references to weights, never the weights themselves (a 553 MB model costs kilobytes). */
import type { AttributeProto, FunctionProto } from 'onnx-buf';
import type { DType, TensorInfo } from '../broker/tensor.js';

/**
 * Where a constant's bytes are: small ones inline, large ones in a file (a blob of the work store named by its sha256).
 * `offset` and `length` are bytes. dims and dtype stand beside it.
 */
export type WeightBytes =
  | { readonly kind: 'inline'; readonly bytes: Uint8Array }
  | { readonly kind: 'file'; readonly path: string; readonly sha256: string; readonly offset: number; readonly length: number };

export interface Weight {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: WeightBytes;
}

export interface ModelNode {
  readonly op: string;
  /** '' for the standard ONNX domain. */
  readonly domain: string;
  readonly name: string;
  /** '' stands for an omitted optional input. */
  readonly inputs: readonly string[];
  /** '' stands for an omitted optional output. */
  readonly outputs: readonly string[];
  readonly attributes: ReadonlyMap<string, AttributeProto>;
  /** Names captured from the outer scope by subgraphs (If, Loop, Scan); empty for ordinary nodes. */
  readonly captured: readonly string[];
}

export interface Model {
  /** sha256 of the original file (and of its external data, in order of appearance, when there is any). */
  readonly sha256: string;
  readonly path: string;
  readonly irVersion: number;
  /** The model's own imports only. */
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  /** Topologically ordered; constants are folded away. */
  readonly nodes: readonly ModelNode[];
  /** Every activation with its fixed shape: inputs, outputs and everything between. Optional/sequence values are not in here. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Every constant: initializers, `Constant` nodes and folded values. */
  readonly weights: ReadonlyMap<string, Weight>;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Model-local functions, kept as they are (rare). */
  readonly functions: readonly FunctionProto[];
  /**
   * Tensors whose shape depends on the data (after NonZero, NonMaxSuppression, ...): their dims in `tensors` hold for one run only.
   * They must not cross a cut.
   */
  readonly dynamic?: ReadonlySet<string>;
}

/** Nodes `[start, end)` between two cut points. */
export interface Block {
  readonly index: number;
  readonly nodes: readonly [number, number];
  /** Tensors alive at the end of the block (what would travel if the model were cut there). */
  readonly out: readonly TensorInfo[];
  readonly macs: number;
  readonly params: number;
  readonly weightBytes: number;
  readonly outBytes: number;
}
