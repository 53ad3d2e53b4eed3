/** Plans that nobody asked to change: seats follow demand that moves between two deployments, and stay where they are in ten minutes of noise. */
import { setTimeout as delay } from 'node:timers/promises';
import type { DeploymentStatus } from '../../broker/messages.js';
import type { LoadReport, LoadRequest, TestbedClient } from '../testbed/client.js';
import { DEFAULT_DEVICE, type DeviceSpec } from '../testbed/devices.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, onCluster, STANDBY } from './cluster.js';
import { atLeast, atMost, type Figure, figure } from './figures.js';

const AGENTS = 6;
const MOST_FRAMES = 1_000_000;
const WINDOW = 40;
/** What one agent of 0.18 core serves of each, frames per second, about: for loads of one tenth and nine tenths of four and a half agents. */
const ONE = { alexnet: 5.5, resnet18: 2.2 } as const;
const HEAVY = 4.05;
const LIGHT = 0.45;
/** Memory for one of them, not for both: 374 MiB after what the system needs. */
const MEMORY_BYTES = 440 * 2 ** 20;

type Name = keyof typeof ONE;
const NAMES: readonly Name[] = ['alexnet', 'resnet18'];

const deploymentOf = async (client: TestbedClient, name: string): Promise<DeploymentStatus | undefined> =>
  (await client.status(name)).deployments[0];
const agentsOf = (deployment: DeploymentStatus | undefined): number => new Set(deployment?.plan?.seats.map(({ agent }) => agent)).size;

/** Loads both, each at its part of what agents serve; a client each. */
async function loads(
  clients: ReadonlyMap<Name, TestbedClient>,
  parts: Readonly<Record<Name, number>>,
  forMs: number,
): Promise<Map<Name, LoadReport>> {
  const all = [...clients].map(async ([name, client]): Promise<[Name, LoadReport]> => {
    const request: LoadRequest = { deployment: name, frames: MOST_FRAMES, inFlight: WINDOW, perSecond: parts[name] * ONE[name], forMs };
    return [name, await client.load(request)];
  });
  return new Map(await Promise.all(all));
}

/** Changes of each plan while `work` runs, as agents per deployment and when. */
async function watched<T>(
  client: TestbedClient,
  work: Promise<T>,
  seen: (name: Name, row: DeploymentStatus, ms: number) => void,
): Promise<T> {
  let done = false;
  const result = work.finally(() => {
    done = true;
  });
  result.catch(() => undefined);
  for (const startedAt = performance.now(); !done; await delay(500)) {
    for (const name of NAMES) {
      const row = await deploymentOf(client, name);
      if (row !== undefined) seen(name, row, performance.now() - startedAt);
    }
  }
  return result;
}

/** What was decided, for whoever reads the log. */
async function told(context: BenchContext, client: TestbedClient): Promise<void> {
  const { events, uptimeMs, deployments } = await client.status();
  const kinds = new Set(['re-planning', 'planned', 'handing over', 'serving', 'abandoned', 'prepare failed', 'failed']);
  for (const { atMs, kind, text } of events)
    if (kinds.has(kind)) context.note(`${((atMs - uptimeMs) / 1000).toFixed(0)} s  ${kind}: ${text}`);
  for (const { name, outlook } of deployments) context.note(`${name}: ${outlook}`);
}

const failed = (reports: Iterable<LoadReport>): number => [...reports].reduce((sum, { failures }) => sum + failures.length, 0);

/** Of the frames that were sent in the last `ms`, those that were answered in them. */
const servedRate = ({ endedAtMs }: LoadReport, fromMs: number, untilMs: number): number =>
  (endedAtMs.filter((ms) => ms >= fromMs && ms < untilMs).length * 1000) / (untilMs - fromMs);

async function started(cluster: Cluster, planner = 'auto'): Promise<Map<Name, TestbedClient>> {
  const clients = new Map<Name, TestbedClient>();
  for (const name of [...NAMES].reverse()) {
    await cluster.deploy({ name, ...(await cluster.network(name)), objective: 'throughput', planner });
    clients.set(name, await cluster.testbed.client());
  }
  return clients;
}

async function demandMoves(context: BenchContext, cluster: Cluster): Promise<Figure[]> {
  const { client } = cluster;
  // Whole networks, of which an agent holds one: cut ones share every agent, and nothing has to move.
  const clients = await started(cluster, 'replicas');
  const [firstMs, secondMs, lastMs] = context.quick ? [45_000, 75_000, 15_000] : [60_000, 100_000, 30_000];
  const first = await loads(clients, { alexnet: LIGHT, resnet18: HEAVY }, firstMs);
  const before = agentsOf(await deploymentOf(client, 'alexnet'));
  let changedMs = 0;
  const epochs = new Map<Name, number>();
  const second = await watched(client, loads(clients, { alexnet: HEAVY, resnet18: LIGHT }, secondMs), (name, row, ms) => {
    if (epochs.has(name) && epochs.get(name) !== row.epoch) changedMs = ms;
    epochs.set(name, row.epoch);
  });
  await told(context, client);
  const name = 'demand 1:9, then 9:1';
  const share = (which: Name, part: number): number => {
    const report = second.get(which);
    return report === undefined ? 0 : servedRate(report, secondMs - lastMs, secondMs) / (part * ONE[which]);
  };
  return [
    figure(`${name}: frames that failed`, 'frames', [failed(first.values()) + failed(second.values())], atMost(0)),
    figure(`${name}: agents of alexnet before`, 'agents', [before]),
    figure(`${name}: agents of alexnet after`, 'agents', [agentsOf(await deploymentOf(client, 'alexnet'))]),
    figure(`${name}: last change of a plan`, 's', [changedMs / 1000]),
    figure(`${name}: at the end, served of what is asked, alexnet`, '', [share('alexnet', HEAVY)], atLeast(0.9)),
    figure(`${name}: at the end, served of what is asked, resnet18`, '', [share('resnet18', LIGHT)], atLeast(0.9)),
  ];
}

/** Agents get between two thirds and all of their share, anew every five seconds; clients ask for half to one and a half times the mean, anew every ten. */
async function noise(context: BenchContext, cluster: Cluster): Promise<Figure[]> {
  const { client, testbed } = cluster;
  const clients = await started(cluster);
  const totalMs = context.quick ? 120_000 : 600_000;
  let state = 7;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const timer = setInterval(() => {
    for (const agent of testbed.agents) agent.setCpu(DEFAULT_DEVICE.cpu * (2 / 3 + random() / 3));
  }, 5000);
  const keys = new Map<Name, string[]>(NAMES.map((name) => [name, []]));
  let failures = 0;
  try {
    const work = async (): Promise<void> => {
      for (const end = performance.now() + totalMs; performance.now() < end; ) {
        const parts = { alexnet: 2 * (0.5 + random()), resnet18: 2 * (0.5 + random()) };
        failures += failed((await loads(clients, parts, 10_000)).values());
      }
    };
    const epochs = new Map<Name, number>();
    await watched(client, work(), (name, row) => {
      if (epochs.get(name) === row.epoch) return;
      epochs.set(name, row.epoch);
      keys.get(name)?.push(JSON.stringify(row.plan?.seats.map(({ slice, agent, replica }) => [slice, agent, replica])));
    });
  } finally {
    clearInterval(timer);
    for (const agent of testbed.agents) agent.setCpu(DEFAULT_DEVICE.cpu);
  }
  await told(context, client);
  const name = `${totalMs / 60_000} minutes of noise`;
  return [
    figure(`${name}: frames that failed`, 'frames', [failures], atMost(0)),
    ...NAMES.flatMap((which) => {
      const plans = keys.get(which) ?? [];
      return [
        figure(`${name}: changes of the plan of ${which}`, 'plans', [Math.max(0, plans.length - 1)], atMost(2)),
        figure(`${name}: plans of ${which} that came back`, 'plans', [plans.length - new Set(plans).size], atMost(0)),
      ];
    }),
  ];
}

const agentsWith = (memoryBytes: number): DeviceSpec[] => Array.from({ length: AGENTS }, () => ({ ...DEFAULT_DEVICE, memoryBytes }));

async function run(context: BenchContext): Promise<object> {
  const conditions: Record<string, object> = {};
  const one = (name: string, memoryBytes: number, work: (context: BenchContext, cluster: Cluster) => Promise<Figure[]>) => ({
    name,
    run: () =>
      onCluster(context, { ...STANDBY, holdPlans: false, agents: agentsWith(memoryBytes) }, (cluster) => {
        conditions[name] = cluster.testbed.conditions;
        return work(context, cluster);
      }),
  });
  await context.cases([one('demand 1:9, then 9:1', MEMORY_BYTES, demandMoves), one('minutes of noise', DEFAULT_DEVICE.memoryBytes, noise)]);
  return { models: NAMES, 'one agent serves, frames/s': ONE, conditions };
}

export const rebalance: Bench = { name: 'rebalance', summary: 'seats follow demand, and stay where they are in noise', seconds: 900, run };
