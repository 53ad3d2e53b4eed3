import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blocksOf } from '../blocks.js';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import { loadModel } from '../onnx/load.js';
import { partition } from '../slicing/cut.js';
import { buildZoo, drawZoo } from './index.js';
import { structureOf } from './structure.js';

let engine: Engine;
let directory: string;
beforeAll(async () => {
  engine = await createOnnxRuntimeEngine();
  directory = await mkdtemp(join(tmpdir(), 'structure-'));
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true, force: true });
});

describe('a network of the zoo without its weights', () => {
  it.each(['alexnet', 'resnet18', 'mobilenetv2'])('has the blocks and cuts of the written file: %s', async (name) => {
    const options = { scale: 0.25 };
    const path = join(directory, `${name}.onnx`);
    await buildZoo(name, path, options);
    const loaded = await loadModel(path, { workDirectory: join(directory, 'work'), engine });
    const drawn = structureOf(drawZoo(name, options));
    const plain = (model: typeof loaded) =>
      blocksOf(model).map(({ nodes, macs, weightBytes, outBytes }) => ({ nodes, macs, weightBytes, outBytes }));
    expect(plain(drawn)).toEqual(plain(loaded));
    const specs = [{ nodes: [0, loaded.nodes.length] as const, cut: 'whole' as const, shares: [1] }];
    const parts = (model: typeof loaded) =>
      partition(model, specs).stages[0]?.parts.map(({ macs, activationBytes }) => ({ macs, activationBytes }));
    expect(parts(drawn)).toEqual(parts(loaded));
  });
});
