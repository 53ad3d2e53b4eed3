/**
 * Throughput of N equal agents against N times the bare engine on one such device: networks that each agent can hold, and one that none can. There the
 * bare engine has no memory limit. Beside it N bare engines at once: devices of the testbed share one machine's caches and memory, boards do not.
 */
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { BareEngine } from './bare.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, framesPerSecond, inFlightOf, mean, onCluster, planWords } from './cluster.js';
import { atLeast, type Figure, figure, inTurn } from './figures.js';
import { bareFile, DETECTOR, type Network } from './networks.js';
import { usualLimit } from './usage.js';

/** The bare engine's copy of VGG16 is larger than a device's memory. */
const ROOMY: DeviceSpec = { ...DEFAULT_DEVICE, memoryBytes: 4 * 2 ** 30 };
/** VGG16 has 528 MiB of weights. */
const SMALL: DeviceSpec = { ...DEFAULT_DEVICE, memoryBytes: 512 * 2 ** 20 };
const COUNTS = [2, 4, 6, 8];
/** Frames of the bare engine and, of each agent, of the cluster, that are counted in one sample: so that a sample takes some seconds. */
const FRAMES: Readonly<Record<string, { readonly bare: number; readonly perAgent: number; readonly pairs: number }>> = {
  alexnet: { bare: 10, perAgent: 12, pairs: 4 },
  vgg16: { bare: 2, perAgent: 3, pairs: 3 },
  [DETECTOR]: { bare: 4, perAgent: 5, pairs: 3 },
};

interface Setting {
  readonly name: string;
  readonly model: string;
  readonly agents: number;
  readonly target: number;
  readonly network: Network;
  /** One for each device, each on a device of its own; alone the first one runs. */
  readonly bare: readonly BareEngine[];
  readonly plans: Record<string, string>;
}

async function at(s: Setting, { testbed, client, deploy, load }: Cluster, quick: boolean): Promise<Figure[]> {
  const agents = testbed.agents.slice(0, s.agents).map((a) => a.name);
  const plan = await deploy({ name: 'net', ...s.network, objective: 'throughput', agents });
  s.plans[s.name] = planWords(plan);
  // Always one waiting for each frame that is computed, and what the plan wants: no agent is idle between frames.
  const inFlight = Math.max(2 * s.agents, inFlightOf(plan));
  await load({ deployment: 'net', frames: 2 * s.agents, inFlight });
  const frames = FRAMES[s.model] ?? { bare: 2, perAgent: 3, pairs: 3 };
  const run = async () => {
    const report = await load({ deployment: 'net', frames: frames.perAgent * s.agents + s.agents + inFlight, inFlight });
    return { fps: framesPerSecond(report, s.agents - 1, inFlight), busy: report.busy };
  };
  /** Frames per second of so many bare engines at once, together. */
  const bare = (count: number) => async () => {
    const each = await Promise.all(s.bare.slice(0, count).map(async (engine) => 1000 / mean(await engine.run(frames.bare))));
    return { fps: each.reduce((sum, fps) => sum + fps, 0), busy: [] };
  };
  const [cluster = [], alone = [], crowd = []] = await inTurn(quick ? 2 : frames.pairs, [run, bare(1), bare(s.agents)]);
  const over = (of: readonly { fps: number }[], times: number): number[] =>
    cluster.map(({ fps }, i) => fps / (times * (of[i]?.fps ?? Number.NaN)));
  await client.undeploy('net');
  const limit = usualLimit(cluster.map(({ busy }) => busy));
  return [
    figure(`${s.name}: throughput over ${s.agents} x the bare engine`, 'x', over(alone, s.agents), atLeast(s.target), { limit }),
    figure(`${s.name}: throughput over ${s.agents} bare engines at once`, 'x', over(crowd, 1)),
    figure(
      `${s.name}: frames per second`,
      'fps',
      cluster.map(({ fps }) => fps),
    ),
  ];
}

interface Group {
  readonly name: string;
  readonly model: string;
  readonly spec: DeviceSpec;
  readonly target: number;
}

const GROUPS: readonly Group[] = [
  { name: 'alexnet', model: 'alexnet', spec: DEFAULT_DEVICE, target: 0.92 },
  { name: 'vgg16', model: 'vgg16', spec: DEFAULT_DEVICE, target: 0.92 },
  { name: DETECTOR, model: DETECTOR, spec: DEFAULT_DEVICE, target: 0.92 },
  { name: 'vgg16 on 512 MiB', model: 'vgg16', spec: SMALL, target: 0.8 },
];

async function measure(context: BenchContext, spec: DeviceSpec, groups: readonly Group[], plans: Record<string, string>): Promise<object> {
  const counts = context.quick ? [2] : COUNTS;
  const caseName = ({ name }: Group, n: number): string => `${name}, ${n} agents`;
  const wanted = groups.filter((group) => counts.some((n) => context.wants(caseName(group, n))));
  if (wanted.length === 0) return {};
  return onCluster(context, { agents: Array.from({ length: Math.max(...counts) }, () => spec), atWork: true }, async (cluster) => {
    for (const group of wanted) {
      const network = await cluster.network(group.model);
      const file = await bareFile(network, `${cluster.testbed.directory}/bare-${group.model}`);
      const bare: BareEngine[] = [];
      while (bare.length < Math.max(...counts)) bare.push(await cluster.bare(`bare-${group.model}-${bare.length + 1}`, ROOMY, [file]));
      const cases = counts.map((agents): Case => {
        const name = caseName(group, agents);
        const setting = { name, model: group.model, agents, target: group.target, network, bare, plans };
        return { name, run: () => at(setting, cluster, context.quick) };
      });
      await context.cases(cases);
      for (const engine of bare) await engine.stop();
    }
    return { ...cluster.testbed.conditions };
  });
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  const roomy = await measure(
    context,
    DEFAULT_DEVICE,
    GROUPS.filter(({ spec }) => spec === DEFAULT_DEVICE),
    plans,
  );
  const small = await measure(
    context,
    SMALL,
    GROUPS.filter(({ spec }) => spec === SMALL),
    plans,
  );
  return { objective: 'throughput', planner: 'auto', ...small, ...roomy, plans };
}

export const scaling: Bench = { name: 'scaling', summary: 'throughput of 2 to 8 agents against as many bare engines', seconds: 1000, run };
