/** A short measurement of what this machine does in one convolution: the scheduler's first guess of a device's speed. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GraphBuilder } from '../onnx/build.js';
import type { Engine, Session } from './engine.js';

/** Much work for the bytes that go in and out, which are copied meanwhile. */
const CHANNELS = 256;
const SIZE = 28;
const WINDOWS = 3;
/** Several of the periods in which a CPU quota is handed out (10 to 100 ms). */
const WINDOW_MS = 250;
const KERNEL = 3;

export interface Quota {
  /** Cores that a CPU quota leaves this process, 0 = no quota. */
  readonly cpuLimit: number;
  /** Of the engine. */
  readonly threads: number;
}

/**
 * Multiply-accumulates per second of one 3x3 convolution, 256 -> 256 channels at 28x28 (462 million MACs), in the best of three windows of 250 ms; the other windows
 * measure what else the machine was doing.
 *
 * Under a quota below the engine's threads it is the CPU time of a run that counts, of which the quota gives so much per second. By the clock a run is as fast as it happens to lie between two pauses, and as slow as whatever else the process does at its start.
 * Errors: as `Engine.load` and `Session.run`.
 */
export async function probeMacsPerSecond(engine: Engine, quota: Quota = { cpuLimit: 0, threads: 1 }): Promise<number> {
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
      return (CHANNELS * CHANNELS * KERNEL * KERNEL * SIZE * SIZE) / ((await bestMeanMs(session, quota)) / 1000);
    } finally {
      await session.dispose();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function bestMeanMs(session: Session, { cpuLimit, threads }: Quota): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let window = 0; window < WINDOWS; window++) {
    const { runMs, cpuMs } = await measured(session);
    best = Math.min(best, cpuLimit > 0 && cpuLimit < threads ? cpuMs / cpuLimit : runMs);
  }
  // A fake engine takes no time at all; a finite answer is still owed.
  return Math.max(best, 0.001);
}

/** Means of one window: a run inside the engine, and the CPU time that the process took for it. */
async function measured(session: Session): Promise<{ readonly runMs: number; readonly cpuMs: number }> {
  // One input for all runs: making it is not what is measured.
  const data = new Float32Array(CHANNELS * SIZE * SIZE).fill(0.5);
  const x = { dtype: 'float32' as const, dims: [1, CHANNELS, SIZE, SIZE], bytes: new Uint8Array(data.buffer) };
  const start = performance.now();
  const cpuBefore = process.cpuUsage();
  let sumMs = 0;
  let runs = 0;
  do {
    sumMs += (await session.run({ x })).runMs;
    runs++;
  } while (performance.now() - start < WINDOW_MS);
  const { user, system } = process.cpuUsage(cpuBefore);
  return { runMs: sumMs / runs, cpuMs: (user + system) / 1000 / runs };
}
