/**
 * Three short measurements of what this machine does: the scheduler's first guess of a device's speed. One convolution, which is limited by arithmetic, and one fully connected
 * layer, which is limited by how fast its weights come from memory: the two ends of the planners' roofline. And a run that computes nearly nothing: what the processor takes for
 * all that goes on around a run.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Tensor } from '../../broker/tensor.js';
import { GraphBuilder } from '../onnx/build.js';
import type { Engine, Session } from './engine.js';

/** Much work for the bytes that go in and out, which are copied meanwhile, by this process and so in its CPU time: with 256 channels that was a fifth of it. */
const CHANNELS = 512;
const SIZE = 28;
const WINDOWS = 3;
/** Several of the periods in which a CPU quota is handed out (10 to 100 ms). */
const WINDOW_MS = 200;
const KERNEL = 3;

/** Neurons that a neuron of the layer reads. */
const NEURONS = 4096;
const NEURON_BYTES = 4 * NEURONS;
/** More than caches hold, and few runs: one takes 4 ms of a server's core, 16 ms of a Raspberry Pi 4. */
const MOST_BYTES = 64 * 2 ** 20;
/** A small device may lend this part of its memory for a moment. */
const MEMORY_PART = 1 / 8;
const MEMORY_WINDOW_MS = 50;

/** Until what runs has been compiled, and in later looks until it is in the caches again. */
const SMALL_WARM_UP = 50;
const SMALL_CACHED = 5;
const SMALL_RUNS = 60;
/** So many of the runs found all that they need in the processor's caches, and nothing else at work. */
const QUIET_PART = 0.1;

export interface Quota {
  /** Cores that a CPU quota leaves this process, 0 = no quota. */
  readonly cpuLimit: number;
  /** Of the engine. */
  readonly threads: number;
}

/** What a device's start-up probe found; 0 = unknown. */
export interface Probed {
  /** Multiply-accumulates per second of one 3x3 convolution. */
  readonly macsPerSecond: number;
  /** Bytes of weights per second that one fully connected layer reads. */
  readonly bytesPerSecond: number;
  /** CPU of one run that computes nearly nothing, ms. */
  readonly smallRunMs: number;
  /** How often a busy thread has its turn under a CPU quota, ms; 0 = there is none. */
  readonly quotaGrainMs: number;
}

export const UNPROBED: Probed = { macsPerSecond: 0, bytesPerSecond: 0, smallRunMs: 0, quotaGrainMs: 0 };

/**
 * Multiply-accumulates per second of one 3x3 convolution, 512 -> 512 channels at 28x28 (1.85 billion MACs), in the best of three windows of 200 ms; the other windows
 * measure what else the machine was doing.
 *
 * `between` is called after each window. Under a quota below the engine's threads it is the CPU time of a run that counts, of which the quota gives so much per second. By the clock a run is as fast as it happens to lie between two pauses, and as slow as whatever else the process does at its start.
 * Errors: as `Engine.load` and `Session.run`.
 */
export async function probeMacsPerSecond(
  engine: Engine,
  quota: Quota = { cpuLimit: 0, threads: 1 },
  between?: () => Promise<void>,
): Promise<number> {
  const graph = new GraphBuilder();
  const weights = Float32Array.from({ length: CHANNELS * CHANNELS * KERNEL * KERNEL }, (_, i) => ((i * 7919) % 1009) / 1009 - 0.5);
  const x = graph.input('x', 'float32', [1, CHANNELS, SIZE, SIZE]);
  const w = graph.weight('w', 'float32', [CHANNELS, CHANNELS, KERNEL, KERNEL], weights);
  graph.output(graph.node1('Conv', [x, w], { pads: [1, 1, 1, 1] }, { outputs: ['y'] }), 'float32', [1, CHANNELS, SIZE, SIZE]);
  const ms = await loaded(engine, graph, async (session) => {
    await session.warmUp();
    // One input for all runs: making it is not what is measured.
    const input = tensor([1, CHANNELS, SIZE, SIZE], floatBytes(CHANNELS * SIZE * SIZE));
    return bestMeanMs(async () => (await session.run({ x: input })).runMs, quota, WINDOW_MS, between);
  });
  return (CHANNELS * CHANNELS * KERNEL * KERNEL * SIZE * SIZE) / (ms / 1000);
}

/**
 * Bytes per second of the weights of one fully connected layer of up to 64 MiB (an eighth of `memoryBytes`, where that is less; 0 = unknown), as a `Gemm` with transposed
 * weights reads them, in the best of three windows of 50 ms; under a quota as above. The weights are one number that the engine expands when it loads the graph: no file of this
 * size is written, and the disk of a small device is spared. Other agents of the same machine that read at the same time take their part of it, here and later.
 * Errors: as `Engine.load` and `Session.run`.
 */
export async function probeBytesPerSecond(engine: Engine, quota: Quota = { cpuLimit: 0, threads: 1 }, memoryBytes = 0): Promise<number> {
  const most = memoryBytes > 0 ? Math.min(MOST_BYTES, memoryBytes * MEMORY_PART) : MOST_BYTES;
  const rows = Math.max(1, Math.floor(most / NEURON_BYTES));
  const graph = new GraphBuilder();
  const x = graph.input('x', 'float32', [1, NEURONS]);
  const w = graph.node1('Expand', [graph.floats('half', [0.5], [1, 1]), graph.ints('shape', [rows, NEURONS])]);
  graph.output(graph.node1('Gemm', [x, w], { transB: 1 }, { outputs: ['y'] }), 'float32', [1, rows]);
  const ms = await loaded(engine, graph, async (session) => {
    await session.warmUp();
    const input = tensor([1, NEURONS], floatBytes(NEURONS));
    return bestMeanMs(async () => (await session.run({ x: input })).runMs, quota, MEMORY_WINDOW_MS);
  });
  return (rows * NEURON_BYTES) / (ms / 1000);
}

/** Looks at small runs from time to time, while others measure something longer. */
export interface SmallRuns {
  /** A few dozen runs: some ms. Errors: as `Session.run`. */
  look(): Promise<void>;
  /** What the quietest look said, ms of CPU; Infinity before the first. */
  readonly ms: number;
}

/**
 * CPU time of one run of eight additions, ms: from this thread to the engine's and back, as a tenth of the runs of the quietest look do not exceed it. It says how fast the
 * processor is at code like the agent's own, so it must not depend on what else the machine does: under a quota each run may follow a pause in which others had the caches, and
 * takes four to ten times the CPU (of 0.09 core: 0.05 ms in the median of one start, 0.44 in that of the next; the tenth 0.034 to 0.070); and agents that start at once on one
 * machine keep each other's from it for seconds, so `use` looks several times. `cpuMs`: CPU time of this process. Errors: as `Engine.load` and `Session.run`.
 */
export async function withSmallRuns<T>(
  engine: Engine,
  use: (runs: SmallRuns) => Promise<T>,
  cpuMs: () => number = processCpuMs,
): Promise<T> {
  const graph = new GraphBuilder();
  const x = graph.input('x', 'float32', [1, 8]);
  graph.output(graph.node1('Add', [x, x], {}, { outputs: ['y'] }), 'float32', [1, 8]);
  return loaded(engine, graph, async (session) => {
    const input = tensor([1, 8], floatBytes(8));
    let least = Number.POSITIVE_INFINITY;
    let isCompiled = false;
    const look = async (): Promise<void> => {
      for (let i = 0; i < (isCompiled ? SMALL_CACHED : SMALL_WARM_UP); i++) await session.run({ x: input });
      isCompiled = true;
      const samples: number[] = [];
      for (let i = 0; i < SMALL_RUNS; i++) {
        const before = cpuMs();
        await session.run({ x: input });
        samples.push(cpuMs() - before);
      }
      least = Math.min(least, quietOf(samples));
    };
    return use({
      look,
      get ms() {
        return least;
      },
    });
  });
}

function quietOf(samples: readonly number[]): number {
  const quiet = samples.toSorted((a, b) => a - b)[Math.floor(QUIET_PART * samples.length)] ?? 0;
  // A clock that counts ticks of milliseconds says nothing of most runs: then all of them together do.
  const mean = samples.reduce((sum, ms) => sum + ms, 0) / samples.length;
  return Math.max(quiet > 0 ? quiet : mean, 0.001);
}

function processCpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

function floatBytes(count: number): Uint8Array {
  return new Uint8Array(new Float32Array(count).fill(0.5).buffer);
}

function tensor(dims: readonly number[], bytes: Uint8Array): Tensor {
  return { dtype: 'float32', dims, bytes };
}

/** Writes the graph into a folder of its own, and loads it for as long as `use` takes. */
async function loaded<T>(engine: Engine, graph: GraphBuilder, use: (session: Session) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'chair-probe-'));
  try {
    const path = join(directory, 'probe.onnx');
    await graph.write(path);
    const session = await engine.load(path);
    try {
      return await use(session);
    } finally {
      await session.dispose();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** `run` resolves to the time inside the engine. */
async function bestMeanMs(
  run: () => Promise<number>,
  { cpuLimit, threads }: Quota,
  windowMs: number,
  between?: () => Promise<void>,
): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let window = 0; window < WINDOWS; window++) {
    const { runMs, cpuMs } = await measured(run, windowMs);
    best = Math.min(best, cpuLimit > 0 && cpuLimit < threads ? cpuMs / cpuLimit : runMs);
    await between?.();
  }
  // A fake engine takes no time at all; a finite answer is still owed.
  return Math.max(best, 0.001);
}

/** Means of one window: a run inside the engine, and the CPU time that the process took for it. */
async function measured(run: () => Promise<number>, windowMs: number): Promise<{ readonly runMs: number; readonly cpuMs: number }> {
  const start = performance.now();
  const cpuBefore = process.cpuUsage();
  let sumMs = 0;
  let runs = 0;
  do {
    sumMs += await run();
    runs++;
  } while (performance.now() - start < windowMs);
  const { user, system } = process.cpuUsage(cpuBefore);
  return { runMs: sumMs / runs, cpuMs: (user + system) / 1000 / runs };
}
