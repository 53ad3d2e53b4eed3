/**
 * One frame at a time over N agents, planned for latency, against one device, and against the compute ceiling: the same slices run alone on such a
 * device, the slowest part of each stage counted. What is missing to the ceiling is transport and waiting; what the ceiling is missing to N is the cut
 * itself.
 */
import type { PlanReport } from '../../broker/messages.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, mean, onCluster, planWords } from './cluster.js';
import { atLeast, type Figure, figure, inTurn, median } from './figures.js';
import type { Network } from './networks.js';
import { usualLimit } from './usage.js';

/** How much faster than one device, by number of agents. */
const SPEEDUP: Readonly<Record<number, number>> = { 2: 1.8, 4: 3.1, 6: 4.2, 8: 5.0 };
const SLOW_LINK_SPEEDUP = 2.6;
const CEILING_SHARE = 0.85;
const SLOW_LINK_BITS = 100e6;
/** Of each slice in each round. */
const CEILING_RUNS = 4;
/** Until the slices' weights and the plan's lanes are as they will be. */
const WARM_UP_FRAMES = 20;
const MODELS = ['vgg16-features', 'vgg16'];

/** One way to measure: which devices, how many, which plan. */
interface Setting {
  readonly title: string;
  readonly spec: DeviceSpec;
  readonly counts: readonly number[];
  /** '' = the planner's choice. */
  readonly cut?: (agents: number) => string;
  readonly speedup: (agents: number) => number | undefined;
}

const SETTINGS: readonly Setting[] = [
  { title: 'at 1 Gbit/s', spec: DEFAULT_DEVICE, counts: [2, 4, 6, 8], speedup: (n) => SPEEDUP[n] },
  { title: 'cut rows, at 1 Gbit/s', spec: DEFAULT_DEVICE, counts: [4], cut: (n) => `rows:${n}`, speedup: () => undefined },
  { title: 'at 100 Mbit/s', spec: { ...DEFAULT_DEVICE, rateBits: SLOW_LINK_BITS }, counts: [4], speedup: () => SLOW_LINK_SPEEDUP },
  // A low quota makes transport look cheap: the same with fast devices.
  { title: 'at 0.9 core', spec: { ...DEFAULT_DEVICE, cpu: 0.9 }, counts: [2], speedup: (n) => SPEEDUP[n] },
];

/** The slices of a plan on a device of their own. */
interface Ceiling {
  /** Runs each of them a few times. */
  readonly round: () => Promise<void>;
  /** Milliseconds: the slowest part of each stage of replica 0, by the medians of the rounds' means. */
  readonly ms: () => number;
  readonly stop: () => Promise<void>;
}

async function ceilingOf({ seats }: PlanReport, spec: DeviceSpec, name: string, cluster: Cluster): Promise<Ceiling> {
  const files = [...new Set(seats.map((seat) => cluster.sliceFile(seat.slice)))];
  // As agents load them: not prepacked.
  const bare = await cluster.bare(`ceiling-${name}`, { ...spec, memoryBytes: 4 * 2 ** 30 }, files, { prepack: false });
  const samples = files.map((): number[] => []);
  return {
    round: async () => {
      // Back to back, and the mean: in the plan the quota of a period is used by the stage before, too, and a short run alone would have all of it.
      for (const i of files.keys()) samples[i]?.push(mean(await bare.run(CEILING_RUNS, i)));
    },
    ms: () => {
      const times = new Map(files.map((file, i) => [file, median(samples[i] ?? [])]));
      const slowest = new Map<number, number>();
      for (const { stage, replica, slice } of seats) {
        const ms = times.get(cluster.sliceFile(slice)) ?? Number.NaN;
        if (replica === 0) slowest.set(stage, Math.max(slowest.get(stage) ?? 0, ms));
      }
      return [...slowest.values()].reduce((sum, ms) => sum + ms, 0);
    },
    stop: () => bare.stop(),
  };
}

interface Measured {
  readonly name: string;
  readonly model: string;
  readonly agents: number;
  readonly setting: Setting;
  readonly network: Network;
  readonly bare: BareEngine;
  readonly plans: Record<string, string>;
}

async function at(m: Measured, cluster: Cluster, quick: boolean): Promise<Figure[]> {
  const { testbed, client, deploy, load } = cluster;
  const agents = testbed.agents.slice(0, m.agents).map((a) => a.name);
  const plan = await deploy({ name: 'net', ...m.network, cut: m.setting.cut?.(m.agents) ?? '', objective: 'latency', agents });
  m.plans[m.name] = planWords(plan);
  const ceiling = await ceilingOf(plan, m.setting.spec, `${m.model}-${m.agents}-${Object.keys(m.plans).length}`, cluster);
  await load({ deployment: 'net', frames: quick ? 2 : WARM_UP_FRAMES, inFlight: 1 });
  const one = async () => {
    const { latenciesMs, busy } = await load({ deployment: 'net', frames: quick ? 1 : 2, inFlight: 1 });
    return { ms: median(latenciesMs), busy };
  };
  const alone = async () => ({ ms: median(await m.bare.run(1)), busy: [] });
  const slices = async () => {
    await ceiling.round();
    return { ms: Number.NaN, busy: [] };
  };
  const [frames = [], bare = []] = await inTurn(quick ? 2 : 4, [one, alone, slices]);
  const ceilingMs = ceiling.ms();
  await ceiling.stop();
  await client.undeploy('net');
  const wanted = m.setting.speedup(m.agents);
  const limit = usualLimit(frames.map(({ busy }) => busy));
  const ms = frames.map((sample) => sample.ms);
  const bareMs = bare.map((sample) => sample.ms);
  const ratios = ms.map((own, i) => (bareMs[i] ?? Number.NaN) / own);
  return [
    figure(`${m.name}: latency over one device`, 'x', ratios, wanted === undefined ? undefined : atLeast(wanted), { limit }),
    figure(
      `${m.name}: share of the compute ceiling`,
      'x',
      ms.map((own) => ceilingMs / own),
      atLeast(CEILING_SHARE),
    ),
    figure(
      `${m.name}: compute ceiling over one device`,
      'x',
      bareMs.map((own) => own / ceilingMs),
    ),
    figure(`${m.name}: latency`, 'ms', ms, undefined, { beside: { predicted: plan.predictedLatencyMs } }),
  ];
}

const caseName = (model: string, agents: number, { title }: Setting): string => `${model}, ${agents} agents ${title}`;

/** Settings that share devices share a testbed. */
async function measure(context: BenchContext, settings: readonly Setting[], plans: Record<string, string>): Promise<object> {
  const models = context.quick ? MODELS.slice(0, 1) : MODELS;
  const countsOf = ({ counts }: Setting): readonly number[] => (context.quick ? counts.slice(0, 1) : counts);
  const wanted = (model: string): boolean => settings.some((s) => countsOf(s).some((n) => context.wants(caseName(model, n, s))));
  const names = models.filter(wanted);
  const [{ spec } = { spec: DEFAULT_DEVICE }] = settings;
  if (names.length === 0) return {};
  const count = Math.max(...settings.flatMap(countsOf));
  return onCluster(context, { agents: Array.from({ length: count }, () => spec), atWork: true }, async (cluster) => {
    for (const model of names) {
      const network = await cluster.network(model);
      const bare = await cluster.bare(`bare-${model}`, { ...spec, memoryBytes: 4 * 2 ** 30 }, [network.model]);
      const cases = settings.flatMap((setting) =>
        countsOf(setting).map((agents): Case => {
          const name = caseName(model, agents, setting);
          return { name, run: () => at({ name, model, agents, setting, network, bare, plans }, cluster, context.quick) };
        }),
      );
      await context.cases(cases);
      await bare.stop();
    }
    return cluster.testbed.conditions;
  });
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  const groups = new Map<DeviceSpec, Setting[]>();
  for (const setting of SETTINGS) groups.set(setting.spec, [...(groups.get(setting.spec) ?? []), setting]);
  const conditions: object[] = [];
  for (const settings of groups.values()) conditions.push(await measure(context, settings, plans));
  return { objective: 'latency', ...conditions.find((c) => Object.keys(c).length > 0), plans };
}

export const latency: Bench = { name: 'latency', summary: 'one frame at a time, VGG16 over 2 to 8 agents', seconds: 620, run };
