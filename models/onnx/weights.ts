/**
 * Reading weights and parts of weights. Large weights stand in files: a part is streamed out of the file in chunks, so that
 * slicing a large model never holds one of its matrices whole.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';
import { itemBytes } from '../../broker/tensor.js';
import type { Weight } from '../model.js';

/** For each axis the half-open intervals to take, in the order in which they are to stand (usually one per axis). */
export type Selection = readonly (readonly (readonly [number, number])[])[];

/** Chunks are at most so large. */
const CHUNK_BYTES = 1 << 20;

export function wholeSelection(dims: readonly number[]): Selection {
  return dims.map((d) => [[0, d] as const]);
}

/** Dims of what a selection takes. */
export function selectionDims(selection: Selection): number[] {
  return selection.map((intervals) => intervals.reduce((sum, [start, end]) => sum + end - start, 0));
}

/** All bytes of a weight. For large weights use `weightChunks`. Throws MODEL_WEIGHTS_MISSING when its file is gone or short. */
export async function readWeight(weight: Weight): Promise<Uint8Array> {
  const { bytes } = weight;
  if (bytes.kind === 'inline') return bytes.bytes;
  const file = await openWeight(weight, bytes.path);
  try {
    return await readAt(file, weight, bytes.offset, bytes.length);
  } finally {
    await file.close();
  }
}

/** The bytes of a selection of a weight in row-major order, in chunks. Errors as `readWeight`; TENSOR_INVALID when it leaves the weight. */
export async function* weightChunks(weight: Weight, selection: Selection): AsyncGenerator<Uint8Array> {
  checkSelection(weight, selection);
  const runs = runsOf(weight, selection);
  const { bytes } = weight;
  if (bytes.kind === 'inline') return yield* pack(runs, (offset, length) => bytes.bytes.subarray(offset, offset + length));
  const file = await openWeight(weight, bytes.path);
  try {
    // Short runs that lie close together are served from one window of the file.
    let window: Uint8Array = new Uint8Array(0);
    let at = 0;
    yield* pack(runs, async (offset, length) => {
      if (offset < at || offset + length > at + window.length) {
        at = offset;
        window = await readAt(file, weight, bytes.offset + at, Math.min(Math.max(length, CHUNK_BYTES), bytes.length - at));
      }
      return window.subarray(offset - at, offset - at + length);
    });
  } finally {
    await file.close();
  }
}

/** `weightChunks` joined: for selections known to be small. */
export async function readSelection(weight: Weight, selection: Selection): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of weightChunks(weight, selection)) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

/** An int64, int32, float or similar constant as numbers (shapes, axes, scales). For small weights only. */
export function inlineNumbers(weight: Weight): number[] | undefined {
  if (weight.bytes.kind !== 'inline') return undefined;
  const { buffer, byteOffset, byteLength } = weight.bytes.bytes;
  const view = new DataView(buffer, byteOffset, byteLength);
  const item = itemBytes(weight.dtype);
  const read = {
    float32: (i: number) => view.getFloat32(i, true),
    float64: (i: number) => view.getFloat64(i, true),
    float16: undefined,
    bfloat16: undefined,
    int8: (i: number) => view.getInt8(i),
    uint8: (i: number) => view.getUint8(i),
    int16: (i: number) => view.getInt16(i, true),
    uint16: (i: number) => view.getUint16(i, true),
    int32: (i: number) => view.getInt32(i, true),
    uint32: (i: number) => view.getUint32(i, true),
    int64: (i: number) => Number(view.getBigInt64(i, true)),
    uint64: (i: number) => Number(view.getBigUint64(i, true)),
    bool: (i: number) => view.getUint8(i),
  }[weight.dtype];
  return read === undefined ? undefined : Array.from({ length: byteLength / item }, (_, i) => read(i * item));
}

function checkSelection(weight: Weight, selection: Selection): void {
  const inside =
    selection.length === weight.dims.length &&
    selection.every((intervals, axis) => intervals.every(([start, end]) => start >= 0 && start <= end && end <= (weight.dims[axis] ?? 0)));
  if (inside) return;
  throw new ChairError('TENSOR_INVALID', `a selection leaves weight ${weight.name}`, {
    expected: `intervals within [${weight.dims.join(',')}]`,
    came: JSON.stringify(selection),
  });
}

type Run = readonly [offset: number, length: number];

/** Contiguous byte runs of a selection, in the order of the result. */
function* runsOf(weight: Weight, selection: Selection): Generator<Run> {
  const rank = weight.dims.length;
  const strides = new Array<number>(rank).fill(0);
  let stride = itemBytes(weight.dtype);
  for (let axis = rank - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= weight.dims[axis] ?? 1;
  }
  if (rank === 0) return yield [0, stride];
  if (selectionDims(selection).some((d) => d === 0)) return;
  const isWhole = (axis: number) => {
    const [first, ...more] = selection[axis] ?? [];
    return first !== undefined && more.length === 0 && first[0] === 0 && first[1] === weight.dims[axis];
  };
  // From `inner` on (excluded) every axis is taken whole, so an interval of axis `inner` is one run.
  let inner = rank - 1;
  while (inner > 0 && isWhole(inner)) inner--;
  const walk = function* (axis: number, base: number): Generator<Run> {
    const step = strides[axis] ?? 0;
    for (const [start, end] of selection[axis] ?? []) {
      if (axis === inner) {
        yield [base + start * step, (end - start) * step];
        continue;
      }
      for (let i = start; i < end; i++) yield* walk(axis + 1, base + i * step);
    }
  };
  yield* walk(0, 0);
}

/** Joins short runs into chunks of about CHUNK_BYTES; long runs are split. */
async function* pack(
  runs: Iterable<Run>,
  read: (offset: number, length: number) => Uint8Array | Promise<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let chunk = new Uint8Array(CHUNK_BYTES);
  let used = 0;
  for (const [start, total] of runs) {
    for (let done = 0; done < total; ) {
      const take = Math.min(total - done, CHUNK_BYTES - used);
      // Only file reads wait: an await per run of an inline weight would cost more than the copy.
      const part = read(start + done, take);
      chunk.set(part instanceof Uint8Array ? part : await part, used);
      used += take;
      done += take;
      if (used === CHUNK_BYTES) {
        yield chunk;
        chunk = new Uint8Array(CHUNK_BYTES);
        used = 0;
      }
    }
  }
  if (used > 0) yield chunk.subarray(0, used);
}

async function openWeight(weight: Weight, path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    throw missing(weight, path, error);
  }
}

async function readAt(file: FileHandle, weight: Weight, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw missing(weight, 'its file', `only ${offset + done} bytes`);
    done += bytesRead;
  }
  return bytes;
}

function missing(weight: Weight, path: string, cause: unknown): ChairError {
  return new ChairError('MODEL_WEIGHTS_MISSING', `the bytes of weight ${weight.name} cannot be read from ${path}`, {
    came: cause instanceof Error ? cause.message : String(cause),
    todo: 'Load the model again; its work directory was emptied.',
    cause,
  });
}
