/**
 * The proof of a cut: the slices of a partition, run one after another on one engine, against the *original* model file on the same engine.
 * No network. `openOracle` runs the original once; many cuts can then be held against it.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ChairError } from '../../broker/errors.js';
import type { Tensor } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import type { Model } from '../model.js';
import { loadModel } from '../onnx/load.js';
import { randomTensor } from '../random.js';
import { coverCoded } from './coded.js';
import { agrees, type Comparison, compare, TOLERANCE } from './compare.js';
import { type CoverOptions, type CoverRefusal, type CoverResult, coverCut, parseCut } from './cover.js';
import { type Coverage, coverageOf } from './coverage.js';
import { partition } from './cut.js';
import { type DropReport, dropEachWire } from './drop.js';
import type { Partition, StageSpec, WrittenPartition } from './partition.js';
import { eachPartLost, PartitionRunner } from './run.js';
import { writeSlices } from './write.js';

export { agrees, type Comparison, compare, TOLERANCE } from './compare.js';

export type Tensors = Readonly<Record<string, Tensor>>;

export interface Sample {
  readonly inputs: Tensors;
  /** What the original model makes of them. */
  readonly expected: Tensors;
}

export interface OracleOptions {
  readonly engine: Engine;
  /** Work directory: weights and slices are written here. The caller removes it. */
  readonly directory: string;
  /** Fixes dynamic input dims, as for `loadModel`. */
  readonly shapes?: Readonly<Record<string, readonly number[]>>;
  /** Of the random inputs. Default 1. */
  readonly seed?: number;
  /** How many random inputs the cut is held against. The original always runs on two at least, to see its output vary. Default 1. */
  readonly samples?: number;
  /** Inputs instead of random ones. */
  readonly inputs?: readonly Tensors[];
}

/** A model with what it computes. */
export interface Oracle {
  readonly model: Model;
  readonly engine: Engine;
  readonly directory: string;
  readonly samples: readonly Sample[];
  /** Largest difference between the outputs of two inputs, relative to the largest output; undefined when only one input was given. */
  readonly spread: number | undefined;
}

export interface VerifyOptions extends OracleOptions, CoverOptions {
  /** Relative shares, one per part. Default: equal. */
  readonly shares?: readonly number[];
  /** Zero each message in turn: the output must change by far more than the tolerance. */
  readonly dropOne?: boolean;
  /** 1: a parity part beside each stage that can be coded; then each one part is left out in turn, too. Only with channels. */
  readonly redundancy?: number;
}

export interface VerifyReport extends Coverage {
  readonly model: string;
  /** As it was asked for. */
  readonly cut: string;
  /** Distinct slices, and seats they are computed at. */
  readonly slices: number;
  readonly seats: number;
  readonly bytesMoved: number;
  readonly maxAbsDiff: number;
  /** Relative to the largest magnitude of the same output. */
  readonly maxRelDiff: number;
  /** maxRelDiff <= 1e-4 for every sample and without each one part of coded stages, nothing missing, nothing infinite; with dropOne, no drop unnoticed. */
  readonly ok: boolean;
  readonly bitEqual: boolean;
  /** False: the model gave the same output for two different inputs, so equality shows nothing. */
  readonly inputsVary: boolean;
  readonly stages: readonly { readonly nodes: readonly [number, number]; readonly cut: string; readonly parts: number }[];
  readonly refusals: readonly CoverRefusal[];
  /** What was wrong beyond a difference, for people. */
  readonly problem?: string;
  readonly dropped?: DropReport;
  /** Of a cut with coded stages: what comes out without each one part in turn, the parity last. */
  readonly withoutPart?: readonly { readonly part: number; readonly maxAbsDiff: number; readonly maxRelDiff: number }[];
}

/** Two outputs closer than this (relative) are called the same. */
const VARIES_ABOVE = 1e-3;

/** Loads a model for slicing and runs the original file on the samples. Errors as `loadModel` and the engine. */
export async function openOracle(path: string, options: OracleOptions): Promise<Oracle> {
  const { engine, directory, seed = 1 } = options;
  const model = await loadModel(path, {
    engine,
    workDirectory: join(directory, 'weights'),
    ...(options.shapes === undefined ? {} : { shapes: options.shapes }),
    ...(options.inputs?.[0] === undefined ? {} : { samples: options.inputs[0] }),
  });
  return oracleOf(model, { ...options, seed });
}

/** The oracle of a model that is loaded already (its file must still be there). */
export async function oracleOf(model: Model, options: OracleOptions): Promise<Oracle> {
  const { engine, directory, seed = 1, samples = 1 } = options;
  const random = (i: number) => Object.fromEntries(model.inputs.map((info) => [info.name, randomTensor(info, seed + i)]));
  const inputs = options.inputs ?? Array.from({ length: Math.max(2, samples) }, (_, i) => random(i));
  const session = await engine.load(model.path);
  try {
    const known: Sample[] = [];
    for (const given of inputs) {
      const { outputs } = await session.run(given);
      known.push({ inputs: given, expected: Object.fromEntries(model.outputs.map(({ name }) => [name, madeBy(outputs, name)])) });
    }
    const [first, second] = known;
    const spread = first === undefined || second === undefined ? undefined : compare(first.expected, second.expected).maxRelDiff;
    return { model, engine, directory, samples: options.inputs === undefined ? known.slice(0, samples) : known, spread };
  } finally {
    await session.dispose();
  }
}

/** An output that the original does not give must not go uncompared. */
function madeBy(outputs: Tensors, name: string): Tensor {
  const tensor = outputs[name];
  if (tensor === undefined) throw new ChairError('INTERNAL', `the original model gave no output ${name}: there is nothing to compare with`);
  return tensor;
}

/**
 * Cuts as much of a model as the cut can cover, runs the slices one after another and compares with the original model.
 * Does not throw for a difference: see `ok`. Throws CUT_INVALID (the cut is written wrongly), CUT_NOT_POSSIBLE (nothing can be coded), and what loading, writing and
 * running throw.
 */
export async function verifyCut(model: string | Model, cut: string, options: VerifyOptions): Promise<VerifyReport> {
  parsed(cut, options);
  const oracle = typeof model === 'string' ? await openOracle(model, options) : await oracleOf(model, options);
  return verifyOnOracle(oracle, cut, options);
}

/** `verifyCut` for a model whose oracle is open. */
export async function verifyOnOracle(
  oracle: Oracle,
  cut: string,
  options: Pick<VerifyOptions, 'shares' | 'dropOne' | 'cost' | 'maxRecompute' | 'redundancy'> = {},
): Promise<VerifyReport> {
  const { kind, shares } = parsed(cut, options);
  const { stages, refusals } = options.redundancy === 1 ? coded(oracle.model, shares) : coverCut(oracle.model, kind, shares, options);
  const report = await verifyStages(oracle, stages, options);
  const asked = options.redundancy === 1 ? `${cut}+1` : cut;
  return { ...report, cut: options.shares === undefined ? asked : `${asked} (${shares.join(',')})`, refusals };
}

function parsed(cut: string, { shares, redundancy = 0 }: Pick<VerifyOptions, 'shares' | 'redundancy'>): ReturnType<typeof parseCut> {
  const found = parseCut(cut, shares);
  if (redundancy === 0 || (redundancy === 1 && found.kind === 'channels')) return found;
  throw new ChairError('CUT_INVALID', 'there is a parity only for stages that are cut by outputs', {
    expected: 'redundancy 1 with a cut such as channels:3, or 0',
    came: `redundancy ${redundancy} with ${cut}`,
  });
}

function coded(model: Model, shares: readonly number[]): CoverResult {
  const { stages, refusals } = coverCoded(model, shares);
  const whole = refusals.map(({ node, reason }): CoverRefusal => ({ nodes: [node, node + 1], reason }));
  if (stages.some((stage) => stage.redundancy === 1)) return { stages, refusals: whole };
  throw new ChairError('CUT_NOT_POSSIBLE', 'nothing of this model can be coded', {
    expected: 'Conv, Gemm or MatMul of constant weights that do a good part of its work',
    came: whole[0]?.reason ?? 'none',
    todo: 'Verify it without --redundancy.',
  });
}

/** Holds any partition against the oracle (a planner's stages, say). */
export async function verifyStages(
  oracle: Oracle,
  stages: readonly StageSpec[],
  options: { readonly dropOne?: boolean } = {},
): Promise<VerifyReport> {
  const cut = partition(oracle.model, stages);
  // Of its own: a partition that is verified at the same time must not lose its slices to this one's end.
  const directory = join(oracle.directory, `slices-${randomUUID()}`);
  try {
    return await verifyWritten(oracle, await writeSlices(cut, directory), options);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function verifyWritten(oracle: Oracle, written: WrittenPartition, options: { readonly dropOne?: boolean }): Promise<VerifyReport> {
  const runner = new PartitionRunner(written, oracle.engine);
  try {
    const comparisons: Comparison[] = [];
    for (const sample of oracle.samples) comparisons.push(compare(sample.expected, (await runner.run(sample.inputs)).outputs));
    const sample = oracle.samples[0];
    if (sample === undefined) throw new ChairError('INTERNAL', 'an oracle without samples');
    const dropped = options.dropOne === true ? await dropEachWire(runner, written, sample.inputs) : undefined;
    const without: Comparison[] = [];
    for (const lost of eachPartLost(written.partition)) {
      without.push(compare(sample.expected, (await runner.run(sample.inputs, { lost })).outputs));
    }
    const distinct = new Set(written.slices.flat().map((slice) => slice.graph.sha256));
    return reportOf(oracle, written.partition, distinct.size, { comparisons, without, dropped });
  } finally {
    await runner.dispose();
  }
}

interface Outcome {
  readonly comparisons: readonly Comparison[];
  /** Without each one part of coded stages. */
  readonly without: readonly Comparison[];
  readonly dropped: DropReport | undefined;
}

function reportOf(oracle: Oracle, cut: Partition, slices: number, { comparisons, without, dropped }: Outcome): VerifyReport {
  const missing = without.findIndex((c) => !agrees(c, TOLERANCE));
  const lacking = missing < 0 ? undefined : `without part ${missing}: ${without[missing]?.problem ?? `${without[missing]?.maxRelDiff}`}`;
  const problem = comparisons.find((c) => c.problem !== undefined)?.problem ?? lacking ?? dropped?.problem;
  return {
    model: oracle.model.path,
    cut: [...new Set(cut.stages.map((stage) => stage.spec.cut))].join('+'),
    slices,
    seats: cut.stages.reduce((sum, stage) => sum + stage.parts.length, 0),
    ...coverageOf(cut),
    bytesMoved: cut.bytesMoved,
    maxAbsDiff: Math.max(0, ...comparisons.map((c) => c.maxAbsDiff)),
    maxRelDiff: Math.max(0, ...comparisons.map((c) => c.maxRelDiff)),
    ok: [...comparisons, ...without].every((c) => agrees(c, TOLERANCE)) && (dropped === undefined || dropped.problem === undefined),
    bitEqual: comparisons.every((c) => c.bitEqual),
    inputsVary: oracle.spread === undefined || oracle.spread > VARIES_ABOVE,
    stages: cut.stages.map(({ spec, parts }) => ({ nodes: spec.nodes, cut: spec.cut, parts: parts.length })),
    refusals: [],
    ...(problem === undefined ? {} : { problem }),
    ...(dropped === undefined ? {} : { dropped }),
    ...(without.length === 0 ? {} : { withoutPart: without.map(({ maxAbsDiff, maxRelDiff }, part) => ({ part, maxAbsDiff, maxRelDiff })) }),
  };
}
