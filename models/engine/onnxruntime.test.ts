import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BufferPool } from '../../broker/buffers.js';
import { allocTensor, DTYPES, type DType, type Tensor, tensorBytes } from '../../broker/tensor.js';
import { GraphBuilder } from '../onnx/build.js';
import type { Engine } from './engine.js';
import { createOnnxRuntimeEngine, OnnxRuntimeEngine } from './onnxruntime.js';
import { probeBytesPerSecond, probeMacsPerSecond } from './probe.js';

let directory = '';
let engine: Engine;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-engine-'));
  engine = await createOnnxRuntimeEngine({ threads: 1 });
});
afterAll(async () => {
  await engine.dispose();
  await rm(directory, { recursive: true });
});

async function identity(dtype: DType, dims: readonly (number | string)[] = [2, 3]): Promise<string> {
  const graph = new GraphBuilder();
  graph.output(graph.node1('Identity', [graph.input('x', dtype, dims)], {}, { outputs: ['y'] }), dtype, dims);
  const path = join(directory, `identity-${dtype}-${dims.join('x')}.onnx`);
  await graph.write(path);
  return path;
}

/** A chain of matrix products: about `repeat * 2 * 512^3` operations. */
async function slow(repeat: number): Promise<string> {
  const graph = new GraphBuilder();
  let x = graph.input('x', 'float32', [512, 512]);
  const w = graph.weight('w', 'float32', [512, 512], new Float32Array(512 * 512).fill(0.001));
  for (let i = 0; i < repeat; i++) x = graph.node1('MatMul', [x, w]);
  graph.output(x, 'float32', [512, 512]);
  const path = join(directory, `slow-${repeat}.onnx`);
  await graph.write(path);
  return path;
}

const zeros = (dims: readonly number[]): Tensor => allocTensor('float32', dims);

describe('the onnxruntime engine', () => {
  it('passes every dtype through unchanged', async () => {
    for (const dtype of DTYPES) {
      // onnxruntime-node has no bfloat16 tensors.
      if (dtype === 'bfloat16') continue;
      const session = await engine.load(await identity(dtype));
      const bytes = Uint8Array.from({ length: tensorBytes(dtype, [2, 3]) }, (_, i) => (dtype === 'bool' ? i % 2 : (i * 37) % 120));
      const { outputs } = await session.run({ x: { dtype, dims: [2, 3], bytes } });
      expect(outputs.y).toEqual({ dtype, dims: [2, 3], bytes });
      await session.dispose();
    }
  });

  it('refuses bfloat16 with a code', async () => {
    await expect(engine.load(await identity('bfloat16'))).rejects.toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
  });

  it('copies inputs unless they are handed over', async () => {
    const session = await engine.load(await identity('float32'));
    const x = zeros([2, 3]);
    await session.run({ x });
    expect(x.bytes.length).toBe(24);
    await session.run({ x }, { transfer: true });
    expect(x.bytes.length).toBe(0);
    await session.dispose();
  });

  it('does not detach a buffer that it was given only a part of', async () => {
    const session = await engine.load(await identity('float32'));
    const whole = new Uint8Array(48).fill(1);
    const bytes = whole.subarray(24);
    await session.run({ x: { dtype: 'float32', dims: [2, 3], bytes } }, { transfer: true });
    expect(whole.length).toBe(48);
    await session.dispose();
  });

  describe('with a pool of buffers', () => {
    /** y1 = x + 1, y2 = x + 2, y3 = x + 3, and `same` = x. */
    async function sums(): Promise<string> {
      const graph = new GraphBuilder();
      const x = graph.input('x', 'float32', [64, 64]);
      for (const add of [1, 2, 3]) {
        const w = graph.weight(`w${add}`, 'float32', [1], new Float32Array([add]));
        graph.output(graph.node1('Add', [x, w], {}, { outputs: [`y${add}`] }), 'float32', [64, 64]);
      }
      graph.output(graph.node1('Identity', [x], {}, { outputs: ['same'] }), 'float32', [64, 64]);
      const path = join(directory, 'sums.onnx');
      await graph.write(path);
      return path;
    }
    const firstOf = (tensor: Tensor | undefined) => tensor && new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, 1)[0];
    function filled(pool: BufferPool, value: number): Tensor {
      const bytes = pool.take(64 * 64 * 4);
      new Float32Array(bytes.buffer, 0, 64 * 64).fill(value);
      return { dtype: 'float32', dims: [64, 64], bytes };
    }

    it('makes no buffer for a frame after the first ones', async () => {
      const pool = new BufferPool(2 ** 20);
      const session = await engine.load(await sums());
      for (let i = 0; i < 10; i++) {
        const { outputs } = await session.run({ x: filled(pool, i) }, { transfer: true, buffers: pool });
        expect([firstOf(outputs.y1), firstOf(outputs.y2), firstOf(outputs.y3), firstOf(outputs.same)]).toEqual([i + 1, i + 2, i + 3, i]);
        for (const { bytes } of Object.values(outputs)) pool.give(bytes);
      }
      // One input and four outputs.
      expect(pool.made).toBe(5);
      await session.dispose();
    });

    it('names the outputs that were asked for, whichever and in any order', async () => {
      const pool = new BufferPool(2 ** 20);
      const session = await engine.load(await sums());
      for (const names of [['y3'], ['y3', 'y2'], ['same', 'y2'], ['same']]) {
        for (const buffers of [{}, { buffers: pool }]) {
          const { outputs } = await session.run({ x: filled(pool, 0) }, { transfer: true, outputs: names, ...buffers });
          const want = { y1: 1, y2: 2, y3: 3, same: 0 };
          expect(Object.keys(outputs).toSorted()).toEqual(names.toSorted());
          for (const name of names) expect([name, firstOf(outputs[name])]).toEqual([name, want[name as 'y1']]);
        }
      }
      await session.dispose();
    });

    it('serves shapes of different size from the same buffers', async () => {
      const pool = new BufferPool(2 ** 20);
      const [large, small] = [
        await engine.load(await identity('float32', [60, 60])),
        await engine.load(await identity('float32', [50, 50])),
      ];
      for (const [session, size] of [
        [large, 60],
        [small, 50],
        [large, 60],
        [small, 50],
      ] as const) {
        const bytes = pool.take(size * size * 4).fill(size);
        const { outputs } = await session.run({ x: { dtype: 'float32', dims: [size, size], bytes } }, { transfer: true, buffers: pool });
        expect(outputs.y?.bytes).toEqual(new Uint8Array(size * size * 4).fill(size));
        if (outputs.y !== undefined) pool.give(outputs.y.bytes);
      }
      expect(pool.made).toBe(2);
      await Promise.all([large.dispose(), small.dispose()]);
    });

    it('gives every run its own values, however runs of several shapes, outputs and ways of handing over are mixed', async () => {
      const pool = new BufferPool(2 ** 20);
      const graph = new GraphBuilder();
      const n = graph.input('x', 'float32', ['n', 64]);
      for (const add of [1, 2]) {
        const w = graph.weight(`w${add}`, 'float32', [1], new Float32Array([add]));
        graph.output(graph.node1('Add', [n, w], {}, { outputs: [`y${add}`] }), 'float32', ['n', 64]);
      }
      graph.output(graph.node1('Identity', [n], {}, { outputs: ['same'] }), 'float32', ['n', 64]);
      const dynamic = join(directory, 'sums-n.onnx');
      await graph.write(dynamic);
      const sessions = [await engine.load(await sums()), await engine.load(dynamic), await engine.load(await sums())];
      const added = { y1: 1, y2: 2, y3: 3, same: 0 };
      let state = 7;
      const below = (limit: number): number => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        return (state >>> 16) % limit;
      };
      const one = async (value: number): Promise<void> => {
        const which = below(3);
        const session = sessions[which];
        const rows = which === 1 ? [1, 7, 64][below(3)] : 64;
        if (session === undefined || rows === undefined) throw new Error('no such session');
        const names = session.outputs.map((o) => o.name).filter(() => below(2) === 0);
        const [pooled, transfer] = [below(4) > 0, below(4) > 0];
        const bytes = pool.take(rows * 64 * 4);
        new Float32Array(bytes.buffer, 0, rows * 64).fill(value);
        const x: Tensor = { dtype: 'float32', dims: [rows, 64], bytes };
        const wanted = names.length === 0 ? {} : { outputs: names };
        const { outputs } = await session.run({ x }, { transfer, ...wanted, ...(pooled ? { buffers: pool } : {}) });
        expect(Object.keys(outputs)).toHaveLength(names.length === 0 ? session.outputs.length : names.length);
        // Others run meanwhile; what was handed out must stay as it is.
        for (let turns = below(3); turns > 0; turns--) await new Promise(setImmediate);
        for (const [name, tensor] of Object.entries(outputs)) {
          expect(tensor.dims).toEqual([rows, 64]);
          const values = new Float32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, rows * 64);
          expect([name, values.every((v) => v === value + added[name as 'y1'])]).toEqual([name, true]);
          pool.give(tensor.bytes);
        }
        if (!transfer) {
          expect(new Float32Array(bytes.buffer, 0, rows * 64).every((v) => v === value)).toBe(true);
          pool.give(bytes);
        }
      };
      for (let round = 0; round < 60; round++) await Promise.all(Array.from({ length: 5 }, (_, i) => one(round * 10 + i)));
      await Promise.all(sessions.map((session) => session.dispose()));
    });

    it('makes outputs of unknown shape on buffers of their own', async () => {
      const pool = new BufferPool(2 ** 20);
      const session = await engine.load(await identity('float32', ['n', 64]));
      const { outputs } = await session.run({ x: filled(pool, 5) }, { transfer: true, buffers: pool });
      expect([outputs.y?.dims, firstOf(outputs.y)]).toEqual([[64, 64], 5]);
      await session.dispose();
    });
  });

  it('copies Node buffers, which share one pool', async () => {
    const session = await engine.load(await identity('float32'));
    const bytes = Buffer.from(new Uint8Array(24).fill(7));
    for (const transfer of [false, true]) {
      const { outputs } = await session.run({ x: { dtype: 'float32', dims: [2, 3], bytes } }, { transfer });
      expect(outputs.y?.bytes).toEqual(new Uint8Array(24).fill(7));
      expect(bytes.length).toBe(24);
    }
    await session.dispose();
  });

  it('checks names, dtypes, dims and bytes before it runs', async () => {
    const session = await engine.load(await identity('float32', ['n', 3]));
    const x = zeros([2, 3]);
    const invalid = { code: 'ENGINE_INPUT_INVALID' };
    await expect(session.run({})).rejects.toMatchObject(invalid);
    await expect(session.run({ x, z: x })).rejects.toMatchObject(invalid);
    await expect(session.run({ x: zeros([2, 4]) })).rejects.toMatchObject(invalid);
    await expect(session.run({ x: zeros([2, 3, 1]) })).rejects.toMatchObject(invalid);
    await expect(session.run({ x: allocTensor('int32', [2, 3]) })).rejects.toMatchObject(invalid);
    await expect(session.run({ x: { ...x, bytes: new Uint8Array(23) } })).rejects.toMatchObject(invalid);
    await expect(session.run({ x }, { outputs: ['nope'] })).rejects.toMatchObject(invalid);
    // 'n' may be anything.
    expect((await session.run({ x: zeros([7, 3]) })).outputs.y?.dims).toEqual([7, 3]);
    await session.dispose();
  });

  it('tells why a file cannot be loaded', async () => {
    const broken = join(directory, 'broken.onnx');
    await writeFile(broken, 'not a model');
    await expect(engine.load(broken)).rejects.toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
    await expect(engine.load(join(directory, 'missing.onnx'))).rejects.toMatchObject({ code: 'ENGINE_LOAD_FAILED' });
    const graph = new GraphBuilder();
    graph.output(graph.node1('Frobnicate', [graph.input('x', 'float32', [1])]), 'float32', [1]);
    const unknown = join(directory, 'unknown.onnx');
    await graph.write(unknown);
    await expect(engine.load(unknown)).rejects.toMatchObject({
      code: 'ENGINE_LOAD_FAILED',
      message: expect.stringContaining('Frobnicate'),
    });
  });

  it('reports a failing run and goes on', async () => {
    const graph = new GraphBuilder();
    graph.output(
      graph.node1('Reshape', [graph.input('x', 'float32', ['n']), graph.ints('two', [2])], {}, { outputs: ['y'] }),
      'float32',
      [2],
    );
    const path = join(directory, 'reshape.onnx');
    await graph.write(path);
    const session = await engine.load(path);
    await expect(session.run({ x: zeros([3]) })).rejects.toMatchObject({ code: 'ENGINE_RUN_FAILED' });
    expect((await session.run({ x: zeros([2]) })).outputs.y?.dims).toEqual([2]);
    await session.dispose();
    await expect(session.run({ x: zeros([2]) })).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
  });

  it('chooses prepacking by measurement and computes the same', async () => {
    const path = await slow(1);
    const results: Uint8Array[] = [];
    for (const prepack of [false, true, 'auto', 'auto'] as const) {
      const session = await engine.load(path, { prepack });
      const x = zeros([512, 512]);
      new Float32Array(x.bytes.buffer).fill(2);
      results.push(Object.values((await session.run({ x })).outputs)[0]?.bytes ?? new Uint8Array(0));
      await session.dispose();
    }
    const [first = new Uint8Array(0), ...others] = results.map(
      (bytes) => new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4),
    );
    for (const other of others) expect(other.reduce((most, v, i) => Math.max(most, Math.abs(v - (first[i] ?? 0))), 0)).toBeLessThan(1e-4);
    expect(first[0]).toBeCloseTo(2 * 512 * 0.001, 3);
  });

  it('keeps the event loop free while it runs', async () => {
    const session = await engine.load(await slow(30));
    let gapMs = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      gapMs = Math.max(gapMs, performance.now() - last);
      last = performance.now();
    }, 5);
    const { runMs } = await session.run({ x: zeros([512, 512]) });
    clearInterval(timer);
    await session.dispose();
    expect(gapMs).toBeGreaterThan(0);
    expect(gapMs).toBeLessThan(Math.max(runMs / 2, 50));
  });

  it('says what CPU time a run took, of the process and only of the run, where it is asked to', async () => {
    const timed = await createOnnxRuntimeEngine({ threads: 1, cpuTimes: true });
    try {
      const session = await timed.load(await slow(30));
      const before = process.cpuUsage();
      const { cpuMs = 0 } = await session.run({ x: zeros([512, 512]) });
      const { user, system } = process.cpuUsage(before);
      expect(cpuMs).toBeGreaterThan(0);
      expect(cpuMs).toBeLessThanOrEqual((user + system) / 1000);
      const plain = await engine.load(await slow(1));
      expect(await plain.run({ x: zeros([512, 512]) })).not.toHaveProperty('cpuMs');
      await plain.dispose();
    } finally {
      await timed.dispose();
    }
  });

  it('fails what waits when it is disposed, at once and only once', async () => {
    const other = await createOnnxRuntimeEngine({ threads: 1 });
    const session = await other.load(await slow(30));
    const running = [session.run({ x: zeros([512, 512]) }), session.run({ x: zeros([512, 512]) })];
    const settled = Promise.allSettled(running);
    await Promise.all([other.dispose(), other.dispose()]);
    for (const result of await settled) expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ENGINE_CLOSED' } });
    await expect(other.load('any.onnx')).rejects.toMatchObject({ code: 'ENGINE_CLOSED' });
    await session.dispose();
  });

  it('fails everything when its worker dies', async () => {
    const dying = new Worker("require('node:worker_threads').parentPort.once('message', () => { throw new Error('boom'); })", {
      eval: true,
    });
    const other = new OnnxRuntimeEngine(dying, '0', 1);
    const closed = { code: 'ENGINE_CLOSED', message: expect.stringContaining('boom') };
    await expect(other.load('a.onnx')).rejects.toMatchObject(closed);
    await expect(other.load('a.onnx')).rejects.toMatchObject(closed);
    await other.dispose();
  });

  it('lets the process end when it is idle, disposed or not', async () => {
    const script = `
      import { createOnnxRuntimeEngine, OnnxRuntimeEngine } from ${JSON.stringify(new URL('./onnxruntime.ts', import.meta.url).href)};
      await createOnnxRuntimeEngine({ threads: 1 });
      console.log('idle');`;
    const tsx = createRequire(import.meta.url).resolve('tsx');
    const child = spawn(process.execPath, ['--import', pathToFileURL(tsx).href, '--input-type=module', '-e', script], { timeout: 20_000 });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += String(chunk);
    });
    const [code] = await once(child, 'exit');
    expect({ code, output }).toEqual({ code: 0, output: 'idle\n' });
  });

  it('measures a plausible speed', async () => {
    const macs = await probeMacsPerSecond(engine);
    expect(macs).toBeGreaterThan(1e8);
    expect(macs).toBeLessThan(1e13);
    // A layer that reads each weight once is far from computing at that rate: what counts there is memory.
    const bytes = await probeBytesPerSecond(engine, undefined, 2 ** 29);
    expect(bytes).toBeGreaterThan(1e8);
    expect(bytes).toBeLessThan(2 * macs);
  });
});
