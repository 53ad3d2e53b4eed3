/** What the cluster costs beside the engine: one agent against the bare engine, same quota, same threads, in turn. */
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import { BareEngine } from './bare.js';
import type { Bench, BenchContext, BenchResult } from './bench.js';
import { type Cluster, framesPerSecond, onCluster } from './cluster.js';
import { atLeast, atMost, type Figure, figure, interleaved, median } from './figures.js';

const MODEL = 'alexnet';
/** Outstanding frames: one is computed while another one arrives and one leaves. */
const BACK_TO_BACK = 4;
const LIMIT_2_MS = 2;

async function throughput({ testbed, zoo, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const model = await zoo(MODEL);
  const device = testbed.addDevice('bare');
  const natural = await BareEngine.start(device, [model]);
  const alike = await BareEngine.start(testbed.addDevice('bare-alike'), [model], { prepack: false });
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 4, inFlight: 2 });
  await natural.run(2);
  await alike.run(2);
  const frames = quick ? 6 : 16;
  const cluster = async (): Promise<number> =>
    1000 / framesPerSecond(await load({ deployment: 'net', frames: frames + BACK_TO_BACK, inFlight: BACK_TO_BACK }), BACK_TO_BACK - 1);
  const bare = (engine: BareEngine) => async (): Promise<number> => {
    const ms = await engine.run(frames);
    return ms.reduce((a, b) => a + b, 0) / ms.length;
  };
  const pairs = quick ? 2 : 9;
  const against = await interleaved(pairs, cluster, bare(natural));
  const againstAlike = await interleaved(pairs, cluster, bare(alike));
  return [
    figure(
      'throughput of one agent over the bare engine',
      'x',
      against.map(({ a, b }) => b / a),
      atLeast(0.97),
    ),
    figure(
      "the same, bare engine with the agent's options (weights not prepacked)",
      'x',
      againstAlike.map(({ a, b }) => b / a),
    ),
    figure(
      'time per frame, agent',
      'ms',
      [...against, ...againstAlike].map(({ a }) => a),
    ),
    figure(
      'time per frame, bare engine',
      'ms',
      against.map(({ b }) => b),
    ),
    figure(
      "time per frame, bare engine with the agent's options",
      'ms',
      againstAlike.map(({ b }) => b),
    ),
  ];
}

/** One frame at a time, without a CPU limit. */
async function addedLatency({ testbed, zoo, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const model = await zoo(MODEL);
  const bare = await BareEngine.start(testbed.addDevice('bare', { ...DEFAULT_DEVICE, cpu: testbed.conditions.coresOfMachine }), [model], {
    prepack: false,
  });
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 5, inFlight: 1 });
  await bare.run(5);
  const frames = quick ? 5 : 15;
  const samples = await interleaved(
    quick ? 2 : 9,
    async () => median((await load({ deployment: 'net', frames, inFlight: 1 })).latenciesMs),
    async () => median(await bare.run(frames)),
  );
  return [
    figure(
      'latency added, no CPU limit',
      'ms',
      samples.map(({ a, b }) => a - b),
      atMost(LIMIT_2_MS),
    ),
    figure(
      'latency of the bare engine, no CPU limit',
      'ms',
      samples.map(({ b }) => b),
    ),
  ];
}

async function run(context: BenchContext): Promise<BenchResult> {
  context.note('one agent at 0.18 core against the bare engine ...');
  const limited = await onCluster(context, { agents: 1 }, async (cluster) => ({
    figures: await throughput(cluster, context.quick),
    conditions: cluster.testbed.conditions,
  }));
  context.note('one agent without a limit ...');
  const free = { ...DEFAULT_DEVICE, cpu: limited.conditions.coresOfMachine };
  const unlimited = await onCluster(context, { agents: [free] }, (cluster) => addedLatency(cluster, context.quick));
  return { figures: [...limited.figures, ...unlimited], conditions: { model: MODEL, ...limited.conditions } };
}

export const overhead: Bench = { name: 'overhead', summary: 'one agent against the bare engine', run };
