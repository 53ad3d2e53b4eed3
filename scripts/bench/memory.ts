/** Anonymous memory of an agent that holds a model, against the bare engine with the same slice and options. File-backed pages can be dropped. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { BareEngine } from './bare.js';
import type { Bench, BenchContext, BenchResult } from './bench.js';
import { type Cluster, onCluster } from './cluster.js';
import { atMost, type Figure, figure } from './figures.js';
import { sliceFiles } from './slices.js';

const MIB_OVER_KIB = 1024;
const EXTRA_MIB = 60;

function statusMib(pid: number, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN) / MIB_OVER_KIB;
}

async function of(model: string, engine: Engine, { testbed, client, zoo, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const [agent] = testbed.agents;
  const file = await zoo(model);
  const pid = agent?.pid ?? 0;
  await deploy({ name: 'net', model: file, planner: 'single' });
  const slices = await sliceFiles(file, 'whole', path.join(testbed.directory, 'slices', model), engine);
  const bare = await BareEngine.start(testbed.addDevice(`bare-${model}`), slices.flat(), { prepack: false });
  const [own, over, alone, files]: [number[], number[], number[], number[]] = [[], [], [], []];
  for (let sample = 0; sample < (quick ? 2 : 8); sample++) {
    await load({ deployment: 'net', frames: 4, inFlight: 2 });
    await bare.run(4);
    const mib = statusMib(pid, 'RssAnon');
    own.push(mib);
    alone.push(bare.anonymousKib / MIB_OVER_KIB);
    over.push(mib - bare.anonymousKib / MIB_OVER_KIB);
    files.push(statusMib(pid, 'RssFile'));
  }
  await bare.stop();
  await client.undeploy('net');
  return [
    figure(`${model}: anonymous memory of the agent above the bare engine's`, 'MiB', over, atMost(EXTRA_MIB)),
    figure(`${model}: anonymous memory of the agent`, 'MiB', own),
    figure(`${model}: anonymous memory of the bare engine`, 'MiB', alone),
    figure(`${model}: file-backed memory of the agent (weights, programs)`, 'MiB', files),
  ];
}

async function run(context: BenchContext): Promise<BenchResult> {
  const engine = await createOnnxRuntimeEngine();
  try {
    return await onCluster(context, { agents: 1 }, async (cluster) => {
      const [agent] = cluster.testbed.agents;
      const figures: Figure[] = [figure('anonymous memory of an agent without a seat', 'MiB', [statusMib(agent?.pid ?? 0, 'RssAnon')])];
      for (const model of context.quick ? ['alexnet'] : ['alexnet', 'vgg16-features', 'vgg16']) {
        context.note(`${model} ...`);
        figures.push(...(await of(model, engine, cluster, context.quick)));
      }
      return { figures, conditions: { weights: 'not prepacked, in both', ...cluster.testbed.conditions } };
    });
  } finally {
    await engine.dispose();
  }
}

export const memory: Bench = { name: 'memory', summary: "an agent's anonymous memory against the bare engine's", run };
