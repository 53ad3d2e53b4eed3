/**
 * One frame at a time through a model cut by rows over N agents, against one device, and against the compute ceiling: the same slices run alone on
 * such a device, the slowest part of each stage counted. What is missing to the ceiling is transport and waiting; what the ceiling is missing to N
 * is the cut itself.
 */
import path from 'node:path';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { Device } from '../testbed/testbed.js';
import { BareEngine } from './bare.js';
import type { Bench, BenchContext, BenchResult } from './bench.js';
import { type Cluster, onCluster } from './cluster.js';
import { atLeast, type Figure, figure, interleaved, median } from './figures.js';
import { sliceFiles } from './slices.js';

/** How much faster than one device, by number of agents. */
const SPEEDUP: Readonly<Record<number, number>> = { 2: 1.8, 4: 3.1, 6: 4.2, 8: 5.0 };
const CEILING_SHARE = 0.85;
/** The bare engine's copy of VGG16 is larger than a device's memory. */
const ROOMY = { ...DEFAULT_DEVICE, memoryBytes: 4 * 2 ** 30 };

/** Median time of each part when it runs alone, per stage: milliseconds. */
async function partTimes(device: Device, model: string, cut: string, directory: string, engine: Engine, runs: number): Promise<number[][]> {
  const slices = await sliceFiles(model, cut, directory, engine);
  const files = [...new Set(slices.flat())];
  // As agents load them: not prepacked.
  const bare = await BareEngine.start(device, files, { prepack: false });
  const times = new Map<string, number>();
  for (const [i, file] of files.entries()) {
    await bare.run(1, i);
    times.set(file, median(await bare.run(runs, i)));
  }
  await bare.stop();
  return slices.map((parts) => parts.map((file) => times.get(file) ?? Number.NaN));
}

interface Setting {
  readonly model: string;
  readonly path: string;
  readonly cut: string;
  readonly agents: number;
  readonly bare: BareEngine;
  readonly ceiling: Device;
  readonly engine: Engine;
}

async function at(s: Setting, { testbed, client, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const directory = path.join(testbed.directory, 'ceiling', s.model, String(s.agents));
  const parts = await partTimes(s.ceiling, s.path, s.cut, directory, s.engine, quick ? 1 : 3);
  const ceilingMs = parts.reduce((sum, stage) => sum + Math.max(...stage), 0);
  const agents = testbed.agents.slice(0, s.agents).map((a) => a.name);
  await deploy({ name: 'net', model: s.path, cut: s.cut, objective: 'latency', agents });
  await load({ deployment: 'net', frames: 2, inFlight: 1 });
  const samples = await interleaved(
    quick ? 2 : 7,
    async () => median((await load({ deployment: 'net', frames: quick ? 1 : 3, inFlight: 1 })).latenciesMs),
    async () => median(await s.bare.run(1)),
  );
  await client.undeploy('net');
  const name = `${s.model}, ${s.cut}`;
  const wanted = SPEEDUP[s.agents];
  return [
    figure(
      `${name}: latency over one device`,
      'x',
      samples.map(({ a, b }) => b / a),
      wanted === undefined ? undefined : atLeast(wanted),
    ),
    figure(
      `${name}: share of the compute ceiling`,
      'x',
      samples.map(({ a }) => ceilingMs / a),
      atLeast(CEILING_SHARE),
    ),
    figure(
      `${name}: compute ceiling over one device`,
      'x',
      samples.map(({ b }) => b / ceilingMs),
    ),
    figure(
      `${name}: latency`,
      'ms',
      samples.map(({ a }) => a),
    ),
    figure(`${name}: stages`, 'stages', [parts.length]),
  ];
}

async function run(context: BenchContext): Promise<BenchResult> {
  const counts = context.quick ? [2] : [2, 4, 6, 8];
  const models = context.quick ? ['vgg16-features'] : ['vgg16-features', 'vgg16'];
  const engine = await createOnnxRuntimeEngine();
  try {
    return await onCluster(context, { agents: Math.max(...counts) }, async (cluster) => {
      const figures: Figure[] = [];
      for (const model of models) {
        const file = await cluster.zoo(model);
        const bare = await BareEngine.start(cluster.testbed.addDevice(`bare-${model}`, ROOMY), [file]);
        await bare.run(1);
        const ceiling = cluster.testbed.addDevice(`ceiling-${model}`, ROOMY);
        figures.push(figure(`${model}: bare engine, one device`, 'ms', await bare.run(context.quick ? 1 : 5)));
        for (const agents of counts) {
          context.note(`${model}, ${agents} agents ...`);
          const setting = { model, path: file, cut: `rows:${agents}`, agents, bare, ceiling, engine };
          figures.push(...(await at(setting, cluster, context.quick)));
        }
        await bare.stop();
      }
      return { figures, conditions: { objective: 'latency', ...cluster.testbed.conditions } };
    });
  } finally {
    await engine.dispose();
  }
}

export const latency: Bench = { name: 'latency', summary: 'one frame at a time, VGG16 cut by rows over 2 to 8 agents', run };
