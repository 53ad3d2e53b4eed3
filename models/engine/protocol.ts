/** Messages between the engine (main thread) and its worker. Requests carry an id; each gets exactly one reply. */
import type { ErrorCode } from '../../broker/errors.js';
import type { DType, TensorInfo } from '../../broker/tensor.js';

/** An output whose shape was not known before the run: `bytes` covers its whole buffer, which is in the transfer list. */
export interface WireTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
}

/** What many runs of a session have in common, so that it is said once: a run then is a few numbers and its buffers. All dims are fixed. */
export interface RunPlan {
  readonly inputs: readonly TensorInfo[];
  /** Names of the outputs that are wanted. */
  readonly outputs: readonly string[];
  /** Those of them whose shape is known, which are put where the request says. */
  readonly into: readonly TensorInfo[];
}

/**
 * A run: id, session, plan (its number, or itself when the shapes are those of this run only), the buffers of the plan's inputs and then of `into`, the offset of
 * each tensor in its buffer, and whether the inputs' buffers come back. An array, as names of fields are written and read again with every message.
 */
export type RunRequest = readonly [
  id: number,
  session: number,
  plan: number | RunPlan,
  buffers: readonly ArrayBuffer[],
  offsets: readonly number[],
  returnInputs: boolean,
];

/**
 * Its answer: id, time inside the engine, outputs of unknown shape, and the buffers of `into`, followed by those of the inputs when they were asked back; and the CPU time
 * of the process meanwhile where the engine was started so.
 */
export type RunReply = readonly [id: number, runMs: number, made: readonly WireTensor[], buffers: readonly ArrayBuffer[], cpuMs?: number];

/** What the worker is started with. */
export interface WorkerStart {
  readonly cpuTimes: boolean;
}

export type WorkerRequest =
  | {
      readonly id: number;
      readonly kind: 'load';
      readonly path: string;
      readonly threads: number;
      readonly prepack: boolean;
      readonly optimize: boolean;
    }
  | { readonly id: number; readonly kind: 'compare'; readonly path: string; readonly threads: number }
  | { readonly id: number; readonly kind: 'plan'; readonly session: number; readonly number: number; readonly plan: RunPlan }
  | { readonly id: number; readonly kind: 'release'; readonly session: number }
  | { readonly id: number; readonly kind: 'close' };

export interface LoadReply {
  readonly session: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

/** Which way of loading is faster: `prepack` is undefined when the inputs are not fixed, so that nothing could be run. */
export interface CompareReply {
  readonly prepack: boolean | undefined;
}

export type WorkerReply =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly code: ErrorCode; readonly message: string };

/** Sent once at start: the engine's version, or why it cannot be loaded. */
export type WorkerGreeting = { readonly ready: true; readonly version: string } | { readonly ready: false; readonly message: string };

/** A transfer list names each buffer once. */
export function unique(buffers: readonly ArrayBuffer[]): ArrayBuffer[] {
  return [...new Set(buffers)];
}
