/** Holding our import and cuts against the models and data that ONNX ships (Debian: libonnx-testdata). */
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { toChairError } from '../broker/errors.js';
import type { Engine } from '../models/engine/engine.js';
import { loadModel } from '../models/onnx/load.js';
import { readTestModel } from '../models/onnx/test-data.js';
import { agrees, type Comparison, compare } from '../models/slicing/compare.js';
import { coverCut, parseCut } from '../models/slicing/cover.js';
import { type Oracle, type Tensors, verifyStages } from '../models/slicing/verify.js';

/** Where Debian's package puts the data; MUSICAL_CHAIR_TESTDATA overrides. */
export const TESTDATA = process.env.MUSICAL_CHAIR_TESTDATA ?? '/usr/share/libonnx-testdata/data';

/** Every kind of cut; those that do not apply to a model fall away. */
const CUTS = ['whole', 'stages:2', 'rows:2', 'columns:2', 'channels:2', 'inputs:2', 'pair:2', 'auto:3'];

export interface TestdataResult {
  /** Path below the data folder. */
  readonly model: string;
  readonly ops: readonly string[];
  /**
   * equal: import and every cut that applies give what the bare engine gives.
   * unsupported: the bare engine does not run it, or its values are no tensors of fixed-size types. random: the bare engine differs from itself.
   */
  readonly outcome: 'equal' | 'failed' | 'unsupported' | 'random';
  /** Cuts that apply and were verified. */
  readonly cuts: readonly string[];
  /** The bare engine's output differs from the shipped one (rel 1e-3, abs 1e-4). */
  readonly engineDiffers: boolean;
  readonly reason?: string;
}

export function hasTestdata(): boolean {
  return existsSync(TESTDATA);
}

/** Paths of all models below the data folder, sorted. */
export async function testdataModels(): Promise<string[]> {
  const files = await readdir(TESTDATA, { recursive: true });
  return files.filter((f) => path.basename(f) === 'model.onnx').sort();
}

function text(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]?.slice(0, 200) ?? '';
}

/** What ONNX's own backend tests allow: relative 1e-3, absolute 1e-4 (there 1e-7: engines differ in summation). */
function nearShipped(c: Comparison): boolean {
  return c.comparable && (c.maxAbsDiff <= 1e-4 || c.maxRelDiff <= 1e-3);
}

/** Runs the file on the bare engine, twice: does it run, and does it give the same both times? */
async function runBare(engine: Engine, file: string, inputs: Tensors): Promise<{ outputs: Tensors; again: Comparison }> {
  const session = await engine.load(file);
  try {
    const { outputs } = await session.run(inputs);
    return { outputs, again: compare(outputs, (await session.run(inputs)).outputs) };
  } finally {
    await session.dispose();
  }
}

export async function verifyTestModel(engine: Engine, model: string, cuts: readonly string[] = CUTS): Promise<TestdataResult> {
  const file = path.join(TESTDATA, model);
  const base = { model, ops: [] as readonly string[], cuts: [] as readonly string[], engineDiffers: false };
  const { set, ops: found, reason } = await readTestModel(file);
  const known = { ...base, ops: [...found] };
  if (set === undefined) return { ...known, outcome: 'unsupported', reason: reason ?? '' };
  let bare: Awaited<ReturnType<typeof runBare>>;
  try {
    bare = await runBare(engine, file, set.inputs);
  } catch (error) {
    return { ...known, outcome: 'unsupported', reason: `bare engine: ${text(error)}` };
  }
  const engineDiffers = !nearShipped(compare(set.outputs, bare.outputs));
  if (!bare.again.bitEqual && !agrees(bare.again)) return { ...known, outcome: 'random', engineDiffers };
  return { ...known, engineDiffers, ...(await verifyCuts(engine, file, set.inputs, bare.outputs, cuts)) };
}

async function verifyCuts(
  engine: Engine,
  file: string,
  inputs: Tensors,
  expected: Tensors,
  cuts: readonly string[],
): Promise<Pick<TestdataResult, 'outcome' | 'cuts' | 'reason'>> {
  const directory = await mkdtemp(path.join(tmpdir(), 'chair-testdata-'));
  const applied: string[] = [];
  let cut = 'import';
  try {
    const shapes = Object.fromEntries(Object.entries(inputs).map(([name, t]) => [name, t.dims]));
    const model = await loadModel(file, { workDirectory: path.join(directory, 'weights'), engine, shapes, samples: inputs });
    const oracle: Oracle = { model, engine, directory, samples: [{ inputs, expected }], spread: undefined };
    for (cut of cuts) {
      const { kind, shares } = parseCut(cut);
      const { stages } = coverCut(model, kind, shares);
      if (kind !== 'whole' && stages.every((s) => s.cut === 'whole') && stages.length < 2) continue;
      const report = await verifyStages(oracle, stages);
      if (!report.ok) {
        const reason = `${cut}: ${report.problem ?? `differs by ${report.maxAbsDiff.toExponential(1)}, relative ${report.maxRelDiff.toExponential(1)}`}`;
        return { outcome: 'failed', cuts: applied, reason };
      }
      applied.push(cut);
    }
    return { outcome: 'equal', cuts: applied };
  } catch (error) {
    return { outcome: 'failed', cuts: applied, reason: `${cut}: ${toChairError(error).code} ${text(error)}` };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
