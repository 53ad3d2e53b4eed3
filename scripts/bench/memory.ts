/** Anonymous memory of an agent that holds a model, against the bare engine with the same slice and options. File-backed pages can be dropped. */
import { readFileSync } from 'node:fs';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, onCluster } from './cluster.js';
import { atMost, type Figure, figure } from './figures.js';

const MIB_OVER_KIB = 1024;
const EXTRA_MIB = 60;
/** Both copies of VGG16 are in memory while it loads. */
const ROOMY = { ...DEFAULT_DEVICE, memoryBytes: 4 * 2 ** 30 };

function statusMib(pid: number, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN) / MIB_OVER_KIB;
}

async function of(
  model: string,
  { testbed, client, network, deploy, load, bare: start, sliceFile }: Cluster,
  quick: boolean,
): Promise<Figure[]> {
  const [agent] = testbed.agents;
  const pid = agent?.pid ?? 0;
  const { seats } = await deploy({ name: 'net', ...(await network(model)), planner: 'single' });
  const bare = await start(`bare-${model}`, ROOMY, [...new Set(seats.map((seat) => sliceFile(seat.slice)))], { prepack: false });
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

async function run(context: BenchContext): Promise<object> {
  const models = ['alexnet', 'vgg16-features', 'vgg16'];
  return onCluster(context, { agents: 1 }, async (cluster) => {
    const [agent] = cluster.testbed.agents;
    const empty = [statusMib(agent?.pid ?? 0, 'RssAnon')];
    await context.cases([
      { name: 'no seat', run: async () => [figure('anonymous memory of an agent without a seat', 'MiB', empty)] },
      ...models.slice(0, context.quick ? 1 : undefined).map((model) => ({ name: model, run: () => of(model, cluster, context.quick) })),
    ]);
    return { weights: 'not prepacked, in both', ...cluster.testbed.conditions };
  });
}

export const memory: Bench = { name: 'memory', summary: "an agent's anonymous memory against the bare engine's", seconds: 90, run };
