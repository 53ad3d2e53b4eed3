/** Throughput of N equal agents that each hold the whole model, against N times the bare engine on one such device. */
import { BareEngine } from './bare.js';
import type { Bench, BenchContext, BenchResult } from './bench.js';
import { type Cluster, framesPerSecond, onCluster } from './cluster.js';
import { atLeast, type Figure, figure, interleaved } from './figures.js';

const MODEL = 'alexnet';
/** Outstanding frames per agent. */
const PER_AGENT = 4;

async function at(
  n: number,
  bare: BareEngine,
  model: string,
  { testbed, client, deploy, load }: Cluster,
  quick: boolean,
): Promise<Figure[]> {
  const agents = testbed.agents.slice(0, n).map((a) => a.name);
  await deploy({ name: 'net', model, planner: 'replicas', objective: 'throughput', agents });
  const inFlight = PER_AGENT * n;
  await load({ deployment: 'net', frames: inFlight, inFlight });
  const perAgent = quick ? 6 : 16;
  const samples = await interleaved(
    quick ? 2 : 5,
    async () => framesPerSecond(await load({ deployment: 'net', frames: perAgent * n + inFlight, inFlight }), inFlight - 1),
    async () => {
      const ms = await bare.run(perAgent);
      return (1000 * ms.length) / ms.reduce((a, b) => a + b, 0);
    },
  );
  await client.undeploy('net');
  return [
    figure(
      `throughput of ${n} agents over ${n} x the bare engine`,
      'x',
      samples.map(({ a, b }) => a / (n * b)),
      atLeast(0.92),
    ),
    figure(
      `frames per second, ${n} agents`,
      'fps',
      samples.map(({ a }) => a),
    ),
  ];
}

async function run(context: BenchContext): Promise<BenchResult> {
  const counts = context.quick ? [1, 2] : [1, 2, 4, 6, 8];
  return onCluster(context, { agents: Math.max(...counts) }, async (cluster) => {
    const model = await cluster.zoo(MODEL);
    const bare = await BareEngine.start(cluster.testbed.addDevice('bare'), [model]);
    await bare.run(2);
    const figures: Figure[] = [];
    for (const n of counts) {
      context.note(`${n} agents ...`);
      figures.push(...(await at(n, bare, model, cluster, context.quick)));
    }
    return { figures, conditions: { model: MODEL, planner: 'replicas', ...cluster.testbed.conditions } };
  });
}

export const scaling: Bench = { name: 'scaling', summary: 'throughput of 1 to 8 agents against as many bare engines', run };
