import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import { loadModel } from '../onnx/load.js';
import { buildZoo } from '../zoo/index.js';
import { balancedStarts } from './balance.js';
import { COVER_KINDS, coverCut, parseCut } from './cover.js';
import { coverageOf } from './coverage.js';
import { partition } from './cut.js';

describe('a cut as people write it', () => {
  it('has a kind, a number of parts, and equal shares unless they are given', () => {
    expect(parseCut('rows:4')).toEqual({ kind: 'rows', parts: 4, shares: [1, 1, 1, 1] });
    expect(parseCut('channels:3', [3, 2, 1])).toEqual({ kind: 'channels', parts: 3, shares: [3, 2, 1] });
    expect(parseCut('whole')).toEqual({ kind: 'whole', parts: 1, shares: [1] });
  });

  it.each([
    ['', undefined],
    ['diagonal:4', undefined],
    ['rows', undefined],
    ['rows:', undefined],
    ['rows:0', undefined],
    ['rows:-1', undefined],
    ['rows:2.5', undefined],
    ['rows:1e2', undefined],
    ['rows:65', undefined],
    ['rows:4:2', undefined],
    ['whole:2', undefined],
    ['replicas:2', undefined],
    ['rows:3', [1, 2]],
    ['rows:3', [1, 2, -1]],
    ['rows:2', [0, 0]],
    ['rows:2', [Number.NaN, 1]],
    ['rows:2', [Number.POSITIVE_INFINITY, 1]],
  ])('%j with shares %j is refused with CUT_INVALID', (text, shares) => {
    expect(() => parseCut(text, shares)).toThrow(expect.objectContaining({ code: 'CUT_INVALID' }));
  });
});

describe('balanced groups', () => {
  it('have the smallest largest load', () => {
    expect(balancedStarts([1, 1, 1, 1], [1, 1])).toEqual([0, 2]);
    expect(balancedStarts([5, 1, 1, 1, 1, 1], [1, 1])).toEqual([0, 1]);
    expect(balancedStarts([1, 9, 1], [1, 1, 1])).toEqual([0, 1, 2]);
  });

  it('follow uneven shares', () => {
    expect(balancedStarts([1, 1, 1, 1, 1, 1], [2, 1])).toEqual([0, 4]);
  });

  it('are fewer where there are fewer loads, and skip shares of 0', () => {
    expect(balancedStarts([3, 4], [1, 1, 1])).toEqual([0, 1]);
    expect(balancedStarts([1, 1, 1, 1], [1, 0, 1])).toEqual([0, 2]);
  });
});

describe('covering a model', () => {
  let folder: string;
  let engine: Engine;
  const load = async (name: string, options = {}): Promise<Model> => {
    const path = join(folder, `${name}.onnx`);
    await buildZoo(name, path, options);
    return loadModel(path, { engine, workDirectory: folder });
  };
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'chair-cover-'));
    engine = await createOnnxRuntimeEngine({ threads: 1 });
  });
  afterAll(async () => {
    await engine.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  it('tiles all nodes with every kind of cut, and says of whole stages why they are whole', async () => {
    const model = await load('mobilenetv2', { scale: 0.125, size: 64, classes: 20 });
    for (const kind of COVER_KINDS) {
      const { stages, refusals } = coverCut(model, kind, kind === 'whole' ? [1] : [2, 1, 1]);
      expect(stages[0]?.nodes[0]).toBe(0);
      expect(stages.at(-1)?.nodes[1]).toBe(model.nodes.length);
      expect(stages.slice(1).map((s) => s.nodes[0])).toEqual(stages.slice(0, -1).map((s) => s.nodes[1]));
      expect(partition(model, stages).stages).toHaveLength(stages.length);
      if (kind === 'whole' || kind === 'stages') continue;
      expect(stages.every((s) => s.cut === 'whole' || s.cut === kind || kind === 'auto')).toBe(true);
      const whole = stages.filter((s) => s.cut === 'whole').reduce((sum, s) => sum + s.nodes[1] - s.nodes[0], 0);
      expect(refusals.reduce((sum, r) => sum + r.nodes[1] - r.nodes[0], 0)).toBe(whole);
      expect(refusals.every((r) => r.reason.length > 0)).toBe(true);
    }
  });

  it('cuts the convolutions of AlexNet by rows:4 with nothing computed twice to speak of', { timeout: 60_000 }, async () => {
    const model = await load('alexnet-features');
    const coverage = coverageOf(partition(model, coverCut(model, 'rows', [1, 1, 1, 1]).stages));
    expect(coverage.coveredMacsRatio).toBeGreaterThanOrEqual(0.9);
    expect(coverage.totalMacsRatio).toBeLessThanOrEqual(1.3);
    expect(coverage.maxPartMacsRatio).toBeLessThanOrEqual(0.35);
  });

  it('cuts the convolutions of VGG16 by rows:4, cheaper than the same cut fused into one stage', { timeout: 60_000 }, async () => {
    const model = await load('vgg16-features', { scale: 0.25 });
    const shares = [1, 1, 1, 1];
    const coverage = coverageOf(partition(model, coverCut(model, 'rows', shares).stages));
    expect(coverage.coveredMacsRatio).toBeGreaterThanOrEqual(0.9);
    expect(coverage.totalMacsRatio).toBeLessThanOrEqual(1.3);
    expect(coverage.maxPartMacsRatio).toBeLessThanOrEqual(0.35);
    const fused = coverageOf(partition(model, [{ nodes: [0, model.nodes.length], cut: 'rows', shares }]));
    expect(fused.totalMacsRatio).toBeGreaterThan(2);
  });

  it('fuses layers where an exchange costs more than rows computed twice, and does not end a cut in a whole stage for nothing', async () => {
    const model = await load('vgg16-features', { scale: 0.25 });
    const at = (macsPerStage: number) => {
      const { stages } = coverCut(model, 'rows', [1, 1, 1, 1], { cost: { macsPerByte: 0, macsPerStage } });
      return { stages, coverage: coverageOf(partition(model, stages)) };
    };
    const [free, dear] = [at(0), at(20e6)];
    expect(dear.stages.length).toBeLessThan(free.stages.length / 1.5);
    expect(dear.coverage.totalMacsRatio).toBeGreaterThan(free.coverage.totalMacsRatio);
    expect(dear.coverage.totalMacsRatio).toBeLessThan(1.2);
    expect([...new Set(dear.stages.map((s) => s.cut))]).toEqual(['rows']);
  });

  it('cuts AlexNet by channels:4, groups and fully connected layers included', { timeout: 60_000 }, async () => {
    const model = await load('alexnet', { scale: 0.5 });
    const { stages } = coverCut(model, 'channels', [1, 1, 1, 1]);
    expect(coverageOf(partition(model, stages)).coveredMacsRatio).toBeGreaterThanOrEqual(0.95);
  });

  it('keeps every kind of auto within its own prices: nothing is cut when bytes cost more than work', async () => {
    const model = await load('vgg16', { scale: 0.125, size: 64, classes: 20 });
    const dear = coverCut(model, 'auto', [1, 1], { cost: { macsPerByte: 1e9, macsPerStage: 1e12 } });
    expect(dear.stages).toEqual([{ nodes: [0, model.nodes.length], cut: 'whole', shares: [1] }]);
    expect(dear.refusals).toHaveLength(1);
    const free = coverCut(model, 'auto', [1, 1], { cost: { macsPerByte: 0, macsPerStage: 0 } });
    expect(coverageOf(partition(model, free.stages)).coveredMacsRatio).toBeGreaterThan(0.99);
  });

  it('balances whole stages by work, and says when there are fewer places than stages', async () => {
    const model = await load('resnet18', { scale: 0.125, size: 64, classes: 20 });
    const { stages, refusals } = coverCut(model, 'stages', [1, 1, 1, 1]);
    expect(stages).toHaveLength(4);
    expect(refusals).toEqual([]);
    expect(coverageOf(partition(model, stages)).maxPartMacsRatio).toBeLessThan(0.4);
    const many = coverCut(model, 'stages', new Array<number>(60).fill(1));
    expect(many.stages.length).toBeGreaterThan(10);
    expect(many.refusals[0]?.reason).toContain('places');
  });
});
