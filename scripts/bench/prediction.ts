/**
 * What plans promise against what they do: many different plans on one testbed of uneven devices and links, each deployed under its limits, measured one
 * frame at a time (latency) and with as many frames in flight as the plan says (throughput).
 */
import type { PlanReport } from '../../broker/messages.js';
import type { DeployOptions } from '../../scheduler/client.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, framesPerSecond, onCluster, planWords } from './cluster.js';
import { atMost, type Figure, figure, largest } from './figures.js';
import { DETECTOR } from './networks.js';
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

const PLANS: readonly Plan[] = [
  { name: 'single', model: 'alexnet', agents: [1], ask: { planner: 'single' } },
  { name: 'replicas 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'replicas:2', objective: 'throughput' } },
  { name: 'replicas 3', model: 'resnet18', agents: [1, 2, 3], ask: { cut: 'replicas:3', objective: 'throughput' } },
  { name: 'pipeline 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'stages:2', objective: 'throughput' } },
  { name: 'pipeline 3', model: 'resnet18', agents: [1, 2, 3], ask: { cut: 'stages:3', objective: 'throughput' } },
  { name: 'pipeline 4', model: 'vgg16-features', agents: [1, 2, 3, 4], ask: { cut: 'stages:4', objective: 'throughput' } },
  { name: 'rows 2', model: 'resnet18', agents: [1, 2], ask: { cut: 'rows:2' } },
  { name: 'rows 4', model: 'vgg16-features', agents: [1, 2, 3, 4], ask: { cut: 'rows:4' } },
  { name: 'channels 2', model: 'alexnet', agents: [1, 2], ask: { cut: 'channels:2' } },
  { name: 'mixed for latency', model: 'alexnet', agents: [1, 2, 3, 4], ask: { objective: 'latency' } },
  { name: 'mixed for latency', model: DETECTOR, agents: [1, 2, 3, 4], ask: { objective: 'latency' } },
  { name: 'uneven replicas', model: 'mobilenetv2', agents: [1, FAST, HALF], ask: { planner: 'replicas', objective: 'throughput' } },
  { name: 'uneven rows', model: 'vgg16-features', agents: [1, FAST, HALF], ask: { cut: 'rows:3', shares: [2, 4, 1] } },
  { name: 'slow link, pipeline 2', model: 'resnet18', agents: [1, FAR], ask: { cut: 'stages:2', objective: 'throughput' } },
  { name: 'slow link, rows 2', model: 'alexnet', agents: [1, FAR], ask: { cut: 'rows:2' } },
  { name: 'all for throughput', model: 'alexnet', agents: [1, 2, 3, 4, FAST, HALF, FAR], ask: { objective: 'throughput' } },
];
const QUICK = 3;
/** Each throughput is measured over about so long, with at least so many frames. */
const SECONDS = 5;
const FRAMES_LEAST = 8;
const FRAMES_MOST = 80;

/** Relative errors of what was predicted, percent. */
interface Errors {
  readonly latency: number[];
  readonly fps: number[];
}

const percentOff = (predicted: number, measured: number): number => (100 * Math.abs(predicted - measured)) / measured;

/** Figures of all plans together; those of the simulation where there is one. Pure. */
export function errorFigures(figures: readonly Figure[], kind: 'predicted' | 'simulated'): Figure[] {
  const errors: Errors = { latency: [], fps: [] };
  for (const { unit, value, beside } of figures) {
    const said = beside?.[kind];
    if (said !== undefined) (unit === 'fps' ? errors.fps : errors.latency).push(percentOff(said, value));
  }
  if (errors.fps.length === 0) return [];
  const target = kind === 'predicted' ? { median: atMost(10), worst: atMost(20) } : undefined;
  return [
    figure(`${kind} throughput, ${errors.fps.length} plans: median error`, '%', errors.fps, target?.median),
    figure(`${kind} throughput, ${errors.fps.length} plans: worst error`, '%', errors.fps, target?.worst, { value: largest }),
    figure(`${kind} latency, ${errors.latency.length} plans: median error`, '%', errors.latency, target?.median),
    figure(`${kind} latency, ${errors.latency.length} plans: worst error`, '%', errors.latency, target?.worst, { value: largest }),
  ];
}

const caseName = ({ name, model, agents }: Plan): string => `${model}, ${name} (${agents.length} agents)`;

async function at(plan: Plan, { client, network, load }: Cluster, plans: Record<string, string>, bases: Set<string>): Promise<Figure[]> {
  const name = caseName(plan);
  const agents = plan.agents.map((i) => `agent-${i}`);
  const report: PlanReport = await client.deploy({ name: 'net', ...(await network(plan.model)), ...plan.ask, agents });
  plans[name] = planWords(report);
  if (report.basis !== '') bases.add(report.basis);
  const { deployments } = await client.status('net');
  const inFlight = Math.max(1, deployments[0]?.inFlight ?? 1);
  await load({ deployment: 'net', frames: 2, inFlight: 1 });
  const alone = await load({ deployment: 'net', frames: 5, inFlight: 1 });
  const wanted = Math.round(report.predictedFps * SECONDS);
  const frames = Math.min(FRAMES_MOST, Math.max(FRAMES_LEAST, wanted)) + inFlight;
  const full = await load({ deployment: 'net', frames, inFlight });
  await client.undeploy('net');
  const fps = framesPerSecond(full, inFlight - 1);
  return [
    figure(`${name}: latency`, 'ms', alone.latenciesMs, undefined, {
      beside: { predicted: report.predictedLatencyMs },
      limit: limitOf(alone.busy),
    }),
    figure(`${name}: frames per second`, 'fps', [fps], undefined, {
      beside: { predicted: report.predictedFps },
      limit: limitOf(full.busy),
    }),
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  const bases = new Set<string>();
  return onCluster(context, { agents: DEVICES }, async (cluster) => {
    const all: Figure[] = [];
    const cases = (context.quick ? PLANS.slice(0, QUICK) : PLANS).map(
      (plan): Case => ({
        name: caseName(plan),
        run: async () => {
          const figures = await at(plan, cluster, plans, bases).catch(async (error: unknown) => {
            await cluster.client.undeploy('net').catch(() => undefined);
            throw error;
          });
          all.push(...figures);
          return figures;
        },
      }),
    );
    await context.cases(cases);
    context.add([...errorFigures(all, 'predicted'), ...errorFigures(all, 'simulated')]);
    return { 'predictions stand on': [...bases].join('; ') || 'the probe', ...cluster.testbed.conditions, plans };
  });
}

export const prediction: Bench = {
  name: 'prediction',
  summary: `predicted against measured latency and throughput of ${PLANS.length} plans`,
  seconds: 300,
  run,
};
