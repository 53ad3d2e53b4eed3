/** Coded stages: whichever one part is missing, the model computes the same. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isChairError } from '../../broker/errors.js';
import { isParity } from '../../broker/parity.js';
import { SINK } from '../../broker/plan.js';
import { boxDims } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import type { AttributeValue } from '../onnx/attributes.js';
import { GraphBuilder } from '../onnx/build.js';
import { coverCoded } from './coded.js';
import { compare as compareOutputs, TOLERANCE } from './compare.js';
import { cutStage, isRefusal, partition } from './cut.js';
import { compare, modelOf, numbers, randomInputs, randomWeight, removeFixtures, type Spec, specs } from './fixture.js';
import { buildProgram, programs } from './random-graph.js';
import { runPartition } from './run.js';
import { type Oracle, openOracle } from './verify.js';
import { writeSlices } from './write.js';

const SEED = Number(process.env.MUSICAL_CHAIR_RANDOM_SEED ?? 20261121);

let engine: Engine;
beforeAll(async () => {
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await removeFixtures();
});

type Attributes = Record<string, AttributeValue>;

async function model(build: (g: GraphBuilder) => string | readonly string[]): Promise<Model> {
  const g = new GraphBuilder();
  for (const name of [build(g)].flat()) g.output(name);
  return modelOf(g, engine);
}

function conv(g: GraphBuilder, x: string, weights: readonly number[], attributes: Attributes = {}, name = ''): string {
  const stem = `w${weights.join('_')}${name}`;
  return g.node1('Conv', [x, randomWeight(g, stem, weights), randomWeight(g, `${stem}b`, [weights[0] ?? 1], 0.5)], attributes);
}

const SAME = { pads: [1, 1, 1, 1] };
const image = (g: GraphBuilder, channels: number) => g.input('x', 'float32', [1, channels, 9, 7]);

/** Runs with all parts, and then without each one in turn (of all coded stages that have it, as when its agent falls). The largest differences. */
async function withoutEach(m: Model, list: readonly Spec[]): Promise<{ all: number; lost: number[] }> {
  const { maxRelDiff, spread } = await compare(m, list, engine);
  expect(spread).toBeGreaterThan(1e-3);
  const parts = Math.max(...partition(m, specs(list)).stages.map((stage) => (stage.spec.redundancy ? stage.parts.length : 0)));
  const lost: number[] = [];
  for (let p = 0; p < parts; p++) {
    const gone = list.flatMap(([, , cut], s) => (cut === 'coded' ? [`${s}/${p}`] : []));
    lost.push((await compare(m, list, engine, 3, gone)).maxRelDiff);
  }
  return { all: maxRelDiff, lost };
}

const LINEAR: readonly [string, (g: GraphBuilder) => string | readonly string[], number][] = [
  ['Conv', (g) => conv(g, image(g, 3), [7, 3, 3, 3], SAME), 1],
  ['Conv without bias', (g) => g.node1('Conv', [image(g, 3), randomWeight(g, 'w', [7, 3, 3, 3])], {}), 1],
  ['Conv of two groups, which parts straddle', (g) => conv(g, image(g, 4), [10, 2, 3, 3], { ...SAME, group: 2 }), 1],
  [
    'ConvTranspose',
    (g) => g.node1('ConvTranspose', [image(g, 3), randomWeight(g, 'w', [3, 7, 2, 2]), randomWeight(g, 'b', [7], 0.5)], { strides: [2, 2] }),
    1,
  ],
  ['Gemm', (g) => g.node1('Gemm', [g.input('x', 'float32', [2, 30]), randomWeight(g, 'w', [30, 11]), randomWeight(g, 'b', [11])], {}), 1],
  [
    'Gemm, transposed and scaled',
    (g) =>
      g.node1('Gemm', [g.input('x', 'float32', [1, 30]), randomWeight(g, 'w', [11, 30]), randomWeight(g, 'b', [1, 11])], {
        transB: 1,
        alpha: { float: 0.5 },
        beta: { float: 3 },
      }),
    1,
  ],
  [
    'MatMul with its bias in an Add',
    (g) =>
      g.node1('Add', [
        randomWeight(g, 'b', [11]),
        g.node1('MatMul', [g.input('x', 'float32', [2, 5, 30]), randomWeight(g, 'w', [30, 11])]),
      ]),
    2,
  ],
  [
    'MatMul, a constant less',
    (g) =>
      g.node1('Sub', [g.node1('MatMul', [g.input('x', 'float32', [5, 30]), randomWeight(g, 'w', [30, 11])]), randomWeight(g, 'b', [11])]),
    2,
  ],
];

describe('a coded stage', () => {
  it.each(LINEAR)('%s: any one part may be missing, also of uneven ones', async (_, build, nodes) => {
    const m = await model((g) => {
      const y = build(g);
      return g.node1('Tanh', [typeof y === 'string' ? y : (y[0] ?? '')]);
    });
    for (const shares of [[1], [1, 1], [4, 1, 2]]) {
      const { all, lost } = await withoutEach(m, [
        [0, nodes, 'coded', shares],
        [nodes, nodes + 1, 'whole', 1],
      ]);
      expect(all).toBeLessThan(1e-6);
      expect(lost).toHaveLength(shares.length + 1);
      for (const difference of lost) expect(difference).toBeLessThan(TOLERANCE / 10);
    }
  });

  it('begins with what every part computes whole: activations and pools of the stage before', async () => {
    const m = await model((g) => {
      const a = g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3], SAME)]);
      const b = g.node1('Relu', [conv(g, g.node1('MaxPool', [a], { kernel_shape: [2, 2], strides: [2, 2] }), [8, 6, 3, 3], SAME)]);
      return g.node1('Gemm', [g.node1('Flatten', [b]), randomWeight(g, 'w', [8 * 4 * 3, 9])]);
    });
    const { all, lost } = await withoutEach(m, [
      [0, 1, 'coded', 3],
      [1, 4, 'coded', 3],
      [4, 7, 'coded', 3],
    ]);
    expect(all).toBeLessThan(1e-6);
    for (const difference of lost) expect(difference).toBeLessThan(TOLERANCE / 10);
  });

  it('brings each consumer one parity beside the parts, and the model its outputs', async () => {
    const m = await model((g) => conv(g, g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3], SAME)]), [5, 6, 3, 3]));
    const cut = partition(
      m,
      specs([
        [0, 1, 'coded', [2, 1]],
        [1, 3, 'coded', [1, 1, 1]],
      ]),
    );
    const codedStages = cut.stages.map((stage) => ({ parts: stage.parts, redundancy: 1 }));
    const parities = cut.wires.filter(({ fromStage, fromPart }) => isParity(codedStages[fromStage], fromPart));
    expect(
      parities.map(({ fromStage, fromPart, toStage, toPart, box }) => [fromStage, fromPart, toStage, toPart, boxDims(box)[1]]),
    ).toEqual([...[0, 1, 2, 3].map((part) => [0, 2, 1, part, 4]), [1, 3, SINK, 0, 2]]);
    expect(cut.stages.map((stage) => stage.partShares)).toEqual([
      [0, 1, 2],
      [0, 1, 2, 3],
    ]);
    const [first] = cut.stages;
    // The parity computes as much as the longest part.
    expect(first?.parts[2]?.macs).toBe(first?.parts[0]?.macs);
    expect(first?.parts[2]?.weightBytes).toBe(first?.parts[0]?.weightBytes);
  });

  it('needs all but one: with two parts missing nothing is made up', async () => {
    const m = await model((g) => g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3], SAME)]));
    const list: Spec[] = [
      [0, 1, 'coded', 2],
      [1, 2, 'whole', 1],
    ];
    const { written } = await compare(m, list, engine);
    const run = runPartition(written, engine, randomInputs(m.inputs, 3), { lost: new Set(['0/0', '0/2']) });
    await expect(run).rejects.toThrow(/stage 0 lacks more/);
  });

  it('shares one slice between a single part and its parity: they are equal', async () => {
    const m = await model((g) => g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3], SAME)]));
    const { written } = await compare(
      m,
      [
        [0, 1, 'coded', 1],
        [1, 2, 'whole', 1],
      ],
      engine,
    );
    expect(new Set(written.slices[0]?.map((slice) => slice.graph.sha256)).size).toBe(1);
  });
});

describe('what cannot be coded is refused with the reason', () => {
  const refusal = (m: Model, spec: Spec): string => {
    const cut = cutStage(m, specs([spec])[0] ?? { nodes: [0, 0], cut: 'whole', shares: [1] });
    return isRefusal(cut) ? cut.reason : '';
  };

  it('a depthwise convolution: its parts have different inputs', async () => {
    const m = await model((g) => conv(g, image(g, 6), [6, 1, 3, 3], { ...SAME, group: 6 }));
    expect(refusal(m, [0, 1, 'coded', 2])).toMatch(/different inputs.*6 groups/);
  });

  it('an activation before the missing part is recovered', async () => {
    const m = await model((g) => g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3])]));
    expect(refusal(m, [0, 2, 'coded', 2])).toMatch(/Relu is not linear: it belongs to the next stage/);
  });

  it('a stage that has nothing to code, or leaves behind what no parity covers', async () => {
    const m = await model((g) => {
      const a = g.node1('Relu', [image(g, 3)]);
      return g.node1('Concat', [a, conv(g, a, [6, 3, 3, 3], SAME)], { axis: 1 });
    });
    expect(refusal(m, [0, 1, 'coded', 2])).toMatch(/no Conv, Gemm or MatMul/);
    expect(refusal(m, [0, 2, 'coded', 2])).toMatch(/needed later, and would be lost/);
  });

  it('a consumer that takes only some of the channels', async () => {
    const m = await model((g) => g.node1('Relu', [conv(g, image(g, 3), [6, 3, 3, 3])]));
    const cut = () =>
      partition(
        m,
        specs([
          [0, 1, 'coded', 2],
          [1, 2, 'channels', 2],
        ]),
      );
    expect(cut).toThrow(/takes only some channels/);
    // By rows it takes all channels: then the parity comes in rows, too.
    const list: Spec[] = [
      [0, 1, 'coded', 2],
      [1, 2, 'rows', 3],
    ];
    for (const difference of (await withoutEach(m, list)).lost) expect(difference).toBeLessThan(TOLERANCE / 10);
  });

  it('another cut than by outputs, and more than one parity', async () => {
    const m = await model((g) => conv(g, image(g, 3), [6, 3, 3, 3]));
    expect(() => cutStage(m, { nodes: [0, 1], cut: 'rows', shares: [1, 1], redundancy: 1 })).toThrow(/rows with redundancy 1/);
    expect(() => cutStage(m, { nodes: [0, 1], cut: 'channels', shares: [1, 1], redundancy: 2 })).toThrow(/redundancy 2/);
  });
});

describe('the error of a recovered part', () => {
  it.each([2, 4, 8])('stays within the bound of rounding for %i parts', async (parts) => {
    const [inputs, outputs] = [200, 64];
    const m = await model((g) => g.node1('Gemm', [g.input('x', 'float32', [1, inputs]), randomWeight(g, 'w', [inputs, outputs])]));
    const list: Spec[] = [[0, 1, 'coded', parts]];
    const { written } = await compare(m, list, engine);
    const given = randomInputs(m.inputs, 3);
    const [x, w] = [given.x === undefined ? [] : numbers(given.x), weights(m)];
    const exact = Array.from({ length: outputs }, (_, c) => x.reduce((sum, v, k) => sum + v * (w[k * outputs + c] ?? 0), 0));
    const magnitude = Array.from({ length: outputs }, (_, c) => x.reduce((sum, v, k) => sum + Math.abs(v * (w[k * outputs + c] ?? 0)), 0));
    const size = outputs / parts;
    let seen = 0;
    for (let p = 0; p < parts; p++) {
      const { outputs: run } = await runPartition(written, engine, given, { lost: new Set([`0/${p}`]) });
      const [y] = Object.values(run).map(numbers);
      for (let c = 0; c < outputs; c++) {
        // Of the part itself and of all that it is recovered from: dot products of `inputs` terms, weights that were added up, one rounding of the difference.
        const unit = (inputs + 2) * 2 ** -24;
        const column = (other: number) => magnitude[other * size + (c % size)] ?? 0;
        const all = Array.from({ length: parts }, (_, other) => column(other)).reduce((a, b) => a + b, 0);
        const bound = Math.floor(c / size) === p ? 2 * unit * all : unit * (magnitude[c] ?? 0);
        const error = Math.abs((y?.[c] ?? Number.NaN) - (exact[c] ?? 0));
        expect(error).toBeLessThanOrEqual(bound);
        if (Math.floor(c / size) === p) seen = Math.max(seen, error / bound);
      }
    }
    expect(seen).toBeGreaterThan(1e-4);
  });

  const weights = (m: Model): number[] => {
    const bytes = m.weights.get('w')?.bytes;
    return bytes?.kind === 'inline' ? [...new Float32Array(bytes.bytes.slice().buffer)] : [];
  };

  it('of random graphs, whatever part of however uneven ones is missing, stays below the tolerance of a cut', {
    timeout: 120_000,
  }, async () => {
    let coded = 0;
    let graph = 0;
    const folder = await mkdtemp(join(tmpdir(), 'chair-coded-'));
    const property = fc.asyncProperty(
      programs(8),
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
      async (program, shares) => {
        const path = join(folder, `${graph++}.onnx`);
        await buildProgram(program).write(path);
        let oracle: Oracle;
        try {
          oracle = await openOracle(path, { engine, directory: folder, seed: program.seed });
        } catch (error) {
          if (isChairError(error, 'ENGINE_LOAD_FAILED')) return;
          throw error;
        }
        const { stages } = coverCoded(oracle.model, shares, 0);
        const codedStages = [...stages.keys()].filter((s) => stages[s]?.redundancy === 1);
        const [sample] = oracle.samples;
        if (codedStages.length === 0 || sample === undefined) return;
        coded++;
        const written = await writeSlices(partition(oracle.model, stages), folder);
        for (let p = 0; p <= shares.length; p++) {
          const { outputs } = await runPartition(written, engine, sample.inputs, { lost: new Set(codedStages.map((s) => `${s}/${p}`)) });
          expect(compareOutputs(sample.expected, outputs).maxRelDiff).toBeLessThan(TOLERANCE);
        }
      },
    );
    try {
      await fc.assert(property, { numRuns: Number(process.env.MUSICAL_CHAIR_RANDOM_RUNS ?? 15), seed: SEED, endOnFailure: true });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    expect(coded).toBeGreaterThan(10);
  });
});
