/**
 * What frames cost an agent's CPU besides computing: the constants of the planners' cost model (scheduler/planners/cost.ts), measured. Networks that
 * compute next to nothing take 1 or 9 messages of few bytes, or one message of megabytes in or out; no limit of CPU or links.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
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

async function run(context: BenchContext): Promise<object> {
  const agents = [{ ...DEFAULT_DEVICE, cpu: availableParallelism(), rateBits: NO_LIMIT_BITS }];
  let conditions: object = {};
  const free = (): Promise<Figure[]> =>
    onCluster(context, { agents, gatewayRateBits: NO_LIMIT_BITS }, (cluster) => {
      conditions = cluster.testbed.conditions;
      return measure(cluster, context);
    });
  await context.cases([{ name: 'CPU of an agent besides computing', run: free }]);
  return conditions;
}

export const messages: Bench = { name: 'messages', summary: 'CPU that messages cost an agent', seconds: 45, run };
