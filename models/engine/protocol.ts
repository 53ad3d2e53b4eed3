/** Messages between the engine (main thread) and its worker. Requests carry an id; each gets exactly one reply. */
import type { ErrorCode } from '../../broker/errors.js';
import type { DType, TensorInfo } from '../../broker/tensor.js';

/** A tensor on its way between threads: `bytes` covers its whole buffer, which is in the transfer list. */
export interface WireTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly bytes: Uint8Array;
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
  | {
      readonly id: number;
      readonly kind: 'run';
      readonly session: number;
      readonly inputs: readonly WireTensor[];
      readonly outputs: readonly string[] | null;
      /** Where outputs of known shape are to be put; `returnInputs`: the inputs' buffers come back with the reply. */
      readonly into: readonly WireTensor[];
      readonly returnInputs: boolean;
    }
  | { readonly id: number; readonly kind: 'release'; readonly session: number }
  | { readonly id: number; readonly kind: 'close' };

export interface LoadReply {
  readonly session: number;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

export interface RunReply {
  readonly outputs: readonly WireTensor[];
  /** Buffers of the inputs, when they were asked back. */
  readonly inputs: readonly Uint8Array[];
  readonly runMs: number;
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
