/** Where slices go: one directory, many writers, and directories that cannot be written. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import { GraphBuilder } from '../onnx/build.js';
import { loadModel } from '../onnx/load.js';
import { partition } from './cut.js';
import { randomWeight, specs } from './fixture.js';
import { oracleOf, verifyStages } from './verify.js';
import { writeSlices } from './write.js';

let engine: Engine;
let directory = '';
let model: Model;
beforeAll(async () => {
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  directory = await mkdtemp(join(tmpdir(), 'chair-write-'));
  const g = new GraphBuilder();
  const x = g.input('x', 'float32', [1, 8, 12, 10]);
  g.output(g.node1('Conv', [x, randomWeight(g, 'w', [16, 8, 3, 3])], { pads: [1, 1, 1, 1] }));
  await g.write(join(directory, 'model.onnx'));
  model = await loadModel(join(directory, 'model.onnx'), { engine, workDirectory: join(directory, 'weights') });
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

const stages = specs([[0, 1, 'rows', 3]]);
const cut = () => partition(model, stages);
const blocked = async () => {
  await mkdir(join(directory, 'blocked'), { recursive: true });
  await writeFile(join(directory, 'blocked', 'file'), '');
  return join(directory, 'blocked', 'file', 'below');
};

describe('a directory of slices', () => {
  it('may be written by many at once, and none leaves a fragment', async () => {
    const target = join(directory, 'shared');
    const written = await Promise.all([0, 1, 2, 3].map(() => writeSlices(cut(), target)));
    for (const one of written) expect(one.slices).toEqual(written[0]?.slices);
    expect((await readdir(target)).filter((name) => !/^[0-9a-f]{64}$/.test(name))).toEqual([]);
  });

  it('is not taken from one verification by another', async () => {
    const oracle = await oracleOf(model, { engine, directory });
    const reports = await Promise.all([0, 1, 2].map(() => verifyStages(oracle, stages)));
    expect(reports.map((r) => r.ok)).toEqual([true, true, true]);
  });

  it('that cannot be written is an error that says so', async () => {
    const code = 'WORK_DIRECTORY_UNUSABLE';
    await expect(writeSlices(cut(), await blocked())).rejects.toMatchObject({ code });
    await expect(loadModel(model.path, { engine, workDirectory: await blocked() })).rejects.toMatchObject({ code });
    await expect(new GraphBuilder().write(join(await blocked(), 'x.onnx'))).rejects.toMatchObject({ code });
  });

  it('cannot be filled from weights that are gone', async () => {
    const lost = await loadModel(model.path, { engine, workDirectory: join(directory, 'lost') });
    await rm(join(directory, 'lost'), { recursive: true });
    await expect(writeSlices(partition(lost, stages), join(directory, 'empty'))).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING' });
  });
});
