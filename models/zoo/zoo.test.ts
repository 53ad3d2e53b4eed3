import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { createOnnxRuntimeEngine } from '../engine/onnxruntime.js';
import { randomImage } from '../random.js';
import { buildZoo, drawZoo, ZOO } from './index.js';

describe('the zoo at full size', () => {
  // Parameters: the papers and torchvision's tables (AlexNet with its two groups: 60,965,224, as in Caffe's BVLC reference model).
  it.each([
    ['alexnet', 60_965_224, 724_406_816],
    ['vgg16', 138_357_544, 15_470_264_320],
    ['resnet18', 11_689_512, 1_814_073_344],
    ['mobilenetv2', 3_504_872, 300_774_272],
  ])('%s has %d trainable parameters and %d MACs', (name, params, macs) => {
    const net = drawZoo(name);
    expect(net.params).toBe(params);
    expect(net.macs).toBe(macs);
    expect(net.shapeOf(net.output)).toEqual([1, 1000]);
  });

  it('has the convolutional parts of AlexNet and VGG16 alone', () => {
    expect(drawZoo('alexnet-features').shapeOf(drawZoo('alexnet-features').output)).toEqual([1, 256, 6, 6]);
    expect(drawZoo('vgg16-features').macs).toBe(15_346_630_656);
  });
});

describe('a narrow network of the zoo', () => {
  let folder: string;
  let engine: Engine;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'chair-zoo-'));
    engine = await createOnnxRuntimeEngine({ threads: 1 });
  });
  afterAll(async () => {
    await engine.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  it.each(ZOO)('%s runs, its output differs between images, and it is the same file each time', async (name) => {
    const options = { scale: 0.125, size: name.startsWith('alexnet') ? 99 : 64, classes: 20 };
    const path = join(folder, `${name}.onnx`);
    await buildZoo(name, path, options);
    const first = await readFile(path);
    await buildZoo(name, path, options);
    expect(first.equals(await readFile(path))).toBe(true);
    await buildZoo(name, path, { ...options, seed: 2 });
    expect(first.equals(await readFile(path))).toBe(false);

    const session = await engine.load(path);
    const outputs: Float32Array[] = [];
    for (const seed of [1, 2]) {
      const image = randomImage([1, 3, options.size, options.size], seed);
      const result = await session.run({
        image: { dtype: 'float32', dims: [1, 3, options.size, options.size], bytes: new Uint8Array(image.buffer) },
      });
      const tensor = Object.values(result.outputs)[0];
      if (tensor === undefined) throw new Error('no output');
      outputs.push(new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.byteLength / 4));
    }
    await session.dispose();
    const [a = new Float32Array(), b = new Float32Array()] = outputs;
    const largest = Math.max(...a.map(Math.abs));
    const difference = Math.max(...a.map((v, i) => Math.abs(v - (b[i] ?? 0))));
    expect(Number.isFinite(largest) && largest < 1e3).toBe(true);
    expect(difference / largest, `largest ${largest}, largest difference between two images ${difference}`).toBeGreaterThan(0.05);
  });

  it('holds the weights that it counts', async () => {
    const path = join(folder, 'count.onnx');
    await buildZoo('vgg16', path, { scale: 0.25, size: 32, classes: 10 });
    const { size } = await stat(path);
    const weights = 4 * drawZoo('vgg16', { scale: 0.25, size: 32, classes: 10 }).params;
    expect(size - weights).toBeGreaterThan(0);
    expect(size - weights).toBeLessThan(16_000);
  });
});

describe('wrong requests to the zoo', () => {
  it.each([
    ['lenet', {}, 'MODEL_NOT_FOUND'],
    ['alexnet', { size: 32 }, 'MODEL_SHAPE_INVALID'],
    ['vgg16', { scale: 0 }, 'CONFIG_INVALID'],
    ['vgg16', { size: 2.5 }, 'CONFIG_INVALID'],
    ['vgg16', { classes: 0 }, 'CONFIG_INVALID'],
  ])('%s with %o is refused with %s', (name, options, code) => {
    expect(() => drawZoo(name, options)).toThrow(expect.objectContaining({ code }));
  });
});
