/**
 * What frames cost the CPU of an agent besides computing, and that of the gateway: the constants of the planners' cost model (scheduler/planners/cost.ts, scheduler/gateway.ts), measured.
 * Networks that compute next to nothing take 1 or 9 messages of few bytes, or one message of megabytes in or out; no limit of CPU or links.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GraphBuilder } from '../../models/onnx/build.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, onCluster } from './cluster.js';
import { type Figure, figure } from './figures.js';

const NO_LIMIT_BITS = 100e9;
const CHANNELS = 16;
const SMALL = 4;
/** Height and width of 4 MiB of float32 in 16 channels. */
const LARGE = 256;
const LARGE_BYTES = 4 * CHANNELS * LARGE * LARGE;
const MANY = 9;
/** Height and width of frames for the gateway, of 16 channels: 13, 602 and 2,409 KB. */
const FRAMES = [14, 97, 194];
/** As agents that compute for tens of ms take them: until the next one comes the gateway's code and data have left the caches. */
const PACED = 20;

/** CPU milliseconds of a process since its start, all its threads, to the nanosecond. */
function cpuMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, id) => sum + Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, 'utf8').split(' ')[0]) / 1e6, 0);
}

/** `inputs` tensors of 16 channels in, the sum of their maxima out: few bytes. */
function takes(inputs: number, size: number): GraphBuilder {
  const g = new GraphBuilder({ opset: 17 });
  const pooled = Array.from({ length: inputs }, (_, i) =>
    g.node1('GlobalMaxPool', [g.input(`x${i}`, 'float32', [1, CHANNELS, size, size])]),
  );
  g.output(g.node1('Sum', pooled), 'float32', [1, CHANNELS, 1, 1]);
  return g;
}

/** Few bytes in, a tensor of 16 channels of `size` x `size` out. */
function gives(size: number): GraphBuilder {
  const g = new GraphBuilder({ opset: 17 });
  const x = g.input('x0', 'float32', [1, CHANNELS, 1, 1]);
  const shape = g.weight('shape', 'int64', [4], BigInt64Array.of(1n, BigInt(CHANNELS), BigInt(size), BigInt(size)));
  g.output(g.node1('Expand', [x, shape]), 'float32', [1, CHANNELS, size, size]);
  return g;
}

/** CPU of one frame at the agent beside the engine's own time, ms. */
async function besides({ testbed, client, deploy, load }: Cluster, model: string, rounds: number): Promise<number[]> {
  const [agent] = testbed.agents;
  if (agent === undefined) throw new Error('a testbed without an agent');
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 60, inFlight: 1 });
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const before = cpuMs(agent.pid);
    const frames = 100;
    await load({ deployment: 'net', frames, inFlight: 1 });
    const used = (cpuMs(agent.pid) - before) / frames;
    const { agents } = await client.status('net');
    samples.push(used - (agents[0]?.health?.seats[0]?.runMs ?? 0));
  }
  await client.undeploy('net');
  return samples;
}

async function measure(cluster: Cluster, { models, quick }: BenchContext): Promise<Figure[]> {
  const rounds = quick ? 2 : 7;
  await mkdir(models, { recursive: true });
  const samplesOf = async (name: string, graph: GraphBuilder): Promise<number[]> => {
    const file = path.join(models, `${name}.onnx`);
    if (!existsSync(file)) await graph.write(file);
    return besides(cluster, file, rounds);
  };
  const one = await samplesOf('takes-1-small', takes(1, SMALL));
  const many = await samplesOf('takes-9-small', takes(MANY, SMALL));
  const taken = await samplesOf('takes-4-mib', takes(1, LARGE));
  const given = await samplesOf('gives-4-mib', gives(LARGE));
  const beyond = (samples: readonly number[], per: number): number[] => samples.map((ms, i) => (ms - (one[i] ?? Number.NaN)) / per);
  const mb = LARGE_BYTES / 1e6;
  return [
    figure('a frame of 1 KB in, 64 bytes out', 'ms', one),
    figure('each further message in', 'ms', beyond(many, MANY - 1)),
    figure('each MB in', 'ms', beyond(taken, mb)),
    figure('each MB out', 'ms', beyond(given, mb)),
  ];
}

/** CPU of the gateway's process for one frame, ms, beside what it takes with nothing to do. */
async function ofGateway({ testbed, client, deploy, load }: Cluster, model: string, rounds: number, perSecond?: number): Promise<number[]> {
  const { pid } = testbed.gateway.child;
  const used = async (work: () => Promise<unknown>): Promise<{ readonly ms: number; readonly seconds: number }> => {
    const [cpu, from] = [cpuMs(pid), performance.now()];
    await work();
    return { ms: cpuMs(pid) - cpu, seconds: (performance.now() - from) / 1000 };
  };
  await deploy({ name: 'net', model, planner: 'single' });
  await load({ deployment: 'net', frames: 300, inFlight: 1 });
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const idle = await used(() => sleep(3000));
    const frames = perSecond === undefined ? 300 : 3 * perSecond;
    const busy = await used(() => load({ deployment: 'net', frames, inFlight: 1, ...(perSecond === undefined ? {} : { perSecond }) }));
    samples.push((busy.ms - (idle.ms / idle.seconds) * busy.seconds) / frames);
  }
  await client.undeploy('net');
  return samples;
}

/** Least squares: what every frame costs, and what each MB does. */
function line(points: readonly { readonly mb: number; readonly ms: number }[]): { readonly frameMs: number; readonly mbMs: number } {
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(points.map(({ mb }) => mb)), mean(points.map(({ ms }) => ms))];
  const along = points.reduce((sum, { mb, ms }) => sum + (mb - x) * (ms - y), 0);
  const mbMs = along / points.reduce((sum, { mb }) => sum + (mb - x) ** 2, 0);
  return { frameMs: y - mbMs * x, mbMs };
}

/** One after the other, or so many in a second. */
function gatewayAt(perSecond?: number) {
  const when = perSecond === undefined ? 'one after another' : `${perSecond} a second`;
  return async (cluster: Cluster, { models, quick }: BenchContext): Promise<Figure[]> => {
    await mkdir(models, { recursive: true });
    const rounds = quick ? 2 : 7;
    const rows: { readonly mb: number; readonly samples: readonly number[] }[] = [];
    for (const size of FRAMES) {
      const file = path.join(models, `takes-${size}.onnx`);
      if (!existsSync(file)) await takes(1, size).write(file);
      rows.push({ mb: (4 * CHANNELS * size * size) / 1e6, samples: await ofGateway(cluster, file, rounds, perSecond) });
    }
    const lines = Array.from({ length: rounds }, (_, r) => line(rows.map(({ mb, samples }) => ({ mb, ms: samples[r] ?? Number.NaN }))));
    const [frame, each] = [lines.map(({ frameMs }) => frameMs), lines.map(({ mbMs }) => mbMs)];
    return [
      ...rows.map(({ mb, samples }) => figure(`gateway, ${when}: a frame of ${Math.round(1000 * mb)} KB`, 'ms', samples)),
      figure(`gateway, ${when}: any frame, by the line through these`, 'ms', frame),
      figure(`gateway, ${when}: each MB, by the same line`, 'ms', each),
    ];
  };
}

async function run(context: BenchContext): Promise<object> {
  const agents = [{ ...DEFAULT_DEVICE, cpu: availableParallelism(), rateBits: NO_LIMIT_BITS }];
  let conditions: object = {};
  const free = (what: typeof measure) => (): Promise<Figure[]> =>
    onCluster(context, { agents, gatewayRateBits: NO_LIMIT_BITS }, (cluster) => {
      conditions = cluster.testbed.conditions;
      return what(cluster, context);
    });
  await context.cases([
    { name: 'CPU of an agent besides computing', run: free(measure) },
    { name: 'CPU of the gateway, one frame after another', run: free(gatewayAt()) },
    { name: 'CPU of the gateway between computations', run: free(gatewayAt(PACED)) },
  ]);
  return conditions;
}

export const messages: Bench = { name: 'messages', summary: 'CPU that messages cost an agent, and frames the gateway', seconds: 320, run };
