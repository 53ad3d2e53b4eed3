/**
 * One frame at a time over N agents, planned for latency, against one device, and against the compute ceiling: the same slices run alone on such a
 * device, the slowest part of each stage counted. What is missing to the ceiling is transport and waiting; what the ceiling is missing to N is the cut
 * itself.
 */
import type { PlanReport } from '../../broker/messages.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, onCluster, planWords } from './cluster.js';
import { atLeast, type Figure, figure, interleaved, median } from './figures.js';
import type { Network } from './networks.js';
import { usualLimit } from './usage.js';

/** How much faster than one device, by number of agents. */
const SPEEDUP: Readonly<Record<number, number>> = { 2: 1.8, 4: 3.1, 6: 4.2, 8: 5.0 };
const SLOW_LINK_SPEEDUP = 2.6;
const CEILING_SHARE = 0.85;
const SLOW_LINK_BITS = 100e6;
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

/** Median time of each part of replica 0 when it runs alone: milliseconds, `[stage][part]`. */
async function partTimes({ seats }: PlanReport, spec: DeviceSpec, name: string, runs: number, cluster: Cluster): Promise<number[][]> {
  const files = [...new Set(seats.map((seat) => cluster.sliceFile(seat.slice)))];
  // As agents load them: not prepacked.
  const bare = await cluster.bare(`ceiling-${name}`, { ...spec, memoryBytes: 4 * 2 ** 30 }, files, { prepack: false });
  const times = new Map<string, number>();
  for (const [i, file] of files.entries()) times.set(file, median(await bare.run(runs, i)));
  await bare.stop();
  const stages: number[][] = [];
  for (const { stage, replica, slice } of seats) {
    const parts = stages[stage] ?? [];
    stages[stage] = parts;
    if (replica === 0) parts.push(times.get(cluster.sliceFile(slice)) ?? Number.NaN);
  }
  return stages;
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
  const parts = await partTimes(plan, m.setting.spec, `${m.model}-${m.agents}-${Object.keys(m.plans).length}`, quick ? 1 : 3, cluster);
  const ceilingMs = parts.reduce((sum, stage) => sum + Math.max(...stage), 0);
  await load({ deployment: 'net', frames: 2, inFlight: 1 });
  const samples = await interleaved(
    quick ? 2 : 4,
    async () => {
      const { latenciesMs, busy } = await load({ deployment: 'net', frames: quick ? 1 : 2, inFlight: 1 });
      return { ms: median(latenciesMs), busy };
    },
    async () => median(await m.bare.run(1)),
  );
  await client.undeploy('net');
  const wanted = m.setting.speedup(m.agents);
  const limit = usualLimit(samples.map(({ a }) => a.busy));
  const ratios = samples.map(({ a, b }) => b / a.ms);
  const shares = samples.map(({ a }) => ceilingMs / a.ms);
  const ceilings = samples.map(({ b }) => b / ceilingMs);
  return [
    figure(`${m.name}: latency over one device`, 'x', ratios, wanted === undefined ? undefined : atLeast(wanted), { limit }),
    figure(`${m.name}: share of the compute ceiling`, 'x', shares, atLeast(CEILING_SHARE)),
    figure(`${m.name}: compute ceiling over one device`, 'x', ceilings),
    figure(
      `${m.name}: latency`,
      'ms',
      samples.map(({ a }) => a.ms),
    ),
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
  return onCluster(context, { agents: Array.from({ length: count }, () => spec) }, async (cluster) => {
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

export const latency: Bench = { name: 'latency', summary: 'one frame at a time, VGG16 over 2 to 8 agents', seconds: 360, run };
