/**
 * Planners against one another: the same network on the same agents, objective throughput. Where replicas of the whole fit, the paper's plan has the same seats as
 * `auto`; what it lacks there is that frames go to whoever is free: its data parallelism is round robin.
 */
import { ChairError } from '../../broker/errors.js';
import type { PlanReport } from '../../broker/messages.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, inFlightOf, mean, onCluster, planWords, throughputOf } from './cluster.js';
import { atLeast, type Figure, figure, median } from './figures.js';
import { type Busy, usualLimit } from './usage.js';

const PAPER = 'musical-chair-2018';
/** `auto`, the paper's and replicas first: they are compared, and measured more often. */
const PLANNERS = ['auto', PAPER, 'replicas', 'pipeline', 'single'] as const;
const ROUNDS: Readonly<Record<string, number>> = { auto: 2, [PAPER]: 2, replicas: 2 };

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

interface Measured {
  /** Who sits where, who takes which frames, and how many are in flight: equal plans are measured once a round. */
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
  context: BenchContext,
): Promise<Measured> {
  const { client, deploy, network } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(model)), planner, objective: 'throughput' });
  plans[`${name}, ${planner}`] = planWords(plan);
  const seats = plan.seats.map(({ stage, replica, part, agent, slice }) => [stage, replica, part, agent, slice].join(' ')).toSorted();
  const own = JSON.stringify([seats, inFlightOf(plan), turnsOf(plan)]);
  try {
    const same = known.find((other) => other.plan === own);
    if (same !== undefined) {
      plans[`${name}, ${planner}`] += ' (measured once, as equal plans)';
      return same;
    }
    const { fps, busy, frames, trouble } = await throughputOf(cluster, plan);
    plans[`${name}, ${planner}`] += `, ${frames} frames counted${trouble === '' ? '' : ` (${trouble})`}`;
    if (trouble !== '') context.note(`${name}: ${planner}: ${trouble}`);
    return { plan: own, fps, busy };
  } finally {
    await client.undeploy('net');
  }
}

/** How frames are divided among replicas, as the plan's file says it. */
function turnsOf({ details }: PlanReport): readonly string[] {
  return details?.file.match(/^ *(?:inTurn|weights): .*$/gm) ?? [];
}

/** Each bare engine is measured for about so long, ms. */
const BARE_MS = 5000;
const runsIn = (ms: number, eachMs: number): number => Math.max(3, Math.ceil(ms / eachMs) || 0);

/** Frames per second of bare engines on all devices: the sum of what each reaches by itself, and what all reach at once (one machine's caches and memory). */
async function bareSpeeds(
  devices: readonly DeviceSpec[],
  model: string,
  { bare, network }: Cluster,
): Promise<{ sum: number; atOnce: number }> {
  const { model: file } = await network(model);
  const engines: BareEngine[] = [];
  for (const [i, { cpu }] of devices.entries()) {
    engines.push(await bare(`bare-${model}-${i + 1}`, { ...DEFAULT_DEVICE, cpu, memoryBytes: 4 * 2 ** 30 }, [file]));
  }
  const alone = new Map<number, number>();
  for (const [i, { cpu }] of devices.entries()) {
    const engine = engines[i];
    if (engine === undefined || alone.has(cpu)) continue;
    // The first run also has what a quota gives to who has rested, and says how many take long enough.
    const [firstMs = Number.NaN] = await engine.run(1);
    alone.set(cpu, 1000 / mean(await engine.run(runsIn(BARE_MS, firstMs))));
  }
  // All for about as long, so that nobody runs beside fewer.
  const together = await Promise.all(
    engines.map(
      async (engine, i) => 1000 / mean(await engine.run(runsIn(BARE_MS, 1000 / (alone.get(devices[i]?.cpu ?? 0) ?? Number.NaN)))),
    ),
  );
  for (const engine of engines) await engine.stop();
  return {
    sum: devices.reduce((total, { cpu }) => total + (alone.get(cpu) ?? Number.NaN), 0),
    atOnce: together.reduce((total, fps) => total + fps, 0),
  };
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
        const measured = await measure(planner, model, name, cluster, plans, known, context);
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
  const own = median(auto);
  // Within each round: what equal plans reach in different rounds is noise.
  const best = auto
    .map((value, i) => value / Math.max(...PLANNERS.slice(1).map((planner) => fps(planner)[i] ?? 0)))
    .filter(Number.isFinite);
  const papers = auto.map((value, i) => value / (fps(PAPER)[i] ?? Number.NaN)).filter(Number.isFinite);
  const bare = setting.sum ? await bareSpeeds(setting.devices, model, cluster) : undefined;
  return [
    figure(`${name}: auto over ${PAPER}`, 'x', papers, atLeast(setting.target)),
    figure(`${name}: auto over the best other planner`, 'x', best, atLeast(EVERYWHERE)),
    ...(bare === undefined
      ? []
      : [
          figure(`${name}: auto over the sum of bare engines on all devices`, 'x', [own / bare.sum], atLeast(SUM_SHARE)),
          figure(`${name}: auto over bare engines on all devices at once`, 'x', [own / bare.atOnce]),
        ]),
    ...figures,
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  for (const setting of context.quick ? SETTINGS.slice(0, 1) : SETTINGS) {
    const models = setting.models.filter((model) => context.wants(`${setting.title}, ${model}`));
    if (models.length === 0) continue;
    await onCluster(context, { agents: setting.devices, atWork: true }, (cluster) =>
      context.cases(
        models.map((model): Case => ({ name: `${setting.title}, ${model}`, run: () => compare(setting, model, context, cluster, plans) })),
      ),
    );
  }
  const settings = Object.fromEntries(SETTINGS.map(({ title, devices }) => [title, devices]));
  return { objective: 'throughput', threads: 1, ...settings, plans };
}

export const policies: Bench = { name: 'policies', summary: `auto against ${PAPER} and other planners`, seconds: 1250, run };
