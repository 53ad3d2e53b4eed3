/** A short measurement of what this machine does in one convolution: the scheduler's first guess of a device's speed. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GraphBuilder } from '../onnx/build.js';
import type { Engine, Session } from './engine.js';

const CHANNELS = 64;
const SIZE = 56;
const WINDOWS = 3;
/** Longer than the periods in which a CPU quota is handed out (10 to 100 ms). */
const WINDOW_MS = 100;
const KERNEL = 3;

/**
 * Multiply-accumulates per second of one 3x3 convolution, 64 -> 64 channels at 56x56 (116 million MACs), over about 300 ms.
 * The mean of the best window counts: a single best run would fit inside one period of a CPU quota and not see it; the other windows measure what
 * else the machine was doing. Errors: as `Engine.load` and `Session.run`.
 */
export async function probeMacsPerSecond(engine: Engine): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'chair-probe-'));
  try {
    const path = join(directory, 'probe.onnx');
    const graph = new GraphBuilder();
    const weights = Float32Array.from({ length: CHANNELS * CHANNELS * KERNEL * KERNEL }, (_, i) => ((i * 7919) % 1009) / 1009 - 0.5);
    const x = graph.input('x', 'float32', [1, CHANNELS, SIZE, SIZE]);
    const w = graph.weight('w', 'float32', [CHANNELS, CHANNELS, KERNEL, KERNEL], weights);
    graph.output(graph.node1('Conv', [x, w], { pads: [1, 1, 1, 1] }, { outputs: ['y'] }), 'float32', [1, CHANNELS, SIZE, SIZE]);
    await graph.write(path);
    const session = await engine.load(path);
    try {
      await session.warmUp();
      return (CHANNELS * CHANNELS * KERNEL * KERNEL * SIZE * SIZE) / ((await bestMeanMs(session)) / 1000);
    } finally {
      await session.dispose();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function bestMeanMs(session: Session): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let window = 0; window < WINDOWS; window++) best = Math.min(best, await meanRunMs(session));
  // A fake engine takes no time at all; a finite answer is still owed.
  return Math.max(best, 0.001);
}

async function meanRunMs(session: Session): Promise<number> {
  const start = performance.now();
  let sumMs = 0;
  let runs = 0;
  do {
    const data = new Float32Array(CHANNELS * SIZE * SIZE).fill(0.5);
    const x = { dtype: 'float32' as const, dims: [1, CHANNELS, SIZE, SIZE], bytes: new Uint8Array(data.buffer) };
    sumMs += (await session.run({ x }, { transfer: true })).runMs;
    runs++;
  } while (performance.now() - start < WINDOW_MS);
  return sumMs / runs;
}
