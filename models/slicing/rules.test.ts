/**
 * Every rule against the whole model on the real engine: small random graphs, cut in every way that applies, even and uneven, and compared.
 * A refusal where a cut should apply is a failure; so is a dead output. Long because it is a table: one entry per operator and variant.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { AttributeValue } from '../onnx/attributes.js';
import { GraphBuilder } from '../onnx/build.js';
import { compare, modelOf, randomWeight, removeFixtures, type Spec } from './fixture.js';
import type { CutKind } from './partition.js';

const SHARES: readonly (number | readonly number[])[] = [2, 3, 5, [3, 2, 1]];
let engine: Engine;
let worst = 0;

beforeAll(async () => {
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  console.log(`largest relative difference of all rules: ${worst}`);
  await engine.dispose();
  await removeFixtures();
});

/** Builds a graph and cuts all of it as one stage in each of the ways. */
async function agrees(build: (g: GraphBuilder) => string | readonly string[], cuts: readonly CutKind[], opset = 17): Promise<void> {
  await agreesInStages(build, (nodes, cut, shares) => [[0, nodes, cut, shares]], cuts, opset);
}

async function agreesInStages(
  build: (g: GraphBuilder) => string | readonly string[],
  stages: (nodes: number, cut: CutKind, shares: number | readonly number[]) => readonly Spec[],
  cuts: readonly CutKind[],
  opset = 17,
): Promise<void> {
  const g = new GraphBuilder({ opset });
  for (const name of [build(g)].flat()) g.output(name);
  const model = await modelOf(g, engine);
  for (const cut of cuts) {
    for (const shares of SHARES) {
      const result = await compare(model, stages(model.nodes.length, cut, shares), engine);
      expect(result.spread, 'the output must vary').toBeGreaterThan(0.01);
      expect(result.written.slices.flat().length, `${cut} ${shares}`).toBeGreaterThan(1);
      expect(result.maxRelDiff, `${cut} ${shares}`).toBeLessThanOrEqual(1e-5);
      worst = Math.max(worst, result.maxRelDiff);
    }
  }
}

const SPATIAL: readonly CutKind[] = ['rows', 'columns'];
const ALL: readonly CutKind[] = ['rows', 'columns', 'channels'];
type Attributes = Record<string, AttributeValue>;

function conv(g: GraphBuilder, x: string, weights: readonly number[], attributes: Attributes = {}, bias = true, op = 'Conv'): string {
  const out = op === 'Conv' ? (weights[0] ?? 1) : (weights[1] ?? 1) * Number(attributes.group ?? 1);
  const stem = `w${weights.join('_')}_${JSON.stringify(attributes).length}`;
  const names = [x, randomWeight(g, stem, weights), ...(bias ? [randomWeight(g, `${stem}b`, [out])] : [])];
  return g.node1(op, names, attributes);
}

describe('Conv', () => {
  const cases: [string, readonly number[], Attributes][] = [
    ['with pads', [6, 4, 3, 3], { pads: [1, 1, 1, 1] }],
    ['with stride 2 and odd sizes', [6, 4, 3, 3], { strides: [2, 2], pads: [1, 1, 1, 1] }],
    ['with stride 3 and a kernel of 1', [6, 4, 1, 1], { strides: [3, 3] }],
    ['with dilation', [6, 4, 3, 3], { dilations: [2, 3], pads: [2, 3, 2, 3] }],
    ['with asymmetric pads', [6, 4, 3, 5], { pads: [0, 3, 2, 1], strides: [2, 1] }],
    ['with pads larger than its reach', [6, 4, 1, 1], { pads: [2, 1, 1, 2] }],
    ['with auto_pad SAME_UPPER', [6, 4, 4, 3], { auto_pad: 'SAME_UPPER', strides: [2, 2] }],
    ['with auto_pad SAME_LOWER', [6, 4, 4, 2], { auto_pad: 'SAME_LOWER', strides: [2, 1] }],
    ['with auto_pad VALID', [6, 4, 3, 3], { auto_pad: 'VALID' }],
    ['in groups', [9, 2, 3, 3], { group: 2, pads: [1, 1, 1, 1] }],
    ['depthwise', [4, 1, 3, 3], { group: 4, pads: [1, 1, 1, 1] }],
    ['depthwise with a multiplier', [12, 1, 3, 3], { group: 4, pads: [1, 1, 1, 1] }],
  ];
  for (const [what, weights, attributes] of cases) {
    it(`${what} is the same in rows, columns and channels`, async () => {
      const group = Number(attributes.group ?? 1);
      const w = group === 2 ? [10, 2, 3, 3] : weights;
      await agrees((g) => conv(g, g.input('x', 'float32', [1, 4, 15, 17]), w, attributes), ALL);
    });
  }

  it('over one axis is cut by rows and channels', async () => {
    await agrees((g) => conv(g, g.input('x', 'float32', [2, 4, 23]), [6, 4, 3], { pads: [1, 1] }), ['rows', 'channels']);
  });

  it('in groups with grouped followers rides along by channels', async () => {
    await agrees((g) => {
      const x = conv(g, g.input('x', 'float32', [1, 4, 9, 9]), [12, 4, 1, 1]);
      const y = conv(g, g.node1('Relu', [x]), [12, 1, 3, 3], { group: 12, pads: [1, 1, 1, 1] });
      return conv(g, y, [18, 2, 3, 3], { group: 6, pads: [1, 1, 1, 1] });
    }, ALL);
  });
});

describe('ConvTranspose', () => {
  const cases: [string, readonly number[], Attributes][] = [
    ['of 2x2 stride 2', [4, 6, 2, 2], { strides: [2, 2] }],
    ['with pads and output_padding', [4, 6, 3, 3], { strides: [2, 2], pads: [1, 1, 1, 1], output_padding: [1, 1] }],
    ['with dilation', [4, 6, 3, 2], { strides: [2, 3], dilations: [2, 2], pads: [1, 0, 2, 1] }],
    ['with a stride larger than its kernel', [4, 6, 2, 2], { strides: [3, 4] }],
    ['with auto_pad SAME_UPPER', [4, 6, 3, 3], { strides: [2, 2], auto_pad: 'SAME_UPPER' }],
    ['with output_shape', [4, 6, 3, 3], { strides: [2, 2], output_shape: [14, 19] }],
    ['with an output_shape beyond its size', [4, 6, 3, 3], { strides: [3, 2], output_shape: [22, 20] }],
    ['in groups', [4, 3, 3, 3], { group: 2, strides: [2, 2], pads: [1, 1, 1, 1] }],
  ];
  for (const [what, weights, attributes] of cases) {
    it(`${what} is the same in rows, columns and channels`, async () => {
      await agrees((g) => conv(g, g.input('x', 'float32', [1, 4, 7, 9]), weights, attributes, true, 'ConvTranspose'), ALL);
    });
  }
});

describe('pools', () => {
  const cases: [string, string, Attributes][] = [
    ['MaxPool overlapping', 'MaxPool', { kernel_shape: [3, 3], strides: [2, 2] }],
    ['MaxPool with pads', 'MaxPool', { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }],
    ['MaxPool with ceil_mode', 'MaxPool', { kernel_shape: [3, 2], strides: [2, 2], ceil_mode: 1 }],
    ['MaxPool with ceil_mode and pads', 'MaxPool', { kernel_shape: [3, 3], strides: [2, 3], pads: [1, 0, 0, 1], ceil_mode: 1 }],
    ['MaxPool with dilation', 'MaxPool', { kernel_shape: [2, 3], dilations: [2, 2], strides: [1, 2] }],
    ['AveragePool', 'AveragePool', { kernel_shape: [2, 2], strides: [2, 2] }],
    ['AveragePool of real elements', 'AveragePool', { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] }],
    ['AveragePool that counts pads', 'AveragePool', { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], count_include_pad: 1 }],
    ['AveragePool with ceil_mode', 'AveragePool', { kernel_shape: [3, 2], strides: [2, 2], ceil_mode: 1 }],
    ['AveragePool with auto_pad', 'AveragePool', { kernel_shape: [3, 3], strides: [2, 2], auto_pad: 'SAME_UPPER' }],
    ['LpPool', 'LpPool', { kernel_shape: [2, 2], strides: [1, 2], p: 2 }],
  ];
  for (const [what, op, attributes] of cases) {
    it(`${what} is the same in rows, columns and channels`, async () => {
      await agrees((g) => g.node1(op, [g.input('x', 'float32', [1, 6, 16, 15])], attributes), ALL);
    });
  }

  it('an average that counts pads and hangs over the border is refused in rows, with the reason', async () => {
    const pool = { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1], ceil_mode: 1, count_include_pad: 1 };
    const build = (g: GraphBuilder) => g.node1('AveragePool', [g.input('x', 'float32', [1, 6, 14, 14])], pool);
    await expect(agrees(build, ['rows'], 19)).rejects.toThrow(/AveragePool.*ceil_mode/);
    await agrees(build, ['channels'], 19);
  });

  for (const op of ['GlobalAveragePool', 'GlobalMaxPool', 'ReduceMean', 'ReduceSum', 'ReduceMax', 'ReduceMin', 'ReduceL1']) {
    it(`${op} over the band makes partials that the next stage merges`, async () => {
      const attributes: Attributes = op.startsWith('Global') || op === 'ReduceSum' ? {} : { axes: [2, 3] };
      await agreesInStages(
        (g) => {
          const x = conv(g, g.input('x', 'float32', [1, 4, 13, 11]), [6, 4, 3, 3]);
          const inputs = op === 'ReduceSum' ? [x, g.ints('axes', [2, 3])] : [x];
          return g.node1('Neg', [g.node1(op, inputs, attributes)]);
        },
        (_, cut, shares) => [
          [0, 2, cut, shares],
          [2, 3, 'whole', 1],
        ],
        SPATIAL,
      );
      await agrees(
        (g) => g.node1(op, [g.input('x', 'float32', [1, 6, 9, 9]), ...(op === 'ReduceSum' ? [g.ints('axes', [2, 3])] : [])], attributes),
        ['channels'],
      );
    });
  }
});

describe('normalisations', () => {
  const vector = (g: GraphBuilder, name: string, positive = false) => {
    const values = Array.from({ length: 6 }, (_, i) => (positive ? 0.5 + 0.1 * i : Math.sin(i + name.length)));
    return g.floats(name, values);
  };
  it('BatchNormalization has its parameters sliced', async () => {
    await agrees((g) => {
      const x = g.input('x', 'float32', [1, 6, 7, 9]);
      return g.node1('BatchNormalization', [x, vector(g, 's'), vector(g, 'bb'), vector(g, 'mmm'), vector(g, 'v', true)]);
    }, ALL);
  });
  it('LRN takes neighbouring channels along', async () => {
    for (const size of [3, 5]) {
      await agrees(
        (g) => g.node1('LRN', [g.input('x', 'float32', [1, 6, 7, 9])], { size, alpha: { float: 2 }, beta: 0.75, bias: { float: 1 } }),
        ALL,
      );
    }
  });
  it('InstanceNormalization is cut by channels and refused by rows', async () => {
    const build = (g: GraphBuilder) =>
      g.node1('InstanceNormalization', [g.input('x', 'float32', [1, 6, 7, 9]), vector(g, 's'), vector(g, 'bb')]);
    await agrees(build, ['channels']);
    await expect(agrees(build, ['rows'])).rejects.toThrow(/normalises over the band/);
  });
  it('PRelu has its slope sliced', async () => {
    await agrees((g) => g.node1('PRelu', [g.input('x', 'float32', [1, 6, 7, 9]), randomWeight(g, 'slope', [6, 1, 1], 1)]), ALL);
  });
  it('LayerNormalization and Softmax are cut along other axes', async () => {
    await agrees(
      (g) => {
        const x = g.input('x', 'float32', [1, 6, 7, 9]);
        return g.node1('Softmax', [g.node1('LayerNormalization', [x, randomWeight(g, 's', [9], 1)], { axis: 3 })], { axis: 3 });
      },
      ['rows', 'channels'],
    );
    await agrees((g) => g.node1('Softmax', [g.input('x', 'float32', [1, 6, 7, 9])], { axis: 1 }), SPATIAL);
    await expect(agrees((g) => g.node1('Softmax', [g.input('x', 'float32', [1, 6, 7, 9])], { axis: 2 }), ['rows'])).rejects.toThrow(
      /over the band/,
    );
  });
});

describe('element-wise operators', () => {
  it('broadcast rows, channels and scalars', async () => {
    await agrees((g) => {
      const x = g.input('x', 'float32', [1, 6, 7, 9]);
      const y = g.node1('Add', [x, randomWeight(g, 'position', [7, 9], 1)]);
      const z = g.node1('Mul', [y, randomWeight(g, 'scale', [6, 1, 1], 1)]);
      const mask = g.node1('Greater', [z, g.floats('zero', [0], [])]);
      return g.node1('Where', [mask, z, g.input('other', 'float32', [1, 1, 7, 1])]);
    }, ALL);
  });
  it('with parameters keep them', async () => {
    await agrees((g) => {
      const x = g.input('x', 'float32', [1, 6, 7, 9]);
      let y = g.node1('LeakyRelu', [x], { alpha: 0.3 });
      y = g.node1('HardSwish', [g.node1('HardSigmoid', [y], { alpha: 0.4, beta: 0.3 })]);
      y = g.node1('Elu', [g.node1('Tanh', [g.node1('Softplus', [y])])], { alpha: 0.7 });
      y = g.node1('Clip', [y, g.floats('low', [0.3], []), g.floats('high', [0.6], [])]);
      return g.node1('Sum', [g.node1('Dropout', [y]), g.node1('Sqrt', [g.node1('Exp', [x])]), x]);
    }, ALL);
  });
  it('carry other types across cuts', async () => {
    await agreesInStages(
      (g) => {
        const x = g.input('x', 'uint8', [1, 6, 7, 9]);
        const f = g.node1('Cast', [x], { to: 1 });
        const b = g.node1('Greater', [f, g.floats('half', [128], [])]);
        return [g.node1('Cast', [g.node1('Not', [b])], { to: 7 }), g.node1('Not', [b])];
      },
      (nodes, cut, shares) => [
        [0, 2, cut, shares],
        [2, nodes, cut, shares],
      ],
      ALL,
    );
  });
});

describe('moving data', () => {
  it('Concat, Split and Slice on channels shift; on other axes they keep the band', async () => {
    for (const axis of [1, 2, 3]) {
      await agrees(
        (g) => {
          const x = g.input('x', 'float32', [1, 8, 12, 10]);
          const [a, b = ''] = g.node(
            'Split',
            [x, g.ints('split', axis === 2 ? [5, 7] : [3, axis === 1 ? 5 : 7])],
            { axis },
            { outputs: 2 },
          );
          const c = g.node1('Concat', [b, g.node1('Neg', [a]), g.node1('Relu', [x])], { axis });
          return g.node1(
            'Slice',
            [
              c,
              g.ints('starts', [2, -18]),
              g.ints('ends', [1000, -1]),
              g.ints('axes', [axis, axis === 3 ? 2 : -1]),
              g.ints('steps', [3, 2]),
            ].slice(0, 5),
          );
        },
        ALL.filter((_, i) => i !== 3),
      );
    }
  });
  it('Pad of constants and edges reaches over the true border only', async () => {
    for (const mode of ['constant', 'edge']) {
      await agrees((g) => {
        const x = g.input('x', 'float32', [1, 6, 7, 9]);
        return g.node1('Pad', [x, g.ints('pads', [0, 1, 2, 1, 0, 0, 3, -2]), g.floats('value', [0.5], [])], { mode });
      }, ALL);
    }
  });
  it('Pad by reflection is refused on its axis and cut on others', async () => {
    const build = (g: GraphBuilder) =>
      g.node1('Pad', [g.input('x', 'float32', [1, 6, 7, 9]), g.ints('pads', [0, 0, 2, 0, 0, 0, 2, 0])], { mode: 'reflect' });
    await agrees(build, ['columns', 'channels']);
    await expect(agrees(build, ['rows'])).rejects.toThrow(/reflect/);
  });
  it('Transpose moves the axis: a uint8 image [1, H, W, 3] is banded before the network sees it', async () => {
    await agrees((g) => {
      const x = g.node1('Cast', [g.input('image', 'uint8', [1, 16, 14, 3])], { to: 1 });
      const y = g.node1('Mul', [g.node1('Transpose', [x], { perm: [0, 3, 1, 2] }), g.floats('scale', [0.01, 0.02, 0.03], [3, 1, 1])]);
      return g.node1('Transpose', [conv(g, y, [5, 3, 3, 3], { pads: [1, 1, 1, 1] })], { perm: [0, 2, 3, 1] });
    }, SPATIAL);
  });
  it('Reshape, Squeeze and Unsqueeze keep an axis that survives', async () => {
    await agrees((g) => {
      const x = conv(g, g.input('x', 'float32', [1, 4, 10, 6]), [6, 4, 1, 1]);
      const y = g.node1('Reshape', [g.node1('Squeeze', [x, g.ints('axes', [0])]), g.ints('shape', [1, 2, 3, 10, 6])]);
      const z = g.node1('Reshape', [y, g.ints('back', [6, 10, 6])]);
      return g.node1('Unsqueeze', [z, g.ints('axes1', [0])]);
    }, SPATIAL);
    await agrees(
      (g) => {
        const x = conv(g, g.input('x', 'float32', [1, 4, 10, 6]), [6, 4, 1, 1]);
        return g.node1('Flatten', [g.node1('Unsqueeze', [g.node1('Squeeze', [x, g.ints('axes', [0])]), g.ints('axes1', [0])])]);
      },
      ['channels'],
    );
  });
  it('Gather, Expand, Tile and CumSum keep other axes', async () => {
    await agrees(
      (g) => {
        const x = g.input('x', 'float32', [1, 6, 7, 9]);
        const y = g.node1('Gather', [x, g.ints('indices', [3, 1, 0, 7, 7])], { axis: 3 });
        const z = g.node1('CumSum', [g.node1('Tile', [y, g.ints('repeats', [1, 1, 1, 2])]), g.ints('axis', [3], [])]);
        return g.node1('Expand', [z, g.ints('shape', [2, 6, 7, 10])]);
      },
      ['rows', 'channels'],
    );
  });
  it('DepthToSpace and SpaceToDepth keep rows and columns', async () => {
    await agrees((g) => g.node1('DepthToSpace', [g.input('x', 'float32', [1, 8, 5, 7])], { blocksize: 2, mode: 'CRD' }), SPATIAL);
    await agrees((g) => g.node1('SpaceToDepth', [g.input('x', 'float32', [1, 3, 12, 14])], { blocksize: 2 }), SPATIAL);
  });
  it('ArgMax along another axis keeps the band', async () => {
    await agrees((g) => g.node1('ArgMax', [g.input('x', 'float32', [1, 6, 7, 9])], { axis: 1, keepdims: 0 }), ['rows']);
    await agrees((g) => g.node1('ReduceL2', [g.input('x', 'float32', [1, 6, 7, 9])], { axes: [1] }), SPATIAL);
  });
});

describe('Resize', () => {
  const modes = ['nearest', 'linear', 'cubic'] as const;
  const coordinates = ['asymmetric', 'half_pixel', 'pytorch_half_pixel', 'half_pixel_symmetric'];
  for (const mode of modes) {
    it(`${mode} by scales up and down is the same in bands, in every coordinate mode that can be`, async () => {
      for (const coordinate_transformation_mode of coordinates) {
        for (const scale of [2, 3, 1.5, 0.5]) {
          if (mode === 'cubic' && scale < 1) continue;
          await agrees(
            (g) => {
              const scales = g.floats('scales', [1, 1, scale, 2]);
              return g.node1('Resize', [g.input('x', 'float32', [1, 4, 12, 9]), '', scales], { mode, coordinate_transformation_mode });
            },
            scale === 2 ? ALL : ['rows'],
          );
        }
      }
    }, 60_000);
  }
  it('by sizes keeps the ratio exactly', async () => {
    for (const mode of modes) {
      await agrees((g) => {
        const sizes = g.ints('sizes', [1, 4, 28, 18]);
        return g.node1('Resize', [g.input('x', 'float32', [1, 4, 12, 9]), '', '', sizes], { mode });
      }, ALL);
    }
  });
  it('with nearest_mode floor is the upsampling of feature pyramids', async () => {
    await agrees((g) => {
      const scales = g.floats('scales', [1, 1, 2, 2]);
      const attributes = { mode: 'nearest', nearest_mode: 'floor', coordinate_transformation_mode: 'asymmetric' };
      return g.node1('Resize', [g.input('x', 'float32', [1, 4, 11, 9]), '', scales], attributes);
    }, ALL);
  });
  it('with align_corners depends on the whole and is refused in rows', async () => {
    const build = (g: GraphBuilder) => {
      const scales = g.floats('scales', [1, 1, 2, 2]);
      return g.node1('Resize', [g.input('x', 'float32', [1, 4, 11, 9]), '', scales], {
        mode: 'linear',
        coordinate_transformation_mode: 'align_corners',
      });
    };
    await expect(agrees(build, ['rows'])).rejects.toThrow(/align_corners/);
    await agrees(build, ['channels']);
  });
});

describe('matrices', () => {
  it('Gemm by columns, both ways round, with and without bias', async () => {
    for (const transB of [0, 1]) {
      for (const bias of [[20], [1], [3, 20], undefined]) {
        await agrees(
          (g) => {
            const w = randomWeight(g, 'w', transB === 1 ? [20, 12] : [12, 20], 0.5);
            const inputs = [g.input('x', 'float32', [3, 12]), w, ...(bias === undefined ? [] : [randomWeight(g, 'b', bias, 1)])];
            return g.node1('Tanh', [g.node1('Gemm', inputs, { transB, alpha: 0.5, beta: { float: 2 } })]);
          },
          ['channels'],
        );
      }
    }
  });
  it('MatMul with constant weights, batched, with followers on the last axis', async () => {
    await agrees(
      (g) => {
        const x = g.node1('MatMul', [g.input('x', 'float32', [2, 5, 8]), randomWeight(g, 'w', [8, 12], 0.5)]);
        return g.node1('Relu', [g.node1('Add', [x, randomWeight(g, 'b', [12], 1)])]);
      },
      ['channels'],
    );
  });
  it('attention heads ride along channels through Reshape, Transpose, MatMul and Softmax', async () => {
    await agrees(
      (g) => {
        const x = g.input('x', 'float32', [1, 7, 24]);
        const heads = (name: string, perm: number[]) => {
          const y = g.node1('MatMul', [x, randomWeight(g, name, [24, 24], 0.5)]);
          return g.node1('Transpose', [g.node1('Reshape', [y, g.ints(`${name}s`, [1, 7, 6, 4])])], { perm });
        };
        const scores = g.node1('Softmax', [g.node1('MatMul', [heads('q', [0, 2, 1, 3]), heads('k', [0, 2, 3, 1])])], { axis: -1 });
        const out = g.node1('MatMul', [scores, heads('v', [0, 2, 1, 3])]);
        return g.node1('Reshape', [g.node1('Transpose', [out], { perm: [0, 2, 1, 3] }), g.ints('back', [1, 7, 24])]);
      },
      ['channels'],
    );
  });
});

describe('partial sums', () => {
  const head = (_: number, cut: CutKind, shares: number | readonly number[], nodes: number): readonly Spec[] => [
    [0, nodes, cut, shares],
    [nodes, nodes + 1, 'whole', 1],
  ];
  it('of a Conv over its input channels, with a channel-wise prefix', async () => {
    await agreesInStages(
      (g) => {
        const x = g.node1('Relu', [g.input('x', 'float32', [1, 7, 9, 9])]);
        return g.node1('Relu', [conv(g, g.node1('MaxPool', [x], { kernel_shape: [2, 2] }), [6, 7, 3, 3])]);
      },
      (n, cut, shares) => head(n, cut, shares, 3),
      ['inputs'],
    );
  });
  it('of a ConvTranspose, Gemm and MatMul', async () => {
    await agreesInStages(
      (g) => g.node1('Relu', [conv(g, g.input('x', 'float32', [1, 7, 9, 9]), [7, 6, 3, 3], { strides: [2, 2] }, true, 'ConvTranspose')]),
      (n, cut, shares) => head(n, cut, shares, 1),
      ['inputs'],
    );
    for (const opset of [9, 17]) {
      await agreesInStages(
        (g) => {
          const x = g.node1('Flatten', [g.input('x', 'float32', [2, 7, 3, 3])]);
          return g.node1('Relu', [g.node1('Gemm', [x, randomWeight(g, 'w', [63, 8], 0.5), randomWeight(g, 'b', [8], 3)])]);
        },
        (n, cut, shares) => head(n, cut, shares, 2),
        ['inputs'],
        opset,
      );
    }
    await agreesInStages(
      (g) => g.node1('Relu', [g.node1('MatMul', [g.input('x', 'float32', [2, 5, 11]), randomWeight(g, 'w', [11, 8], 0.5)])]),
      (n, cut, shares) => head(n, cut, shares, 1),
      ['inputs'],
    );
  });
  it('of a convolution in groups are refused with the reason', async () => {
    await expect(
      agrees((g) => g.node1('Relu', [conv(g, g.input('x', 'float32', [1, 4, 9, 9]), [6, 2, 3, 3], { group: 2 })]), ['inputs']),
    ).rejects.toThrow(/cannot be cut by inputs/);
  });
  it('of a pair need one exchange for two layers, with channel-wise followers between', async () => {
    await agreesInStages(
      (g) => {
        let y = conv(g, g.input('x', 'float32', [1, 4, 9, 9]), [10, 4, 1, 1]);
        y = conv(g, g.node1('Relu', [y]), [10, 1, 3, 3], { group: 10, pads: [1, 1, 1, 1] });
        y = g.node1('HardSwish', [y]);
        return g.node1('Relu', [conv(g, y, [6, 10, 1, 1])]);
      },
      (n, cut, shares) => head(n, cut, shares, 5),
      ['pair'],
    );
    await agreesInStages(
      (g) => {
        const x = g.input('x', 'float32', [3, 12]);
        const y = g.node1('Relu', [g.node1('Gemm', [x, randomWeight(g, 'w', [12, 20], 0.5), randomWeight(g, 'b', [20], 1)])]);
        return g.node1('Relu', [g.node1('Gemm', [y, randomWeight(g, 'v', [9, 20], 0.5), randomWeight(g, 'c', [9], 1)], { transB: 1 })]);
      },
      (n, cut, shares) => head(n, cut, shares, 3),
      ['pair'],
    );
  });
  it('of Flatten and Gemm go by bands of rows and columns, with gathered weight columns', async () => {
    await agreesInStages(
      (g) => {
        const x = conv(g, g.input('x', 'float32', [1, 3, 11, 9]), [5, 3, 3, 3]);
        const y = g.node1('Flatten', [g.node1('Relu', [x])]);
        return g.node1('Relu', [g.node1('Gemm', [y, randomWeight(g, 'w', [8, 315], 0.3), randomWeight(g, 'b', [8], 1)], { transB: 1 })]);
      },
      (n, cut, shares) => head(n, cut, shares, 4),
      SPATIAL,
    );
  });
});

describe('older operator sets', () => {
  it('say their parameters as attributes', async () => {
    await agrees(
      (g) => {
        const x = g.input('x', 'float32', [1, 6, 12, 10]);
        const y = g.node1('Pad', [x], { pads: [0, 1, 2, 1, 0, 0, 3, 2], value: 0.5 });
        const z = g.node1('Clip', [g.node1('Slice', [y], { starts: [1, 2], ends: [5, -1], axes: [1, 3] })], { min: -0.4, max: 0.4 });
        return g.node1('Upsample', [z, g.floats('scales', [1, 1, 2, 3])], { mode: 'nearest' });
      },
      ALL,
      9,
    );
    await agrees(
      (g) => g.node1('Resize', [g.input('x', 'float32', [1, 6, 12, 10]), g.floats('s', [1, 1, 2, 3])], { mode: 'linear' }),
      ALL,
      10,
    );
    await agrees((g) => g.node1('Softmax', [g.input('x', 'float32', [6, 6, 12])], { axis: 2 }), ['channels'], 11);
  });
  it('of Resize want a tensor for every parameter', async () => {
    for (const sizes of [false, true]) {
      await agrees(
        (g) => {
          const parameters = sizes ? [g.floats('s', []), g.ints('z', [1, 6, 24, 30])] : [g.floats('s', [1, 1, 2, 3])];
          return g.node1('Resize', [g.input('x', 'float32', [1, 6, 12, 10]), g.floats('roi', []), ...parameters], { mode: 'linear' });
        },
        ALL,
        11,
      );
    }
  });
});

describe('what is not known', () => {
  it('a MatMul with a vector is no reason to stop the walk with an error', async () => {
    const build = (g: GraphBuilder) => g.node1('MatMul', [g.input('x', 'float32', [5, 8]), randomWeight(g, 'v', [8])]);
    await expect(agrees(build, ['inputs'])).rejects.toThrow(/cannot be cut by inputs/);
  });
  it('Dropout in training mode is not taken for its inference', async () => {
    const build = (g: GraphBuilder) => {
      const x = g.input('x', 'float32', [1, 4, 6, 6]);
      return g.node1('Dropout', [x, g.floats('ratio', [0.5], []), g.weight('training', 'bool', [], Uint8Array.of(1))]);
    };
    await expect(agrees(build, ['rows'])).rejects.toThrow(/training/);
  });
  it('runs whole: no rule, no cut', async () => {
    await expect(agrees((g) => g.node1('Det', [g.input('x', 'float32', [3, 4, 3, 3])]), ['rows'])).rejects.toThrow(
      /no rule says how Det is cut/,
    );
  });
});
