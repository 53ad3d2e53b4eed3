/**
 * The seam to an inference engine. Implementations: `onnxruntime.ts` (default, in a worker thread), `fake.ts` (tests); a tfjs engine later.
 * An engine never blocks the caller's event loop.
 */

import type { Buffers } from '../../broker/buffers.js';
import type { Tensor, TensorInfo } from '../../broker/tensor.js';

export interface EngineOptions {
  /** Intra-op threads; default: all cores. Spinning is off. */
  readonly threads?: number;
  /** Runs also say what CPU time they took (`RunResult.cpuMs`): two system calls a run. Default false. */
  readonly cpuTimes?: boolean;
}

export interface LoadOptions {
  /** Prepack weights: faster kernels for some layers, more memory and load time. `auto` = measured once per slice. Default `false`. */
  readonly prepack?: boolean | 'auto';
  /** False: run the graph exactly as written, without fusing operators (to look at intermediate values). Default true. */
  readonly optimize?: boolean;
}

export interface Engine {
  readonly name: string;
  readonly version: string;
  /**
   * Loads an ONNX file by path; external data is found beside it. Throws ENGINE_LOAD_FAILED.
   * Sessions of one engine run one after another, in the order of the calls.
   */
  load(path: string, options?: LoadOptions): Promise<Session>;
  /** Idempotent; disposes all sessions and the worker. Pending runs fail with ENGINE_CLOSED. */
  dispose(): Promise<void>;
}

export interface Session {
  /** Names, and dtypes and dims where the file declares them (dims -1 where it does not). */
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Runs once on zeros so that the first frame is not slow. */
  warmUp(): Promise<void>;
  /**
   * Runs the graph. With `transfer`, the input buffers are handed over and unusable afterwards (no copy); otherwise they are copied.
   * Outputs are on buffers of their own. Throws ENGINE_INPUT_INVALID before running, ENGINE_RUN_FAILED after.
   * `runMs` is the time inside the engine.
   */
  run(inputs: Readonly<Record<string, Tensor>>, options?: RunOptions): Promise<RunResult>;
  dispose(): Promise<void>;
}

export interface RunOptions {
  /** The input buffers are handed over. Each must hold nothing but its tensor; with `buffers`, what else is in it may be lost. */
  readonly transfer?: boolean;
  /** Default: all. An array that is given again is not looked at again: it must not change. */
  readonly outputs?: readonly string[];
  /** Outputs are on buffers taken here, and inputs that were handed over are given here after the run (with `transfer`; not when it fails). */
  readonly buffers?: Buffers;
}

export interface RunResult {
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly runMs: number;
  /** CPU time of this process while the engine ran, all threads; only with `EngineOptions.cpuTimes`. */
  readonly cpuMs?: number;
}
