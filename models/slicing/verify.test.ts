import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import { GraphBuilder } from '../onnx/build.js';
import { buildZoo } from '../zoo/index.js';
import { type Oracle, openOracle, verifyCut, verifyOnOracle, verifyStages } from './verify.js';

const NARROW = { scale: 0.125, size: 64, classes: 20 };
const NETS = ['alexnet', 'vgg16', 'resnet18', 'mobilenetv2'] as const;

let folder: string;
let engine: Engine;
const oracles = new Map<string, Oracle>();

async function oracle(name: string): Promise<Oracle> {
  const known = oracles.get(name);
  if (known !== undefined) return known;
  const path = join(folder, `${name}.onnx`);
  await buildZoo(name, path, name === 'alexnet' ? { ...NARROW, size: 99 } : NARROW);
  const opened = await openOracle(path, { engine, directory: join(folder, name) });
  oracles.set(name, opened);
  return opened;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chair-verify-'));
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await rm(folder, { recursive: true, force: true });
});

describe.each(NETS)('narrow %s', (name) => {
  it.each([
    ['rows:4', undefined],
    ['columns:3', [3, 2, 1]],
    ['channels:3', undefined],
    ['channels:7', [7, 6, 5, 4, 3, 2, 1]],
    ['inputs:2', undefined],
    ['pair:2', [2, 1]],
    ['stages:5', undefined],
    ['auto:7', undefined],
  ])('cut by %s (shares %j) computes what the whole network computes', async (cut, shares) => {
    const report = await verifyOnOracle(await oracle(name), cut, shares === undefined ? {} : { shares });
    expect(report, `largest difference ${report.maxAbsDiff}, relative ${report.maxRelDiff}`).toMatchObject({ ok: true, inputsVary: true });
    if (!cut.startsWith('stages')) {
      expect(report.coveredMacsRatio).toBeGreaterThan(cut.startsWith('pair') ? 0.05 : 0.9);
      expect(report.seats).toBeGreaterThan(report.stages.length);
    }
    expect(report.slices).toBeLessThanOrEqual(report.seats);
  });
});

describe('the report of a cut', () => {
  it('counts equal bands once: interior bands of a row cut are one slice', async () => {
    const report = await verifyOnOracle(await oracle('vgg16'), 'rows:4');
    expect(report.seats - report.slices).toBeGreaterThan(3);
  });

  it('has the numbers of a whole model for the cut whole', async () => {
    const report = await verifyOnOracle(await oracle('resnet18'), 'whole');
    expect(report).toMatchObject({ slices: 1, seats: 1, coveredMacsRatio: 0, totalMacsRatio: 1, maxPartMacsRatio: 1, ok: true });
  });

  it('notices each message that is lost', async () => {
    const report = await verifyOnOracle(await oracle('alexnet'), 'rows:3', { dropOne: true });
    expect(report.dropped?.wires).toBeGreaterThan(10);
    expect(report.dropped?.unnoticed).toEqual([]);
    expect(report.dropped?.zeros).toEqual([]);
    expect(report.dropped?.smallestChange).toBeGreaterThan(1e-3);
    expect(report.ok).toBe(true);
  });

  it('leaves each one part out in turn where stages are coded, and notices each message to and from a parity', async () => {
    const report = await verifyOnOracle(await oracle('alexnet'), 'channels:2', { redundancy: 1, dropOne: true });
    expect(report).toMatchObject({ ok: true, cut: 'channels:2+1' });
    expect(report.withoutPart?.map(({ part }) => part)).toEqual([0, 1, 2]);
    for (const { maxRelDiff } of report.withoutPart ?? []) expect(maxRelDiff).toBeLessThan(1e-4);
    // What is recovered is not what was computed: it carries more rounding.
    expect(Math.max(...(report.withoutPart ?? []).map(({ maxRelDiff }) => maxRelDiff))).toBeGreaterThan(report.maxRelDiff);
    expect(report.stages.some(({ parts }) => parts === 3)).toBe(true);
    expect(report.dropped?.unnoticed).toEqual([]);
    const plain = await verifyOnOracle(await oracle('alexnet'), 'channels:2', {});
    expect(plain.withoutPart).toBeUndefined();
  });

  it('refuses a parity for what is not cut by outputs, and for a model of which nothing can be coded', async () => {
    const alexnet = await oracle('alexnet');
    for (const [cut, redundancy] of [
      ['rows:2', 1],
      ['channels:2', 2],
    ] as const) {
      await expect(verifyOnOracle(alexnet, cut, { redundancy })).rejects.toMatchObject({ code: 'CUT_INVALID' });
    }
    const g = new GraphBuilder();
    g.output(g.node1('MaxPool', [g.input('x', 'float32', [1, 2, 6, 6])], { kernel_shape: [2, 2] }));
    const path = join(folder, 'pool.onnx');
    await g.write(path);
    const asked = verifyCut(path, 'channels:2', { engine, directory: join(folder, 'pool'), redundancy: 1 });
    await expect(asked).rejects.toMatchObject({ code: 'CUT_NOT_POSSIBLE', message: expect.stringContaining('coded') });
  });

  it('says when the model gives the same output whatever it is given', async () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [1, 2, 6, 6]);
    const dead = g.node1('Relu', [g.node1('Conv', [x, g.floats('w', new Array(18).fill(0), [1, 2, 3, 3]), g.floats('b', [3])])]);
    g.output(dead);
    const path = join(folder, 'dead.onnx');
    await g.write(path);
    const report = await verifyCut(path, 'rows:2', { engine, directory: join(folder, 'dead') });
    expect(report).toMatchObject({ ok: true, inputsVary: false });
  });

  it('calls messages of nothing but zeros no loss, and losses that do not show a failure', async () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [1, 1, 8, 4]);
    // All of the first convolution's output is 0, so its halos carry zeros.
    const zero = g.node1('Conv', [x, g.floats('w', new Array(9).fill(0), [1, 1, 3, 3])], { pads: [1, 1, 1, 1] });
    g.output(g.node1('Add', [x, g.node1('Conv', [zero, g.floats('v', new Array(9).fill(1), [1, 1, 3, 3])], { pads: [1, 1, 1, 1] })]));
    const path = join(folder, 'zeros.onnx');
    await g.write(path);
    const opened = await openOracle(path, { engine, directory: join(folder, 'zeros') });
    const stages = [
      { nodes: [0, 1] as const, cut: 'rows' as const, shares: [1, 1] },
      { nodes: [1, 3] as const, cut: 'rows' as const, shares: [1, 1] },
    ];
    const report = await verifyStages(opened, stages, { dropOne: true });
    // Both own bands and both halos of the dead tensor; the first stage's inputs are lost unnoticed.
    expect(report.dropped?.zeros).toHaveLength(4);
    expect(report.dropped?.unnoticed.map((u) => u.tensor)).toEqual(['x', 'x']);
    expect(report).toMatchObject({ ok: false });
    expect(report.problem).toContain('lost unnoticed');
  });

  it('calls messages masked when the network flattens their loss but not their corruption', async () => {
    const g = new GraphBuilder();
    const x = g.input('x', 'float32', [1, 1, 8, 8]);
    const high = g.node1('Conv', [x, g.floats('w', new Array(9).fill(1), [1, 1, 3, 3]), g.floats('b', [60])], { pads: [1, 1, 1, 1] });
    g.output(g.node1('Clip', [high, g.floats('zero', [0], []), g.floats('one', [1], [])]));
    const path = join(folder, 'masked.onnx');
    await g.write(path);
    const report = await verifyCut(path, 'rows:2', { engine, directory: join(folder, 'masked'), dropOne: true });
    expect(report.dropped?.masked.map((m) => m.tensor)).toEqual(['x', 'x']);
    expect(report).toMatchObject({ ok: true, inputsVary: false });
  });

  it('is not ok when the slices compute something else', async () => {
    const good = await oracle('alexnet');
    const other = await oracle('vgg16');
    const expected = Object.fromEntries(
      Object.keys(good.samples[0]?.expected ?? {}).map((name, i) => [name, Object.values(other.samples[0]?.expected ?? {})[i]]),
    ) as Oracle['samples'][0]['expected'];
    const wrong: Oracle = { ...good, samples: good.samples.map((s) => ({ ...s, expected })) };
    const report = await verifyOnOracle(wrong, 'rows:2');
    expect(report.ok).toBe(false);
    expect(report.maxRelDiff).toBeGreaterThan(0.01);
  });

  it('refuses a cut that is written wrongly before anything is loaded', async () => {
    await expect(verifyCut(join(folder, 'nothing.onnx'), 'rows:none', { engine, directory: folder })).rejects.toMatchObject({
      code: 'CUT_INVALID',
    });
    await expect(verifyCut(join(folder, 'nothing.onnx'), 'rows:2', { engine, directory: folder })).rejects.toMatchObject({
      code: 'MODEL_NOT_FOUND',
    });
  });
});
