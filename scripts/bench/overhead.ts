/** What the cluster costs beside the engine: one agent against the bare engine, same quota, same threads, in turn. */
import { availableParallelism } from 'node:os';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, framesPerSecond, mean, onCluster } from './cluster.js';
import { atLeast, atMost, type Figure, figure, inTurn, interleaved, median } from './figures.js';
import { usualLimit } from './usage.js';

const MODEL = 'alexnet';
/** Outstanding frames: one is computed while another one arrives and one leaves. */
const BACK_TO_BACK = 4;
const LIMIT_2_MS = 2;
const THROUGHPUT = 'one agent at 0.18 core';
const LATENCY = 'one agent without a CPU limit';

async function throughput({ network, bare, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const { model } = await network(MODEL);
  const natural = await bare('bare', DEFAULT_DEVICE, [model]);
  const alike = await bare('bare-alike', DEFAULT_DEVICE, [model], { prepack: false });
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 4, inFlight: 2 });
  const frames = quick ? 6 : 16;
  const msOf = (engine: BareEngine) => async () => ({ ms: mean(await engine.run(frames)), busy: [] });
  const cluster = async () => {
    const report = await load({ deployment: 'net', frames: frames + BACK_TO_BACK, inFlight: BACK_TO_BACK });
    return { ms: 1000 / framesPerSecond(report, BACK_TO_BACK - 1), busy: report.busy };
  };
  const [agent = [], plain = [], same = []] = await inTurn(quick ? 2 : 7, [cluster, msOf(natural), msOf(alike)]);
  const over = (bare: readonly { ms: number }[]): number[] => bare.map(({ ms }, i) => ms / (agent[i]?.ms ?? Number.NaN));
  const ms = (samples: readonly { ms: number }[]): number[] => samples.map((sample) => sample.ms);
  const limit = usualLimit(agent.map(({ busy }) => busy));
  return [
    figure('throughput of one agent over the bare engine', 'x', over(plain), atLeast(0.97), { limit }),
    figure("the same, bare engine with the agent's options (weights not prepacked)", 'x', over(same)),
    figure('time per frame, agent', 'ms', ms(agent)),
    figure('time per frame, bare engine', 'ms', ms(plain)),
    figure("time per frame, bare engine with the agent's options", 'ms', ms(same)),
  ];
}

/** One frame at a time, without a CPU limit. */
async function addedLatency({ testbed, network, bare, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const { model } = await network(MODEL);
  const engine = await bare('bare', { ...DEFAULT_DEVICE, cpu: testbed.conditions.coresOfMachine }, [model], { prepack: false });
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 5, inFlight: 1 });
  await engine.run(5);
  const frames = quick ? 5 : 15;
  const samples = await interleaved(
    quick ? 2 : 9,
    async () => median((await load({ deployment: 'net', frames, inFlight: 1 })).latenciesMs),
    async () => median(await engine.run(frames)),
  );
  const added = samples.map(({ a, b }) => a - b);
  const bareMs = samples.map(({ b }) => b);
  return [
    figure('latency added, no CPU limit', 'ms', added, atMost(LIMIT_2_MS)),
    figure('latency of the bare engine, no CPU limit', 'ms', bareMs),
  ];
}

async function run(context: BenchContext): Promise<object> {
  let conditions: object = {};
  const { quick } = context;
  const free = (): Promise<Figure[]> =>
    onCluster(context, { agents: [{ ...DEFAULT_DEVICE, cpu: availableParallelism() }] }, (cluster) => addedLatency(cluster, quick));
  const limited = (): Promise<Figure[]> =>
    onCluster(context, { agents: 1 }, async (cluster) => {
      conditions = cluster.testbed.conditions;
      return throughput(cluster, quick);
    });
  await context.cases([
    { name: THROUGHPUT, run: limited },
    { name: LATENCY, run: free },
  ]);
  return { model: MODEL, ...conditions };
}

export const overhead: Bench = { name: 'overhead', summary: 'one agent against the bare engine', seconds: 130, run };
