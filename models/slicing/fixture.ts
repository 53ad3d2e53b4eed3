/** Test fixture: small graphs as models, random inputs, and the comparison of a cut with the whole on the real engine. Not part of the product. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { allocTensor, type Tensor, type TensorInfo, tensorBytes } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import type { Model, Weight } from '../model.js';
import type { GraphBuilder } from '../onnx/build.js';
import { createRandom, seedFor } from '../random.js';
import { partition } from './cut.js';
import type { CutKind, StageSpec, WrittenPartition } from './partition.js';
import { runPartition } from './run.js';
import { writeSlices } from './write.js';

const directories: string[] = [];
const wanted = new WeakMap<Model, Map<number, Readonly<Record<string, Tensor>>>>();

async function directory(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'chair-slicing-'));
  directories.push(made);
  return made;
}

/** Removes all files that fixtures made. */
export async function removeFixtures(): Promise<void> {
  await Promise.all(directories.splice(0).map((made) => rm(made, { recursive: true, force: true })));
}

/** What the whole model makes of `randomInputs(seed)`, run once. */
async function wholeOutputs(model: Model, engine: Engine, seed: number): Promise<Readonly<Record<string, Tensor>>> {
  const known = wanted.get(model) ?? new Map<number, Readonly<Record<string, Tensor>>>();
  wanted.set(model, known);
  let outputs = known.get(seed);
  if (outputs === undefined) {
    const session = await engine.load(model.path);
    outputs = (await session.run(randomInputs(model.inputs, seed), { outputs: model.outputs.map((o) => o.name) })).outputs;
    await session.dispose();
    known.set(seed, outputs);
  }
  return outputs;
}

/** A random float weight of about unit gain: `[-1, 1) / sqrt(fan in)`. */
export function randomWeight(g: GraphBuilder, name: string, dims: readonly number[], scale?: number): string {
  const random = createRandom(seedFor(7, name));
  const count = dims.reduce((a, b) => a * b, 1);
  const gain = scale ?? Math.sqrt(3 / Math.max(1, count / (dims[0] ?? 1)));
  return g.weight(
    name,
    'float32',
    dims,
    Float32Array.from({ length: count }, () => (random() * 2 - 1) * gain),
  );
}

/** A model from a builder: every intermediate shape is learned by running it once. */
export async function modelOf(g: GraphBuilder, engine: Engine): Promise<Model> {
  const made = await directory();
  const spec = g.spec();
  const path = join(made, 'model.onnx');
  await g.write(path);
  const declared = spec.inputs.map((i): TensorInfo => ({ name: i.name, dtype: i.dtype ?? 'float32', dims: (i.dims ?? []).map(Number) }));
  const outputs = spec.outputs.map((o) => o.name);
  for (const node of spec.nodes) for (const name of node.outputs) if (name !== '' && !outputs.includes(name)) g.output(name);
  const probe = join(made, 'probe.onnx');
  await g.write(probe);
  const session = await engine.load(probe);
  const { outputs: values } = await session.run(randomInputs(declared, 1));
  await session.dispose();
  const tensors = new Map(declared.map((i) => [i.name, i]));
  for (const [name, t] of Object.entries(values)) tensors.set(name, { name, dtype: t.dtype, dims: t.dims });
  const weights = new Map<string, Weight>();
  for (const init of spec.initializers) {
    if (init.data.kind !== 'inline') throw new Error('fixture weights are inline');
    const { bytes } = init.data;
    const joined = typeof bytes === 'function' ? new Uint8Array(Buffer.concat([...bytes()])) : bytes;
    weights.set(init.name, { name: init.name, dtype: init.dtype, dims: init.dims, bytes: { kind: 'inline', bytes: joined } });
  }
  return {
    sha256: createHash('sha256').update(path).digest('hex'),
    path,
    irVersion: spec.irVersion,
    opsets: spec.opsets,
    nodes: spec.nodes.map((n) => ({
      op: n.op,
      domain: n.domain ?? '',
      name: n.name ?? '',
      inputs: n.inputs,
      outputs: n.outputs,
      attributes: n.attributes ?? new Map(),
      captured: [],
    })),
    tensors,
    weights,
    inputs: declared,
    outputs: outputs.map((name) => tensors.get(name) ?? { name, dtype: 'float32', dims: [] }),
    functions: [],
  };
}

export function randomInputs(infos: readonly TensorInfo[], seed: number): Record<string, Tensor> {
  return Object.fromEntries(
    infos.map((info) => {
      const random = createRandom(seedFor(seed, info.name));
      const tensor = allocTensor(info.dtype, info.dims);
      if (info.dtype === 'float32') {
        const view = new Float32Array(tensor.bytes.buffer);
        for (let i = 0; i < view.length; i++) view[i] = random() * 2 - 1;
      } else if (info.dtype === 'bool') {
        for (let i = 0; i < tensor.bytes.length; i++) tensor.bytes[i] = random() < 0.5 ? 0 : 1;
      } else if (info.dtype === 'int64') {
        const view = new BigInt64Array(tensor.bytes.buffer);
        for (let i = 0; i < view.length; i++) view[i] = BigInt(Math.floor(random() * 4));
      } else {
        for (let i = 0; i < tensor.bytes.length; i++) tensor.bytes[i] = Math.floor(random() * 256);
      }
      return [info.name, tensor];
    }),
  );
}

/** `[start, end, cut, shares]`; a number of shares means equal ones. Cut `coded`: by channels, with a parity. */
export type Spec = readonly [number, number, CutKind | 'coded', number | readonly number[]];

export function specs(list: readonly Spec[]): StageSpec[] {
  return list.map(([start, end, cut, shares]) => ({
    nodes: [start, end],
    ...(cut === 'coded' ? { cut: 'channels', redundancy: 1 } : { cut }),
    shares: typeof shares === 'number' ? Array(shares).fill(1) : shares,
  }));
}

export interface Comparison {
  readonly written: WrittenPartition;
  /** Largest difference of any output, divided by that output's largest absolute value. */
  readonly maxRelDiff: number;
  /** Spread of the outputs: 0 means a dead network, which proves nothing. */
  readonly spread: number;
}

/** Cuts, writes, runs, and compares with the whole model on the same engine and inputs. */
export async function compare(
  model: Model,
  list: readonly Spec[],
  engine: Engine,
  seed = 3,
  lost: readonly string[] = [],
): Promise<Comparison> {
  const written = await writeSlices(partition(model, specs(list)), await directory());
  const inputs = randomInputs(model.inputs, seed);
  const want = await wholeOutputs(model, engine, seed);
  const { outputs } = await runPartition(written, engine, inputs, { lost: new Set(lost) });
  let maxRelDiff = 0;
  let spread = 0;
  for (const info of model.outputs) {
    const [a, b] = [want[info.name], outputs[info.name]];
    if (a === undefined || b === undefined || b.bytes.length !== tensorBytes(info.dtype, info.dims))
      throw new Error(`output ${info.name} is missing`);
    const [x, y] = [numbers(a), numbers(b)];
    const largest = x.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-30);
    x.forEach((v, i) => {
      const diff = Math.abs(v - (y[i] ?? Number.NaN));
      maxRelDiff = Math.max(maxRelDiff, Number.isNaN(diff) ? Number.POSITIVE_INFINITY : diff / largest);
    });
    spread = Math.max(spread, (Math.max(...x) - Math.min(...x)) / largest);
  }
  return { written, maxRelDiff, spread };
}

export function numbers(tensor: Tensor): number[] {
  const copy = tensor.bytes.slice().buffer;
  if (tensor.dtype === 'float32') return [...new Float32Array(copy)];
  if (tensor.dtype === 'int64') return [...new BigInt64Array(copy)].map(Number);
  return [...new Uint8Array(copy)];
}
