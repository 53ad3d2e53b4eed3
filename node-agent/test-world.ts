/** For the tests of this folder: a world in memory with a gateway that answers for blobs, slices that are JSON, and an engine that runs them. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ChairError } from '../broker/errors.js';
import type { Prepare } from '../broker/messages.js';
import { type BlobRef, type PlanPart, type PlanStage, SINK, type SliceRef, SOURCE, type Wire } from '../broker/plan.js';
import { allocTensor, type Box, boxDims, type Tensor, type TensorInfo } from '../broker/tensor.js';
import type { Engine, RunResult, Session } from '../models/engine/engine.js';

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

/** A folder of its own, removed by `undo`. */
export async function folder(undo: (() => unknown)[]): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'mc-agent-'));
  undo.push(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Resolves when the condition holds; throws after `withinMs`, saying what was waited for. */
export async function eventually(condition: () => boolean, what: string, withinMs = 5000): Promise<void> {
  const until = performance.now() + withinMs;
  while (!condition()) {
    if (performance.now() > until) throw new Error(`waited ${withinMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// ---- a model of JSON slices ------------------------------------------------------------------------------------------------

/** Output i is input i times `scale` plus `shift`, the rows `[from, from + rows)` of it. */
export interface ToySlice {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly (TensorInfo & { readonly from: number })[];
  readonly scale: number;
  readonly shift: number;
  /** Makes slices differ, and files large. */
  readonly pad?: string;
}

export interface ToyBlob {
  readonly ref: BlobRef;
  readonly bytes: Buffer;
}

export function blob(bytes: Uint8Array | string): ToyBlob {
  const buffer = Buffer.from(bytes);
  return { ref: { sha256: sha256(buffer), sizeBytes: buffer.length }, bytes: buffer };
}

/** An engine that runs toy slices with `runMs` of waiting each (off the main thread, as it were). */
export class ToyEngine implements Engine {
  readonly name = 'toy';
  readonly version = '1';
  /** Paths loaded and not disposed. */
  readonly open: string[] = [];
  loads = 0;
  runs = 0;
  runMs = 0;
  failRuns = false;
  /** Of each run: the slice's shift and the first input value. */
  readonly trace: string[] = [];
  disposed = false;
  private queue: Promise<unknown> = Promise.resolve();
  private readonly timers = new Set<() => void>();

  async load(file: string): Promise<Session> {
    this.check();
    this.loads++;
    let slice: ToySlice;
    try {
      slice = JSON.parse(await readFile(file, 'utf8'));
    } catch (cause) {
      throw new ChairError('ENGINE_LOAD_FAILED', `no toy slice in ${file}`, { cause });
    }
    this.open.push(file);
    let disposed = false;
    return {
      inputs: slice.inputs,
      outputs: slice.outputs,
      warmUp: async () => undefined,
      run: (inputs, options) => this.enqueue(() => this.run(slice, inputs, options?.transfer === true)),
      dispose: async () => {
        if (disposed) return;
        disposed = true;
        this.open.splice(this.open.indexOf(file), 1);
      },
    };
  }

  async dispose(): Promise<void> {
    this.disposed = true;
    for (const wake of this.timers) wake();
  }

  private enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }

  private async run(slice: ToySlice, inputs: Readonly<Record<string, Tensor>>, transfer: boolean): Promise<RunResult> {
    this.check();
    this.runs++;
    // Handing over makes the caller's buffers unusable, as with a worker.
    const given = transfer
      ? structuredClone(inputs, { transfer: [...new Set(Object.values(inputs).map((t) => t.bytes.buffer as ArrayBuffer))] })
      : inputs;
    if (this.runMs > 0) await this.sleep(this.runMs);
    this.check();
    if (this.failRuns) throw new ChairError('ENGINE_RUN_FAILED', 'the toy broke');
    const outputs: Record<string, Tensor> = {};
    slice.outputs.forEach((info, i) => {
      const input = given[slice.inputs[i]?.name ?? ''] as Tensor;
      const out = allocTensor(info.dtype, info.dims);
      const from = new Float32Array(input.bytes.buffer, input.bytes.byteOffset);
      const to = new Float32Array(out.bytes.buffer);
      this.trace.push(`${slice.shift}:${from[0]}`);
      const row = to.length / (info.dims[0] ?? 1);
      for (let k = 0; k < to.length; k++) to[k] = (from[info.from * row + k] ?? Number.NaN) * slice.scale + slice.shift;
      outputs[info.name] = out;
    });
    return { outputs, runMs: this.runMs };
  }

  private sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.timers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.timers.add(wake);
    });
  }

  private check(): void {
    if (this.disposed) throw new ChairError('ENGINE_CLOSED', 'the toy engine was disposed');
  }
}

// ---- plans -------------------------------------------------------------------------------------------------------------------

const WIDTH = 4;
export const rowsBox = (from: number, to: number): Box => ({ start: [from, 0], end: [to, WIDTH] });

/** Rows `[from, to)` that a part reads, and the rows it writes. */
export interface ToyPart {
  readonly reads: readonly [number, number];
  readonly writes: readonly [number, number];
}

export interface ToyPlan {
  readonly prepare: Prepare;
  readonly blobs: ReadonlyMap<string, Buffer>;
  readonly slices: readonly SliceRef[];
}

/** Stages over a [8, 4] float32 tensor; each part maps its rows by x * 2 + stage + 1. Wires are computed as the slicer would: by intersecting boxes. */
export function toyPlan(
  deployment: string,
  epoch: number,
  stages: readonly { parts: readonly ToyPart[]; agents: readonly (readonly string[])[] }[],
  pad = '',
): ToyPlan {
  const blobs = new Map<string, Buffer>();
  const slices: SliceRef[] = [];
  const info = (name: string): TensorInfo => ({ name, dtype: 'float32', dims: [8, WIDTH] });
  const planStages: PlanStage[] = stages.map((stage, s) => ({
    cut: 'rows',
    agents: stage.agents,
    redundancy: 0,
    parts: stage.parts.map((part): PlanPart => {
      const reads = rowsBox(...part.reads);
      const writes = rowsBox(...part.writes);
      const slice: ToySlice = {
        inputs: [{ name: 'x', dtype: 'float32', dims: boxDims(reads) }],
        outputs: [{ name: 'y', dtype: 'float32', dims: boxDims(writes), from: part.writes[0] - part.reads[0] }],
        scale: 2,
        shift: s + 1,
        pad,
      };
      const { ref, bytes } = blob(JSON.stringify(slice));
      const weights = blob(`weights of ${ref.sha256}`);
      blobs.set(ref.sha256, bytes);
      blobs.set(weights.ref.sha256, weights.bytes);
      slices.push({ graph: ref, blobs: [weights.ref], macs: 1, weightBytes: 1000, activationBytes: 1000 });
      return {
        slice: ref.sha256,
        inputs: [{ name: 'x', tensor: `t${s}`, dtype: 'float32', box: reads }],
        outputs: [{ name: 'y', tensor: `t${s + 1}`, dtype: 'float32', box: writes }],
      };
    }),
  }));
  const prepare: Prepare = {
    deployment,
    epoch,
    inputs: [info('in')],
    outputs: [info('out')],
    stages: planStages,
    wires: toyWires(stages),
    slices,
    peers: [],
  };
  return { prepare, blobs, slices };
}

function toyWires(stages: readonly { parts: readonly ToyPart[] }[]): Wire[] {
  const wires: Wire[] = [];
  const ends = [[{ reads: [0, 8], writes: [0, 8] }], ...stages.map((s) => s.parts), [{ reads: [0, 8], writes: [0, 8] }]] as ToyPart[][];
  for (let e = 0; e + 1 < ends.length; e++) {
    const fromStage = e === 0 ? SOURCE : e - 1;
    const toStage = e + 2 === ends.length ? SINK : e;
    ends[e]?.forEach((producer, fromPart) => {
      ends[e + 1]?.forEach((consumer, toPart) => {
        const start = Math.max(producer.writes[0], consumer.reads[0]);
        const end = Math.min(producer.writes[1], consumer.reads[1]);
        if (start < end)
          wires.push({ fromStage, fromPart, output: 0, toStage, toPart, input: 0, box: rowsBox(start, end), encoding: 'raw' });
      });
    });
  }
  return wires;
}

/** What the stages of a toy plan compute. */
export function toyExpected(input: Float32Array, stages: number): Float32Array {
  let values = [...input];
  for (let s = 0; s < stages; s++) values = values.map((v) => v * 2 + s + 1);
  return Float32Array.from(values);
}
