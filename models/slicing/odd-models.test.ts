/** Models that nobody means to make and that somebody will: names in the way, outputs that are no results, shapes that round. Held against the original file. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import { GraphBuilder } from '../onnx/build.js';
import { randomWeight } from './fixture.js';
import { openOracle, oracleOf, verifyOnOracle } from './verify.js';

let engine: Engine;
let directory = '';
beforeAll(async () => {
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  directory = await mkdtemp(join(tmpdir(), 'chair-odd-'));
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

const CUTS = ['whole', 'rows:3', 'channels:3', 'inputs:2', 'pair:2', 'stages:2', 'auto:3'];

/** Verifies the model under every cut; returns the cuts that cut something. */
async function holds(build: (g: GraphBuilder) => void, opset = 17, cuts = CUTS): Promise<string[]> {
  const g = new GraphBuilder({ opset, irVersion: opset > 18 ? 9 : 8 });
  build(g);
  const path = join(directory, 'model.onnx');
  await g.write(path);
  const oracle = await openOracle(path, { engine, directory });
  const cut: string[] = [];
  for (const kind of cuts) {
    const report = await verifyOnOracle(oracle, kind);
    expect(report, kind).toMatchObject({ ok: true, inputsVary: true });
    if (report.stages.some((stage) => stage.cut !== 'whole')) cut.push(kind);
  }
  return cut;
}

function conv(g: GraphBuilder, x: string, name: string, [outs, ins]: readonly [number, number], output: string): string {
  return g.node1('Conv', [x, randomWeight(g, name, [outs, ins, 3, 3])], { pads: [1, 1, 1, 1] }, { outputs: [output] });
}

describe('names of a model', () => {
  it('may be those that slices would make up', async () => {
    const cut = await holds((g) => {
      const x = g.input('x', 'float32', [1, 4, 8, 8]);
      g.node('Relu', [x], {}, { outputs: ['x/cut1'] });
      conv(g, 'x/cut1', 'w', [4, 4], 'y');
      conv(g, 'y', 'w/cut1', [4, 4], 'y/partial');
      g.node('Concat', ['y/partial', 'x/cut1', 'y'], { axis: 1 }, { outputs: ['y/partial:0'] });
      conv(g, 'y/partial:0', 'const8/cut1', [4, 12], 'z');
      g.output(g.node1('GlobalAveragePool', [g.node1('Add', ['z', 'y'])]));
    });
    expect(cut).toEqual(expect.arrayContaining(['rows:3', 'channels:3', 'inputs:2', 'pair:2']));
  });

  it('may be those that the import would make up', async () => {
    await holds((g) => {
      const x = g.input('shape:0', 'float32', [1, 4, 8, 8]);
      g.node('Relu', [x], {}, { outputs: ['shape:1'] });
      g.output(conv(g, 'shape:1', 'shape:2', [4, 4], 'y'));
    });
    // A weight called `a/constant` is not the value of `a`.
    await holds((g) => {
      g.node('Relu', [g.input('x', 'float32', [1, 4, 8, 8])], {}, { outputs: ['a'] });
      g.output(g.node1('Add', ['a', randomWeight(g, 'a/constant', [1, 4, 8, 8])]));
      g.output(randomWeight(g, 'b', [3]));
      g.output(g.node1('Mul', ['a', randomWeight(g, 'b/constant', [1, 4, 8, 8])]));
    });
  });

  it('may be paths, other scripts, very long, or words of JavaScript', async () => {
    await holds((g) => {
      const x = g.input('toString', 'float32', [1, 4, 8, 8]);
      g.node('Relu', [x], {}, { outputs: ['../in put/ж日本\n'] });
      g.node('Neg', ['../in put/ж日本\n'], {}, { outputs: ['n'.repeat(70_000)] });
      g.output(conv(g, 'n'.repeat(70_000), 'constructor', [4, 4], 'hasOwnProperty'));
    });
  });
});

describe('outputs of a model', () => {
  it('may be inputs, weights and values that later nodes read', async () => {
    await holds((g) => {
      const x = g.input('x', 'float32', [1, 3, 8, 8]);
      g.input('unused', 'float32', [2, 2]);
      const y = conv(g, x, 'w', [4, 3], 'y');
      g.output(x, 'float32', [1, 3, 8, 8]);
      g.output('w', 'float32', [4, 3, 3, 3]);
      g.output(y);
      g.output(conv(g, g.node1('Add', [y, y]), 'v', [4, 4], 'z'));
    });
  });

  it('may be empty', async () => {
    await holds((g) => {
      const x = g.input('x', 'float32', [1, 4, 6, 8]);
      const bounds = [g.ints('starts', [0, 0]), g.ints('ends', [0, 5]), g.ints('axes', [1, 2]), g.ints('steps', [2, 3])];
      g.output(g.node1('Relu', [g.node1('Slice', [x, ...bounds])]));
      g.output(conv(g, x, 'w', [4, 4], 'y'));
    });
  });
});

describe('an output that the original file does not give', () => {
  it('is an error, not one comparison less', async () => {
    const g = new GraphBuilder();
    g.output(g.node1('Relu', [g.input('x', 'float32', [2, 3])], {}, { outputs: ['y'] }));
    await g.write(join(directory, 'model.onnx'));
    const { model } = await openOracle(join(directory, 'model.onnx'), { engine, directory });
    const claims = { ...model, outputs: [...model.outputs, { name: 'z', dtype: 'float32' as const, dims: [1] }] };
    await expect(oracleOf(claims, { engine, directory })).rejects.toThrow('gave no output z');
  });
});

describe('Resize to a kept aspect ratio', () => {
  const resized = (sizes: readonly number[]) => (g: GraphBuilder) => {
    const x = g.input('x', 'float32', [1, 2, 14, 12]);
    // The exact half beside it: a stage that is cut anyway.
    g.output(g.node1('Resize', [x, '', g.floats('half', [1, 1, 0.5, 0.5])], { mode: 'linear' }));
    const policy = { mode: 'nearest', axes: [2, 3], keep_aspect_ratio_policy: 'not_larger' };
    g.output(g.node1('Resize', [x, '', '', g.ints('sizes', sizes)], policy));
  };

  it('is cut where the ratio is exact, and left whole where it is rounded', async () => {
    expect(await holds(resized([28, 24]), 19, ['rows:2'])).toEqual(['rows:2']);
    await holds(resized([21, 5]), 19, ['rows:2', 'columns:2']);
  });
});
