/** Stages, wires and slices: what a partition promises beyond the arithmetic of single operators. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SINK, SOURCE } from '../../broker/plan.js';
import { boxDims, elementCount, intersectBoxes, wholeBox } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import type { AttributeValue } from '../onnx/attributes.js';
import { GraphBuilder } from '../onnx/build.js';
import { cutStage, isRefusal, partition } from './cut.js';
import { compare, modelOf, numbers, randomInputs, randomWeight, removeFixtures, type Spec, specs } from './fixture.js';
import type { Partition } from './partition.js';
import { growingStage, macsBetween, regionFrom } from './region.js';
import { runPartition } from './run.js';
import { writeSlices } from './write.js';

let engine: Engine;
beforeAll(async () => {
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await removeFixtures();
});

function conv(g: GraphBuilder, x: string, weights: readonly number[], attributes: Record<string, AttributeValue> = {}, name = ''): string {
  const stem = `w${weights.join('_')}${name}`;
  return g.node1('Conv', [x, randomWeight(g, stem, weights), randomWeight(g, `${stem}b`, [weights[0] ?? 1], 0.5)], attributes);
}
const SAME = { pads: [1, 1, 1, 1] };

async function model(build: (g: GraphBuilder) => string | readonly string[]): Promise<Model> {
  const g = new GraphBuilder();
  for (const name of [build(g)].flat()) g.output(name);
  return modelOf(g, engine);
}

/** Three convolutions of 3x3 at full size. */
const tower = (height: number) =>
  model((g) => {
    let x = g.input('x', 'float32', [1, 3, height, 10]);
    for (const [i, channels] of [3, 6, 6].entries()) x = g.node1('Relu', [conv(g, x, [6, channels, 3, 3], SAME, `${i}`)]);
    return x;
  });

/** A squeeze-and-excitation block between convolutions, with a residual connection around it. */
const squeeze = () =>
  model((g) => {
    const x = conv(g, g.input('x', 'float32', [1, 3, 17, 12]), [8, 3, 3, 3], SAME);
    const trunk = g.node1('HardSwish', [conv(g, x, [8, 1, 3, 3], { ...SAME, group: 8 })]);
    const pooled = g.node1('GlobalAveragePool', [trunk]);
    const small = g.node1('Relu', [conv(g, pooled, [4, 8, 1, 1])]);
    const scale = g.node1('HardSigmoid', [conv(g, small, [8, 4, 1, 1])]);
    const y = conv(g, g.node1('Mul', [trunk, scale]), [8, 8, 1, 1]);
    return conv(g, g.node1('Add', [x, y]), [5, 8, 3, 3], { strides: [2, 2] });
  });

async function expectSame(m: Model, list: readonly Spec[]) {
  const result = await compare(m, list, engine);
  expect(result.spread).toBeGreaterThan(0.05);
  expect(result.maxRelDiff).toBeLessThanOrEqual(1e-5);
  return result.written;
}

/** Every element of every port is brought exactly once, by a producer that holds it. */
function checkWires(p: Partition): void {
  const ports = [
    ...p.stages.flatMap((s, stage) =>
      s.parts.flatMap((part, i) => part.inputs.map((port, input) => ({ stage, part: i, input, box: port.box }))),
    ),
    ...p.outputs.map((info, input) => ({ stage: SINK, part: 0, input, box: wholeBox(info.dims) })),
  ];
  for (const port of ports) {
    const wires = p.wires.filter((w) => w.toStage === port.stage && w.toPart === port.part && w.input === port.input);
    const brought = wires.reduce((sum, w) => sum + elementCount(boxDims(w.box)), 0);
    expect(brought).toBe(elementCount(boxDims(port.box)));
    wires.forEach((a, i) => {
      for (const b of wires.slice(i + 1)) expect(intersectBoxes(a.box, b.box)).toBeUndefined();
      expect(intersectBoxes(a.box, port.box)).toEqual(a.box);
      const from =
        a.fromStage === SOURCE
          ? wholeBox(p.inputs[a.output]?.dims ?? [])
          : p.stages[a.fromStage]?.parts[a.fromPart]?.outputs[a.output]?.box;
      expect(from && intersectBoxes(a.box, from)).toEqual(a.box);
    });
  }
}

describe('bands', () => {
  it('inside the picture are one slice: same bytes, same sha256', async () => {
    const written = await expectSame(await tower(40), [[0, 6, 'rows', 5]]);
    const hashes = written.slices[0]?.map((s) => s.graph.sha256) ?? [];
    expect(new Set(hashes.slice(1, 4)).size).toBe(1);
    expect(new Set(hashes).size).toBe(3);
    expect(new Set(written.slices.flat().flatMap((s) => s.blobs.map((b) => b.sha256))).size).toBe(2);
  });

  it('of stages that follow each other exchange only the halo', async () => {
    const m = await tower(40);
    const list: Spec[] = [
      [0, 2, 'rows', 4],
      [2, 4, 'rows', 4],
      [4, 6, 'rows', 4],
    ];
    await expectSame(m, list);
    const p = partition(m, specs(list));
    checkWires(p);
    const crossing = p.wires.filter((w) => w.fromStage >= 0 && w.toStage >= 0 && w.fromPart !== w.toPart);
    // Three borders, both ways, two stages: one row of 6 channels by 10 columns each.
    expect(crossing.map((w) => elementCount(boxDims(w.box)))).toEqual(Array(12).fill(60));
    const ends = p.wires.filter((w) => w.fromStage === SOURCE || w.toStage === SINK);
    const endBytes = ends.reduce((sum, w) => sum + 4 * elementCount(boxDims(w.box)), 0);
    expect(p.bytesMoved).toBe(12 * 60 * 4 + endBytes);
  });

  it('cost what their halos cost', async () => {
    const m = await tower(40);
    const fused = partition(m, specs([[0, 6, 'rows', 4]]));
    const whole = macsBetween(m, 0, 6);
    const sum = fused.stages[0]?.parts.reduce((s, p) => s + p.macs, 0) ?? 0;
    // Border parts compute one and two more rows of the inner layers, interior parts twice that.
    const row = [3, 6, 6].map((channels) => 10 * 6 * channels * 9);
    expect(sum).toBe(whole + 6 * (2 * (row[0] ?? 0) + (row[1] ?? 0)));
  });

  it('of uneven shares drop empty parts', async () => {
    const m = await tower(10);
    const written = await expectSame(m, [[0, 6, 'rows', [10, 0, 1, 100]]]);
    expect(written.partition.stages[0]?.partShares).toEqual([0, 3]);
    expect((await expectSame(m, [[0, 6, 'rows', [5, 1, 4]]])).slices[0]).toHaveLength(3);
  });
});

describe('weights', () => {
  it('are held once by a part, however many nodes read them', async () => {
    const m = await model((g) => {
      const w = randomWeight(g, 'w', [6, 6, 3, 3]);
      const once = g.node1('Conv', [g.input('x', 'float32', [1, 6, 12, 10]), w], SAME);
      return g.node1('Conv', [g.node1('Conv', [once, w], SAME), randomWeight(g, 'own', [6, 6, 1, 1])]);
    });
    for (const spec of specs([
      [0, 3, 'whole', 1],
      [0, 3, 'rows', 2],
    ])) {
      const cut = cutStage(m, spec, new Map());
      if (isRefusal(cut)) throw new Error(cut.reason);
      expect(cut.parts.map(({ weightBytes }) => weightBytes)).toEqual(spec.shares.map(() => 4 * (6 * 6 * 9 + 6 * 6)));
    }
  });
});

describe('graphs with branches', () => {
  it('go on after a global pool: the partial sums are an all-reduce and the trunk stays', async () => {
    const m = await squeeze();
    const list: Spec[] = [
      [0, 4, 'rows', 3],
      [4, 12, 'rows', 3],
    ];
    const written = await expectSame(m, list);
    checkWires(written.partition);
    const second = written.partition.stages[1]?.parts[0]?.inputs.map((port) => port.name) ?? [];
    expect(second.filter((name) => name.includes('/partial:'))).toHaveLength(3);
    const refused = cutStage(m, { nodes: [0, 5], cut: 'rows', shares: [1, 1] });
    expect(isRefusal(refused) && refused.reason).toMatch(/partial sum.*next stage/);
  });

  it('are cut anywhere, each stage in its own way', async () => {
    const m = await squeeze();
    const kinds = ['rows', 'columns', 'channels'] as const;
    for (const [i, first] of kinds.entries()) {
      for (const second of kinds) {
        const third = kinds[(i + 1) % 3] ?? 'rows';
        const list: Spec[] = [
          [0, 3, first, [2, 1]],
          [3, 4, second, 3],
          [4, 5, 'whole', 1],
          [5, 8, 'whole', 1],
          [8, 9, second, 2],
          [9, 10, 'inputs', 3],
          [10, 11, third, [1, 3]],
          [11, 12, second, 4],
        ];
        checkWires((await expectSame(m, list)).partition);
      }
    }
  });

  it('send a skipped tensor straight from where it was made', async () => {
    const m = await squeeze();
    const p = partition(
      m,
      specs([
        [0, 1, 'rows', 2],
        [1, 10, 'whole', 1],
        [10, 12, 'rows', 2],
      ]),
    );
    expect(p.wires.some((w) => w.fromStage === 0 && w.toStage === 2)).toBe(true);
  });

  it('shuffle channels between grouped convolutions without leaving their bands', async () => {
    const m = await model((g) => {
      const x = conv(g, g.input('x', 'float32', [1, 4, 13, 11]), [12, 2, 1, 1], { group: 2 });
      const open = g.node1('Reshape', [x, g.ints('open', [1, 3, 4, 13, 11])]);
      const closed = g.node1('Reshape', [g.node1('Transpose', [open], { perm: [0, 2, 1, 3, 4] }), g.ints('close', [1, 12, 13, 11])]);
      const y = conv(g, g.node1('Relu', [closed]), [12, 1, 3, 3], { ...SAME, group: 12 });
      return conv(g, y, [6, 4, 1, 1], { group: 3 });
    });
    for (const cut of ['rows', 'columns'] as const) await expectSame(m, [[0, m.nodes.length, cut, 3]]);
    // Four groups of three become three of four: bands of channels do not survive that, so they meet there.
    const shuffle = regionFrom(m, 0, 'channels').ends.at(-1) ?? 0;
    await expectSame(m, [
      [0, shuffle, 'channels', 3],
      [shuffle, 4, 'whole', 1],
      [4, m.nodes.length, 'channels', 3],
    ]);
  });

  it('of dense concatenation, several inputs and several outputs agree', async () => {
    const m = await model((g) => {
      const a = g.input('a', 'float32', [1, 4, 14, 9]);
      const b = g.input('b', 'float32', [1, 3, 14, 9]);
      const c = conv(g, g.node1('Concat', [a, b], { axis: 1 }), [5, 7, 3, 3], SAME);
      const d = conv(g, g.node1('Concat', [a, c, b], { axis: 1 }), [4, 12, 3, 3], SAME);
      const e = g.node1('Concat', [c, d, g.node1('Sigmoid', [b])], { axis: 1 });
      return [g.node1('Relu', [e]), c, g.node1('MaxPool', [d], { kernel_shape: [2, 2], strides: [2, 2] })];
    });
    const n = m.nodes.length;
    for (const shares of [2, 3, [1, 2, 2]]) {
      await expectSame(m, [[0, n, 'rows', shares]]);
      await expectSame(m, [[0, n, 'columns', shares]]);
      await expectSame(m, [
        [0, 1, 'channels', shares],
        [1, 2, 'channels', shares],
        [2, 3, 'channels', shares],
        [3, n, 'channels', shares],
      ]);
    }
  });
});

describe('whole stages', () => {
  it('tile the graph at any boundary and carry every live tensor', async () => {
    const m = await squeeze();
    const n = m.nodes.length;
    await expectSame(
      m,
      Array.from({ length: n }, (_, i): Spec => [i, i + 1, 'whole', 1]),
    );
  });

  it('refuse specifications that make no sense', async () => {
    const m = await tower(10);
    expect(() => partition(m, specs([[0, 3, 'rows', 2]]))).toThrow(/cover the model/);
    expect(() => partition(m, specs([[1, 6, 'rows', 2]]))).toThrow(/begin where/);
    expect(() => cutStage(m, { nodes: [0, 99], cut: 'rows', shares: [1] })).toThrow(/CUT_INVALID|nodes \[0, 99\)/);
    expect(() => cutStage(m, { nodes: [0, 2], cut: 'rows', shares: [0, 0] })).toThrow(/shares/);
    expect(() => partition(m, specs([[0, 6, 'channels', 2]]))).toThrow(/needs all of/);
  });
});

describe('regions', () => {
  it('say how far a cut can go and why not farther', async () => {
    const m = await squeeze();
    const region = regionFrom(m, 0, 'rows');
    expect(region.ends).toEqual([1, 2, 3, 4]);
    expect(region.obstacle).toMatchObject({ node: 4 });
    expect(regionFrom(m, 0, 'channels').obstacle.reason).toMatch(/Conv.*needs all of/);
    expect(regionFrom(m, 9, 'inputs').ends).toEqual([10]);
    for (const cut of ['rows', 'columns', 'channels', 'inputs', 'pair'] as const) {
      for (let start = 0; start < m.nodes.length; start++) {
        const { ends } = regionFrom(m, start, cut, new Map(), { replicatedMacsRatio: 1 });
        for (let end = start + 1; end <= m.nodes.length; end++) {
          const accepted = !isRefusal(cutStage(m, { nodes: [start, end], cut, shares: [1, 1] }));
          expect(ends.includes(end), `${cut} [${start}, ${end})`).toBe(accepted);
        }
      }
    }
  });

  it('grow with exact costs', async () => {
    const m = await tower(20);
    const sums = [...growingStage(m, 0, 'rows', [1, 1])].map(
      (stage) => stage.parts.reduce((s, p) => s + p.macs, 0) / macsBetween(m, 0, stage.spec.nodes[1]),
    );
    expect(sums).toHaveLength(6);
    expect(sums[0]).toBe(1);
    expect(sums.at(-1)).toBeGreaterThan(1);
  });
});

describe('slices', () => {
  it('stand in one directory under the sha256 of their bytes, and nothing is written twice', async () => {
    const m = await tower(40);
    const written = await expectSame(m, [[0, 6, 'rows', 5]]);
    const again = await writeSlices(partition(m, specs([[0, 6, 'rows', 5]])), written.directory);
    expect(again.slices).toEqual(written.slices);
    const files = await readdir(written.directory);
    const named = new Set(
      written.slices
        .flat()
        .flatMap((s) => [s.graph, ...s.blobs])
        .map((b) => b.sha256),
    );
    expect(new Set(files)).toEqual(named);
    for (const blob of written.slices.flat().flatMap((s) => [s.graph, ...s.blobs])) {
      expect((await stat(join(written.directory, blob.sha256))).size).toBe(blob.sizeBytes);
    }
  });

  it('need every wire: zeroing any one changes the output', async () => {
    const m = await squeeze();
    const list: Spec[] = [
      [0, 4, 'rows', 2],
      [4, 12, 'rows', 2],
    ];
    const written = await expectSame(m, list);
    const inputs = randomInputs(m.inputs, 5);
    const output = async (zeroWire?: number) => {
      const run = await runPartition(written, engine, inputs, zeroWire === undefined ? {} : { zeroWire });
      return Object.values(run.outputs).flatMap(numbers);
    };
    const want = await output();
    const largest = Math.max(...want.map(Math.abs));
    for (const i of written.partition.wires.keys()) {
      const got = await output(i);
      const diff = Math.max(...want.map((v, k) => Math.abs(v - (got[k] ?? 0))));
      expect(diff / largest, `wire ${i}`).toBeGreaterThan(1e-3);
    }
  });
});
