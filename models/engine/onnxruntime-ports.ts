/** A plan of runs as onnxruntime's Node binding wants it: made once, pointed at other buffers in each run. */
import type { Tensor as OrtTensor } from 'onnxruntime-node';
import { type DType, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import type { RunPlan } from './protocol.js';

/** An error whose code is known here; others become `fallback`. */
export class WorkerError extends Error {
  readonly code: 'ENGINE_LOAD_FAILED' | 'ENGINE_RUN_FAILED' | 'ENGINE_CLOSED' | 'INTERNAL';
  constructor(code: WorkerError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

type ArrayMaker = (buffer: ArrayBuffer, offset: number, bytes: number) => ArrayBufferView;
const u16: ArrayMaker = (b, o, n) => new Uint16Array(b, o, n / 2);
/** Typed arrays that onnxruntime takes for each dtype (float16 as bit patterns); bfloat16 it does not take at all. */
export const ARRAYS: Readonly<Partial<Record<DType, ArrayMaker>>> = {
  float32: (b, o, n) => new Float32Array(b, o, n / 4),
  float64: (b, o, n) => new Float64Array(b, o, n / 8),
  float16: u16,
  int8: (b, o, n) => new Int8Array(b, o, n),
  uint8: (b, o, n) => new Uint8Array(b, o, n),
  int16: (b, o, n) => new Int16Array(b, o, n / 2),
  uint16: u16,
  int32: (b, o, n) => new Int32Array(b, o, n / 4),
  uint32: (b, o, n) => new Uint32Array(b, o, n / 4),
  int64: (b, o, n) => new BigInt64Array(b, o, n / 8),
  uint64: (b, o, n) => new BigUint64Array(b, o, n / 8),
  bool: (b, o, n) => new Uint8Array(b, o, n),
};

/** What the binding reads of a tensor. Made once for a plan; `data` is another one in each run. */
interface Feed {
  readonly location: 'cpu';
  readonly type: DType;
  readonly dims: readonly number[];
  data: ArrayBufferView | undefined;
}

/** A tensor of a plan with what it takes to point it at a buffer. */
export interface Port {
  readonly name: string;
  readonly sizeBytes: number;
  readonly make: ArrayMaker | undefined;
  readonly feed: Feed;
}

/** A plan as the binding wants it. */
export interface Prepared {
  readonly inputs: readonly Port[];
  readonly into: readonly Port[];
  readonly feeds: Record<string, OrtTensor>;
  readonly fetches: Record<string, OrtTensor | null>;
}

function portOf({ name, dtype, dims }: TensorInfo): Port {
  return { name, sizeBytes: tensorBytes(dtype, dims), make: ARRAYS[dtype], feed: { location: 'cpu', type: dtype, dims, data: undefined } };
}

export function prepare({ inputs, outputs, into }: RunPlan): Prepared {
  const [from, to] = [inputs.map(portOf), into.map(portOf)];
  const feeds: Record<string, OrtTensor> = {};
  const fetches: Record<string, OrtTensor | null> = {};
  for (const name of outputs) fetches[name] = null;
  // The binding asks for these four fields and no more; the package's class would check dims and length anew in each run.
  for (const { name, feed } of from) feeds[name] = feed as unknown as OrtTensor;
  for (const { name, feed } of to) fetches[name] = feed as unknown as OrtTensor;
  return { inputs: from, into: to, feeds, fetches };
}

export function point({ make, feed, sizeBytes }: Port, buffer: ArrayBuffer, offset: number): void {
  if (make === undefined) throw new WorkerError('ENGINE_RUN_FAILED', `onnxruntime-node takes no ${feed.type} tensors`);
  feed.data = make(buffer, offset, sizeBytes);
}
