/** Planners against one another: the same network on the same agents, objective throughput. */
import { ChairError } from '../../broker/errors.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, framesPerSecond, inFlightOf, mean, onCluster, planWords } from './cluster.js';
import { atLeast, type Figure, figure, median } from './figures.js';
import { type Busy, usualLimit } from './usage.js';

const PAPER = 'musical-chair-2018';
/** `auto` and the paper's first: they are compared, and measured more often. */
const PLANNERS = ['auto', PAPER, 'replicas', 'pipeline', 'single'] as const;
const ROUNDS: Readonly<Record<string, number>> = { auto: 2, [PAPER]: 2 };

interface Setting {
  readonly title: string;
  readonly devices: readonly DeviceSpec[];
  readonly models: readonly string[];
  /** Of `auto` over the paper's policy. */
  readonly target: number;
  /** Compare with the sum of what bare engines on all devices reach: where each can hold the network. */
  readonly sum: boolean;
}

const times = (count: number, spec: DeviceSpec): DeviceSpec[] => Array.from({ length: count }, () => spec);
const UNIT = 0.1;
const SETTINGS: readonly Setting[] = [
  { title: '4 equal devices', devices: times(4, DEFAULT_DEVICE), models: ['alexnet'], target: 0.97, sum: false },
  {
    title: '6 devices of speeds 1:2:4',
    devices: [1, 2, 4, 1, 2, 4].map((speed) => ({ ...DEFAULT_DEVICE, cpu: UNIT * speed })),
    models: ['alexnet', 'vgg16-features'],
    target: 1.5,
    sum: true,
  },
  {
    title: '6 devices of 512 MiB at 100 Mbit/s',
    devices: times(6, { ...DEFAULT_DEVICE, memoryBytes: 512 * 2 ** 20, rateBits: 100e6 }),
    models: ['vgg16'],
    target: 1.5,
    sum: false,
  },
];
const SUM_SHARE = 0.9;
const EVERYWHERE = 0.97;
const SECONDS = 5;
const FRAMES_LEAST = 10;
const FRAMES_MOST = 120;

interface Measured {
  /** Who sits where, and how many frames are in flight: equal plans are measured once a round. */
  readonly plan: string;
  readonly fps: number;
  readonly busy: readonly Busy[];
}

/** Deploys by one planner and measures. Throws PLAN_NOT_POSSIBLE, FRAME_FAILED. */
async function measure(
  planner: string,
  model: string,
  name: string,
  cluster: Cluster,
  plans: Record<string, string>,
  known: readonly Measured[],
): Promise<Measured> {
  const { client, deploy, load, network, testbed } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(model)), planner, objective: 'throughput' });
  plans[`${name}, ${planner}`] = planWords(plan);
  const seats = plan.seats.map(({ stage, replica, part, agent, slice }) => [stage, replica, part, agent, slice].join(' ')).toSorted();
  const own = JSON.stringify([seats, inFlightOf(plan)]);
  try {
    const same = known.find((other) => other.plan === own);
    if (same !== undefined) {
      plans[`${name}, ${planner}`] += ' (measured once, as equal plans)';
      return same;
    }
    // Enough that no planner's plan waits for frames: what is admitted at once is the plan's own number.
    const inFlight = Math.max(4 * testbed.agents.length, 8);
    const first = await load({ deployment: 'net', frames: inFlight, inFlight });
    const rate = framesPerSecond(first, 1);
    const frames = Math.min(FRAMES_MOST, Math.max(FRAMES_LEAST, Math.round(rate * SECONDS))) + inFlight;
    const { busy, ...report } = await load({ deployment: 'net', frames, inFlight });
    return { plan: own, fps: framesPerSecond(report, testbed.agents.length), busy };
  } finally {
    await client.undeploy('net');
  }
}

/** Frames per second that bare engines on all devices reach together. */
async function sumOfBare(devices: readonly DeviceSpec[], model: string, { bare, network }: Cluster): Promise<number[]> {
  const { model: file } = await network(model);
  const kinds = [...new Set(devices.map(({ cpu }) => cpu))];
  const speeds = new Map<number, number>();
  for (const cpu of kinds) {
    const engine = await bare(`bare-${model}-${cpu}`, { ...DEFAULT_DEVICE, cpu, memoryBytes: 4 * 2 ** 30 }, [file]);
    await engine.run(1);
    speeds.set(cpu, 1000 / mean(await engine.run(4)));
    await engine.stop();
  }
  return [devices.reduce((total, { cpu }) => total + (speeds.get(cpu) ?? Number.NaN), 0)];
}

async function compare(
  setting: Setting,
  model: string,
  context: BenchContext,
  cluster: Cluster,
  plans: Record<string, string>,
): Promise<Figure[]> {
  const name = `${setting.title}, ${model}`;
  const samples = new Map<string, Measured[]>();
  const rounds = context.quick ? 1 : Math.max(...Object.values(ROUNDS));
  for (let round = 0; round < rounds; round++) {
    const known: Measured[] = [];
    // In turn, so that what drifts meets all alike.
    for (const planner of round % 2 === 0 ? PLANNERS : PLANNERS.toReversed()) {
      if (round >= (ROUNDS[planner] ?? 1)) continue;
      try {
        const list = samples.get(planner) ?? [];
        const measured = await measure(planner, model, name, cluster, plans, known);
        known.push(measured);
        list.push(measured);
        samples.set(planner, list);
      } catch (error) {
        if (!(error instanceof ChairError)) throw error;
        if (round === 0) context.trouble(`${name}: ${planner}: ${error.message.slice(0, 200)}`);
      }
    }
  }
  const fps = (planner: string): number[] => (samples.get(planner) ?? []).map((m) => m.fps);
  const figures = PLANNERS.filter((planner) => fps(planner).length > 0).map((planner) =>
    figure(`${name}: ${planner}`, 'fps', fps(planner), undefined, { limit: usualLimit((samples.get(planner) ?? []).map((m) => m.busy)) }),
  );
  const auto = fps('auto');
  const [own, others] = [median(auto), PLANNERS.slice(1).flatMap((planner) => (fps(planner).length > 0 ? [median(fps(planner))] : []))];
  const papers = auto.map((value, i) => value / (fps(PAPER)[i] ?? Number.NaN)).filter(Number.isFinite);
  const sum = setting.sum ? await sumOfBare(setting.devices, model, cluster) : [];
  return [
    figure(`${name}: auto over ${PAPER}`, 'x', papers, atLeast(setting.target)),
    figure(`${name}: auto over the best other planner`, 'x', [own / Math.max(...others)], atLeast(EVERYWHERE)),
    ...(setting.sum
      ? [
          figure(
            `${name}: auto over the sum of bare engines on all devices`,
            'x',
            sum.map((all) => own / all),
            atLeast(SUM_SHARE),
          ),
        ]
      : []),
    ...figures,
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  for (const setting of context.quick ? SETTINGS.slice(0, 1) : SETTINGS) {
    const models = setting.models.filter((model) => context.wants(`${setting.title}, ${model}`));
    if (models.length === 0) continue;
    await onCluster(context, { agents: setting.devices }, (cluster) =>
      context.cases(
        models.map((model): Case => ({ name: `${setting.title}, ${model}`, run: () => compare(setting, model, context, cluster, plans) })),
      ),
    );
  }
  const settings = Object.fromEntries(SETTINGS.map(({ title, devices }) => [title, devices]));
  return { objective: 'throughput', threads: 1, ...settings, plans };
}

export const policies: Bench = { name: 'policies', summary: `auto against ${PAPER} and other planners`, seconds: 340, run };
