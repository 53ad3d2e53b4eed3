import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { isChairError } from '../../broker/errors.js';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import { coverCut } from './cover.js';
import { cutStage, type Held, heldAfter, isRefusal } from './cut.js';
import type { CoverKind } from './parse-cut.js';
import { CUT_KINDS, type StageSpec } from './partition.js';
import { buildProgram, programs } from './random-graph.js';
import { openOracle, verifyStages } from './verify.js';

const RUNS = Number(process.env.MUSICAL_CHAIR_RANDOM_RUNS ?? 40);
const SEED = Number(process.env.MUSICAL_CHAIR_RANDOM_SEED ?? 20261121);

const KINDS: readonly CoverKind[] = ['rows', 'columns', 'channels', 'inputs', 'pair', 'stages', 'auto'];

interface Request {
  readonly kind: CoverKind;
  readonly shares: readonly number[];
  /** Lengths and kinds of stages for a random tiling; empty: cover the model. */
  readonly tiles: readonly { readonly length: number; readonly kind: number }[];
}

const requests: fc.Arbitrary<Request> = fc.record({
  kind: fc.constantFrom(...KINDS),
  shares: fc.array(fc.nat({ max: 4 }), { minLength: 2, maxLength: 6 }).filter((shares) => shares.some((s) => s > 0)),
  tiles: fc.array(fc.record({ length: fc.integer({ min: 1, max: 6 }), kind: fc.nat({ max: CUT_KINDS.length - 1 }) }), { maxLength: 12 }),
});

async function runs(engine: Engine, path: string): Promise<boolean> {
  try {
    await (await engine.load(path)).dispose();
    return true;
  } catch (error) {
    if (isChairError(error, 'ENGINE_LOAD_FAILED')) return false;
    throw error;
  }
}

/** Stages of random length and kind one after another; where a kind is refused the stage stays whole. */
function tile(model: Model, { tiles, shares }: Request): StageSpec[] {
  const stages: StageSpec[] = [];
  let held: Held = new Map();
  let start = 0;
  for (let i = 0; start < model.nodes.length; i++) {
    const { length = 1, kind = 0 } = tiles[i % tiles.length] ?? {};
    const end = Math.min(model.nodes.length, start + length);
    const cut = CUT_KINDS[kind] ?? 'whole';
    let spec: StageSpec = cut === 'whole' ? { nodes: [start, end], cut, shares: [1] } : { nodes: [start, end], cut, shares };
    const analysed = cutStage(model, spec, held);
    if (isRefusal(analysed)) spec = { nodes: [start, end], cut: 'whole', shares: [1] };
    else held = heldAfter(analysed, held);
    stages.push(spec);
    start = end;
  }
  return stages;
}

describe('a random network, cut at random', () => {
  let folder: string;
  let engine: Engine;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'chair-random-'));
    engine = await createOnnxRuntimeEngine({ threads: 1 });
  });
  afterAll(async () => {
    await engine.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  it(`gives what the whole network gives (${RUNS} networks, seed ${SEED})`, { timeout: 30_000 + RUNS * 1_000 }, async () => {
    let cut = 0;
    let vary = 0;
    let worst = 0;
    let graph = 0;
    const property = fc.asyncProperty(programs(12), fc.array(requests, { minLength: 3, maxLength: 3 }), async (program, asked) => {
      const path = join(folder, `${graph++}.onnx`);
      await buildProgram(program).write(path);
      // The engine's own fusions refuse a few legal graphs (a Pad fused into a pool whose pads must be smaller than its kernel): nothing to compare.
      fc.pre(await runs(engine, path));
      const oracle = await openOracle(path, { engine, directory: folder, seed: program.seed });
      if ((oracle.spread ?? 0) > 1e-3) vary++;
      for (const request of asked) {
        const stages = request.tiles.length > 0 ? tile(oracle.model, request) : coverCut(oracle.model, request.kind, request.shares).stages;
        const report = await verifyStages(oracle, stages);
        worst = Math.max(worst, report.maxRelDiff);
        if (report.stages.some((s) => s.parts > 1)) cut++;
        if (!report.ok)
          throw new Error(`relative difference ${report.maxRelDiff}, ${report.problem ?? ''} with stages ${JSON.stringify(stages)}`);
      }
      await rm(path);
    });
    await fc.assert(property, { numRuns: RUNS, seed: SEED, endOnFailure: process.env.MUSICAL_CHAIR_RANDOM_RUNS === undefined });
    console.log(
      `random graphs: seed ${SEED}, ${cut} of ${RUNS * 3} partitions with cut stages, largest relative difference ${worst.toExponential(1)}`,
    );
    // Checks that the property is about something: most partitions do cut, and outputs depend on inputs.
    if (cut < RUNS || vary < RUNS * 0.8) throw new Error(`only ${cut} partitions with cut stages, ${vary} networks with varying outputs`);
  });
});
