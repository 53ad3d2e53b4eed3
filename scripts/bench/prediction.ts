/**
 * What plans promise against what they do: many different plans on one testbed of uneven devices and links, each profiled and deployed under its limits,
 * measured one frame at a time (latency) and with as many frames in flight as the plan says (throughput). Beside it, what the simulation says of the
 * same plan.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { PlanReport, StatusReport } from '../../broker/messages.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import type { DeployOptions } from '../../scheduler/client.js';
import { ModelLibrary } from '../../scheduler/model-library.js';
import type { LoadedModel } from '../../scheduler/model-source.js';
import { reported, simulateReport } from '../../scheduler/simulate/from-report.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import { basisOf } from './basis.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, inFlightOf, onCluster, planWords, throughputOf } from './cluster.js';
import { atMost, type Figure, figure, largest } from './figures.js';
import { DETECTOR, type Network } from './networks.js';
import { limitOf } from './usage.js';

/** Four equal devices, one twice as fast, one half as fast, one on a slow link. */
const DEVICES: readonly DeviceSpec[] = [
  ...Array.from({ length: 4 }, () => DEFAULT_DEVICE),
  { ...DEFAULT_DEVICE, cpu: 2 * DEFAULT_DEVICE.cpu },
  { ...DEFAULT_DEVICE, cpu: DEFAULT_DEVICE.cpu / 2 },
  { ...DEFAULT_DEVICE, rateBits: 50e6 },
];
const [FAST, HALF, FAR] = [5, 6, 7];

interface Plan {
  readonly name: string;
  readonly model: string;
  readonly agents: readonly number[];
  readonly ask: Partial<DeployOptions>;
}

/** What each needs measured is mostly what those before it did: profiling takes the time, under the agents' limits. Networks with large weights come last. */
const PLANS: readonly Plan[] = [
  { name: 'single', model: 'resnet18', agents: [1], ask: { planner: 'single' } },
  { name: 'replicas 3', model: 'resnet18', agents: [1, 2, 3], ask: { cut: 'replicas:3', objective: 'throughput' } },
  { name: 'pipeline 3', model: 'resnet18', agents: [1, 2, 3], ask: { cut: 'stages:3', objective: 'throughput' } },
  { name: 'slow link, pipeline 2', model: 'resnet18', agents: [1, FAR], ask: { cut: 'stages:2', objective: 'throughput' } },
  { name: 'single', model: 'mobilenetv2', agents: [1], ask: { planner: 'single' } },
  { name: 'pipeline 2', model: 'mobilenetv2', agents: [1, 2], ask: { cut: 'stages:2', objective: 'throughput' } },
  { name: 'slow link, pipeline 3', model: 'mobilenetv2', agents: [1, 2, FAR], ask: { cut: 'stages:3', objective: 'throughput' } },
  { name: 'rows 2', model: 'resnet18', agents: [1, 2], ask: { cut: 'rows:2' } },
  { name: 'slow link, rows 2', model: 'resnet18', agents: [1, FAR], ask: { cut: 'rows:2' } },
  { name: 'single', model: 'alexnet', agents: [1], ask: { planner: 'single' } },
  { name: 'replicas 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'replicas:2', objective: 'throughput' } },
  { name: 'pipeline 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'stages:2', objective: 'throughput' } },
  { name: 'uneven replicas', model: 'mobilenetv2', agents: [1, FAST, HALF], ask: { planner: 'replicas', objective: 'throughput' } },
  { name: 'channels 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'channels:2' } },
  { name: 'mixed for latency', model: 'alexnet', agents: [1, 2, 3, 4], ask: { objective: 'latency' } },
  { name: 'uneven rows', model: 'resnet18', agents: [1, FAST, HALF], ask: { cut: 'rows:3', shares: [2, 4, 1] } },
  { name: 'pipeline 4', model: 'vgg16-features', agents: [1, 2, 3, 4], ask: { cut: 'stages:4', objective: 'throughput' } },
  { name: 'rows 4', model: 'vgg16-features', agents: [1, 2, 3, 4], ask: { cut: 'rows:4' } },
  { name: 'mixed for latency', model: DETECTOR, agents: [1, 2, 3, 4], ask: { objective: 'latency' } },
  { name: 'all for throughput', model: 'alexnet', agents: [1, 2, 3, 4, FAST, HALF, FAR], ask: { objective: 'throughput' } },
];
const QUICK = 3;
/** Each throughput is measured for so long at most, ms. */
const MOST_MS = 45_000;
/** Each throughput is simulated over about so long, with at least so many frames. */
const SECONDS = 4;
const FRAMES_LEAST = 8;
/** A frame alone is up to two turns of its quota early or late, 20 ms each way. */
const FRAMES_ALONE = 12;
const FRAMES_MOST = 80;
/** Of each measurement of a profile: runs at most, and ms. */
const PROFILING = { runs: 5, budgetMs: 400 };

/** Relative errors of what was predicted, percent. */
interface Errors {
  readonly latency: number[];
  readonly fps: number[];
}

const percentOff = (predicted: number, measured: number): number => (100 * Math.abs(predicted - measured)) / measured;

/** Figures of all plans together, of `total` that there could be; those of the simulation where there is one. Pure. */
export function errorFigures(figures: readonly Figure[], kind: 'predicted' | 'simulated', total: number): Figure[] {
  const errors: Errors = { latency: [], fps: [] };
  for (const { unit, value, beside } of figures) {
    const said = beside?.[kind];
    if (said !== undefined) (unit === 'fps' ? errors.fps : errors.latency).push(percentOff(said, value));
  }
  if (errors.fps.length === 0) return [];
  const target = kind === 'predicted' ? { median: atMost(10), worst: atMost(20) } : undefined;
  const plans = (errors: readonly number[]): string => `${errors.length === total ? '' : `${errors.length} of `}${total} plans`;
  return [
    figure(`${kind} throughput, ${plans(errors.fps)}: median error`, '%', errors.fps, target?.median),
    figure(`${kind} throughput, ${plans(errors.fps)}: worst error`, '%', errors.fps, target?.worst, { value: largest }),
    figure(`${kind} latency, ${plans(errors.latency)}: median error`, '%', errors.latency, target?.median),
    figure(`${kind} latency, ${plans(errors.latency)}: worst error`, '%', errors.latency, target?.worst, { value: largest }),
  ];
}

const caseName = ({ name, model, agents }: Plan): string => `${model}, ${name} (${agents.length} agents)`;

/** What all cases share. */
interface Shared {
  readonly cluster: Cluster;
  readonly library: ModelLibrary;
  readonly models: Map<string, LoadedModel>;
  readonly plans: Record<string, string>;
  readonly bases: Set<string>;
  readonly note: (text: string) => void;
}

/** Measures the network on the classes of these agents; what is measured already is kept. */
async function profiled(plan: Plan, network: Network, { cluster }: Shared): Promise<void> {
  const agents = plan.agents.map((i) => `agent-${i}`);
  const cut = /^(rows|channels):/.exec(plan.ask.cut ?? '')?.[1];
  // What the plan can need: parts of one kind of cut; nothing but whole blocks; or, where the planner chooses, all kinds.
  const chooses = plan.ask.cut === undefined && plan.ask.planner === undefined;
  const parts = cut !== undefined ? [plan.agents.length] : chooses ? [2, 4] : [1];
  await cluster.client.profile({ ...network, agents, cuts: cut === undefined ? [] : [cut], parts, threads: [1], ...PROFILING });
}

async function modelOf(plan: Plan, network: Network, { library, models }: Shared): Promise<LoadedModel> {
  const model = models.get(plan.model) ?? (await library.load(network));
  models.set(plan.model, model);
  return model;
}

/** What the simulation says of a deployed plan: latency of frames alone, and throughput. */
function simulated(report: PlanReport, model: LoadedModel, status: StatusReport, inFlight: number, frames: number) {
  const by = (outstanding: number, count: number) =>
    simulateReport(report, model, model.facts, status, { load: { kind: 'closed', inFlight: outstanding }, frames: count });
  return { latencyMs: by(1, 5).latencyMs.p50, fps: by(inFlight, frames).fps };
}

async function at(plan: Plan, shared: Shared): Promise<Figure[]> {
  const { cluster, plans, bases } = shared;
  const { client, load } = cluster;
  const name = caseName(plan);
  const agents = plan.agents.map((i) => `agent-${i}`);
  const network = await cluster.network(plan.model);
  await profiled(plan, network, shared);
  const report = await client.deploy({ name: 'net', ...network, ...plan.ask, agents });
  plans[name] = planWords(report);
  if (report.basis !== '') bases.add(report.basis);
  const inFlight = inFlightOf(report);
  const wanted = Math.round(report.predictedFps * SECONDS);
  const frames = Math.min(FRAMES_MOST, Math.max(FRAMES_LEAST, wanted)) + inFlight;
  // Before any frame: live measurements would tell what is to be predicted.
  const status = await client.links({ measure: false, evenIfBusy: false, agents: [] });
  const model = await modelOf(plan, network, shared);
  const said = simulated(report, model, status, inFlight, frames);
  await load({ deployment: 'net', frames: 2, inFlight: 1 });
  const alone = await load({ deployment: 'net', frames: FRAMES_ALONE, inFlight: 1 });
  const { fps, busy, trouble } = await throughputOf(cluster, report, { mostMs: MOST_MS });
  if (trouble !== '') shared.note(`${name}: ${trouble}`);
  const after = await client.status('net');
  const live = after.deployments.find((one) => one.name === 'net')?.live ?? [];
  const basis = basisOf({ report, status, reported: reported(report, model.sha256, model.facts, status), live, busy });
  const latency = { predicted: report.predictedLatencyMs, simulated: said.latencyMs };
  const rate = { predicted: report.predictedFps, simulated: said.fps };
  return [
    figure(`${name}: latency`, 'ms', alone.latenciesMs, undefined, { beside: latency, limit: limitOf(alone.busy) }),
    figure(`${name}: frames per second`, 'fps', [fps], undefined, { beside: rate, limit: limitOf(busy), basis }),
  ];
}

async function measure(context: BenchContext, shared: Shared): Promise<void> {
  const total = (context.quick ? PLANS.slice(0, QUICK) : PLANS).length;
  context.summary((all) => [...errorFigures(all, 'predicted', total), ...errorFigures(all, 'simulated', total)]);
  const cases = (context.quick ? PLANS.slice(0, QUICK) : PLANS).map(
    (plan): Case => ({
      name: caseName(plan),
      run: async () => {
        try {
          return await at(plan, shared);
        } finally {
          // A deployment that never came up cannot be removed.
          await shared.cluster.client.undeploy('net').catch(() => undefined);
        }
      },
    }),
  );
  await context.cases(cases);
}

async function run(context: BenchContext): Promise<object> {
  const directory = await mkdtemp(path.join(tmpdir(), 'musical-chair-bench-prediction-'));
  const workDirectory = path.join(directory, 'models');
  const library = new ModelLibrary({
    createEngine: createOnnxRuntimeEngine,
    workDirectory,
    storeDirectory: path.join(directory, 'slices'),
  });
  const [plans, bases]: [Record<string, string>, Set<string>] = [{}, new Set()];
  try {
    return await onCluster(context, { agents: DEVICES, atWork: true }, async (cluster) => {
      context.depends({ profiling: PROFILING, plans });
      await measure(context, { cluster, library, models: new Map(), plans, bases, note: (text) => context.note(text) });
      return { 'predictions stand on': [...bases].join('; ') || 'the probe', profiling: PROFILING, ...cluster.testbed.conditions, plans };
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export const prediction: Bench = {
  name: 'prediction',
  summary: `predicted against measured latency and throughput of ${PLANS.length} plans`,
  seconds: 1600,
  run,
};
