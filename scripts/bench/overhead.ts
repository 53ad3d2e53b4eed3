/** What the cluster costs beside the engine: one agent against the bare engine, same quota, same threads, in turn. */
import { availableParallelism } from 'node:os';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, framesPerSecond, mean, onCluster } from './cluster.js';
import { atLeast, atMost, type Figure, figure, inTurn, interleaved, median } from './figures.js';
import { usualLimit } from './usage.js';

const MODEL = 'alexnet';
/** AlexNet's frames take more than 50 ms on these small devices only, VGG16's everywhere: what a frame costs besides computing weighs less there. */
const THROUGHPUTS = [
  { name: MODEL, frames: 16, turns: 7 },
  { name: 'vgg16-features', frames: 5, turns: 5 },
] as const;
/** Outstanding frames: one is computed while another one arrives and one leaves. */
const BACK_TO_BACK = 4;
const LIMIT_2_MS = 2;
const THROUGHPUT = 'one agent at 0.18 core';
const LATENCY = 'one agent without a CPU limit';
/** As good as no limit: at 1 Gbit/s the two hops of a frame alone would take 10 ms. */
const NO_LIMIT_BITS = 100e9;

async function throughput({ network, bare, deploy, load }: Cluster, quick: boolean, of: (typeof THROUGHPUTS)[number]): Promise<Figure[]> {
  const { model } = await network(of.name);
  const natural = await bare('bare', DEFAULT_DEVICE, [model]);
  const alike = await bare('bare-alike', DEFAULT_DEVICE, [model], { prepack: false });
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 4, inFlight: 2 });
  const frames = quick ? 4 : of.frames;
  const msOf = (engine: BareEngine) => async () => ({ ms: mean(await engine.run(frames)), busy: [] });
  const cluster = async () => {
    const report = await load({ deployment: 'net', frames: frames + 2 * BACK_TO_BACK, inFlight: BACK_TO_BACK });
    // The last ones are computed while none is received any more.
    return { ms: 1000 / framesPerSecond(report, BACK_TO_BACK - 1, BACK_TO_BACK), busy: report.busy };
  };
  const [agent = [], plain = [], same = []] = await inTurn(quick ? 2 : of.turns, [cluster, msOf(natural), msOf(alike)]);
  const over = (bare: readonly { ms: number }[]): number[] => bare.map(({ ms }, i) => ms / (agent[i]?.ms ?? Number.NaN));
  const ms = (samples: readonly { ms: number }[]): number[] => samples.map((sample) => sample.ms);
  const limit = usualLimit(agent.map(({ busy }) => busy));
  return [
    figure(`${of.name}: throughput of one agent over the bare engine`, 'x', over(plain), atLeast(0.97), { limit }),
    figure(`${of.name}: the same, bare engine with the agent's options (weights not prepacked)`, 'x', over(same)),
    figure(`${of.name}: time per frame, agent`, 'ms', ms(agent)),
    figure(`${of.name}: time per frame, bare engine`, 'ms', ms(plain)),
    figure(`${of.name}: time per frame, bare engine with the agent's options`, 'ms', ms(same)),
  ];
}

/** One frame at a time, without a limit of CPU or links. */
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
    figure('latency added, no limit of CPU or links', 'ms', added, atMost(LIMIT_2_MS)),
    figure('latency of the bare engine, no CPU limit', 'ms', bareMs),
  ];
}

async function run(context: BenchContext): Promise<object> {
  let conditions: object = {};
  const { quick } = context;
  const free = (): Promise<Figure[]> =>
    onCluster(
      context,
      {
        agents: [{ ...DEFAULT_DEVICE, cpu: availableParallelism(), rateBits: NO_LIMIT_BITS }],
        gatewayRateBits: NO_LIMIT_BITS,
        atWork: true,
      },
      (cluster) => addedLatency(cluster, quick),
    );
  const limited = (of: (typeof THROUGHPUTS)[number]) => (): Promise<Figure[]> =>
    onCluster(context, { agents: 1, atWork: true }, async (cluster) => {
      conditions = cluster.testbed.conditions;
      return throughput(cluster, quick, of);
    });
  await context.cases([
    ...THROUGHPUTS.map((of) => ({ name: `${THROUGHPUT}, ${of.name}`, run: limited(of) })),
    { name: `${LATENCY}, ${MODEL}`, run: free },
  ]);
  return conditions;
}

export const overhead: Bench = { name: 'overhead', summary: 'one agent against the bare engine', seconds: 220, run };
