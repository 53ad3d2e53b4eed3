/** What benchmarks on a testbed have in common. */
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { PlanReport } from '../../broker/messages.js';
import type { DeployOptions } from '../../scheduler/client.js';
import { counted } from '../report.js';
import type { LoadReport, LoadRequest, TestbedClient } from '../testbed/client.js';
import type { DeviceSpec } from '../testbed/devices.js';
import { STEPS } from '../testbed/steady.js';
import { startTestbed, type Testbed, type TestbedOptions } from '../testbed/testbed.js';
import { BareEngine, type BareOptions } from './bare.js';
import type { BenchContext } from './bench.js';
import { type Network, networkFile } from './networks.js';
import { type Busy, watch } from './usage.js';
import { FRAMES_AT_WORK, putToWork } from './warm.js';

/** A load, and how busy everything was meanwhile. */
export interface WatchedLoad extends LoadReport {
  readonly busy: readonly Busy[];
}

export interface Cluster {
  readonly testbed: Testbed;
  readonly client: TestbedClient;
  /** A network by name (networks.ts), as a file. */
  readonly network: (name: string) => Promise<Network>;
  /** Deploys with the agents' CPU limits lifted (loading is not what is measured), then sets them again. */
  readonly deploy: (options: DeployOptions) => Promise<PlanReport>;
  /** Throws FRAME_FAILED when a frame failed: a figure over lost frames would be wrong. */
  readonly load: (request: LoadRequest) => Promise<WatchedLoad>;
  /** The bare engine on a device of its own, loaded without a CPU limit, and warm. */
  readonly bare: (name: string, spec: DeviceSpec, models: readonly string[], options?: BareOptions) => Promise<BareEngine>;
  /** Files of a deployed plan's slices, by the name in its report. */
  readonly sliceFile: (slice: string) => string;
}

const POLL_MS = 100;
/** With `--profile`: the engine threads of the testbed; runs at most and ms of each measurement. */
const PROFILING = { threads: [1], runs: 3, budgetMs: 300 };

/** Whether its plan is made and its agents load their slices, or more. */
async function isPreparing(client: TestbedClient, name: string): Promise<boolean> {
  const { deployments } = await client.status(name);
  const state = deployments.find((d) => d.name === name)?.state;
  return state === 'preparing' || state === 'serving';
}

/** For benchmarks of losses: slices stand by as they do by default. Elsewhere none do, so that none are fetched while something else is measured. */
export const STANDBY: Pick<TestbedOptions, 'standbyMb'> = { standbyMb: 1024 };

export interface ClusterOptions extends TestbedOptions {
  /** Frames of a small network first, so that what is measured is a cluster at work (warm.ts); not in a quick run. */
  readonly atWork?: boolean;
}

/** Starts a testbed, runs `work` on it and removes it. */
export async function onCluster<T>(
  context: BenchContext,
  { atWork = false, ...options }: ClusterOptions,
  work: (cluster: Cluster) => Promise<T>,
): Promise<T> {
  const testbed = await startTestbed({ threads: 1, cli: await context.cli(), holdPlans: true, standbyMb: 0, ...options });
  try {
    const { conditions } = testbed;
    context.depends(conditions);
    if (conditions.oversubscribed) {
      const came = `${conditions.coresPromised.toFixed(2)} cores promised, ${conditions.coresOfMachine} there`;
      throw new ChairError('CONFIG_INVALID', 'this machine is too small for the benchmark', { came });
    }
    const client = await testbed.client();
    await client.untilReady(testbed.agents.length);
    const limited = conditions.isolation === 'namespaces';
    const cluster: Cluster = {
      testbed,
      client,
      network: (name) => networkFile(name, context.models),
      deploy: async (deployOptions) => {
        const { model, shapes = [], images = [], agents = [] } = deployOptions;
        if (context.profile) await client.profile({ model, shapes, images, agents, ...PROFILING });
        if (!limited) return client.deploy(deployOptions);
        let done = false;
        const plan = client.deploy(deployOptions).finally(() => {
          done = true;
        });
        plan.catch(() => undefined);
        // While it is planned links may be measured: that must happen under the limits.
        while (!done && !(await isPreparing(client, deployOptions.name))) await delay(POLL_MS);
        try {
          for (const agent of testbed.agents) agent.setCpu(conditions.coresOfMachine);
          return await plan;
        } finally {
          for (const [i, agent] of testbed.agents.entries()) agent.setCpu(conditions.agents[i]?.cpu ?? 1);
        }
      },
      load: async (request) => {
        const usage = watch(testbed);
        const startedMs = performance.now();
        try {
          const report = await client.load(request);
          if (report.failures.length > 0) {
            const frames = report.failures.length + report.endedAtMs.length;
            throw new ChairError('FRAME_FAILED', `${report.failures.length} of ${frames} frames failed`, {
              came: [...new Set(report.failures)].join(', '),
            });
          }
          // What was computed before and after says nothing of what kept the counted frames.
          const counted = report.steady === null ? [] : [report.steady.from, report.steady.to];
          return { ...report, busy: usage.busy(...counted.map((i) => startedMs + (report.endedAtMs[i] ?? Number.NaN))) };
        } finally {
          usage.stop();
        }
      },
      bare: async (name, spec, models, bareOptions) => {
        const device = testbed.addDevice(name, spec);
        if (limited) device.setCpu(conditions.coresOfMachine);
        const bare = await BareEngine.start(device, models, bareOptions);
        for (const i of models.keys()) await bare.run(1, i);
        if (limited) device.setCpu(spec.cpu);
        return bare;
      },
      sliceFile: (slice) => path.join(testbed.directory, 'gateway', 'gateway-cache', 'slices', slice),
    };
    if (atWork && !context.quick) {
      context.note(`${FRAMES_AT_WORK} frames of a small network, so that the cluster is at work`);
      await putToWork(cluster, context.models);
      context.depends({ framesOfASmallNetworkBefore: FRAMES_AT_WORK });
    }
    return await work(cluster);
  } finally {
    await testbed.stop();
  }
}

/** A throughput, and what there is to say of how it was counted. */
export interface Throughput {
  readonly fps: number;
  readonly busy: readonly Busy[];
  /** How many results were counted. */
  readonly frames: number;
  /** '' = nothing. */
  readonly trouble: string;
}

/** What each count may take at most, ms. */
const MOST_MS = 90_000;
const ENDLESS = 1_000_000;

/**
 * Frames per second of a plan with all the frames in flight that it admits and some that wait for it, for as long as each of its seats has its turns: STEPS of the
 * slowest agent, after everybody has the frames waiting that he will ever have (testbed/steady.ts). Throws as `load`.
 */
export async function throughputOf({ load }: Pick<Cluster, 'load'>, plan: PlanReport, { mostMs = MOST_MS } = {}): Promise<Throughput> {
  const perAgent = new Map<string, number>();
  for (const { agent, predictedMs } of plan.seats) perAgent.set(agent, (perAgent.get(agent) ?? 0) + predictedMs);
  const enough = { frames: STEPS * perAgent.size, ms: STEPS * Math.max(...perAgent.values()) };
  const inFlight = inFlightOf(plan) + perAgent.size;
  const { deployment } = plan;
  const { steady, busy } = await load({ deployment, frames: ENDLESS, inFlight, steady: { ...enough, mostMs } });
  if (steady === null) throw new ChairError('FRAME_DEADLINE', `no result of '${deployment}' came steadily`);
  const frames = steady.to - steady.from;
  const trouble = steady.isEnough ? '' : `not steady within ${mostMs / 1000} s, the later half was counted`;
  return { fps: steady.fps, busy, frames, trouble };
}

/**
 * Frames per second from result number `skip` on, as the pipe fills before, as long as frames come: with `inFlight` outstanding the last ones of a load are computed while
 * some agents have nothing to do any more, which says nothing of throughput. For equal agents, of which each has its turns early; else `throughputOf`.
 */
export function framesPerSecond({ endedAtMs }: Pick<LoadReport, 'endedAtMs'>, skip: number, inFlight: number): number {
  const end = endedAtMs.length - 1 - inFlight;
  const [first = Number.NaN, last = Number.NaN] = [endedAtMs[skip], endedAtMs[end]];
  return ((end - skip) * 1000) / (last - first);
}

export const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Frames that the plan admits at once. Throws PLAN_INVALID when its report does not say. */
export function inFlightOf({ deployment, details }: PlanReport): number {
  if (details !== null && details.inFlight > 0) return details.inFlight;
  throw new ChairError('PLAN_INVALID', `the report of '${deployment}' does not say how many frames are in flight`);
}

/** In words what a plan is: `rows x4 of 13 stages on 4 agents`; the same plan gives the same words. */
export function planWords({ planner, seats }: Pick<PlanReport, 'planner' | 'seats'>): string {
  if (seats.length === 0) return `${planner || 'no planner'}: no seats`;
  const stages = [...new Set(seats.map((seat) => seat.stage))].sort((a, b) => a - b);
  const agents = new Set(seats.map((seat) => seat.agent)).size;
  const cuts = stages.map((stage) => {
    const mine = seats.filter((seat) => seat.stage === stage);
    // The replicas that are left after a loss need not begin at 0.
    const replicas = new Set(mine.map(({ replica }) => replica));
    const parts = mine.filter(({ replica }) => replica === Math.min(...replicas)).length;
    return `${mine[0]?.cut ?? ''}${parts > 1 ? ` in ${parts}` : ''}${replicas.size > 1 ? ` x ${replicas.size}` : ''}`;
  });
  return `${planner}: ${[...new Set(cuts)].join(', ')}; ${counted(stages.length, 'stage')} on ${counted(agents, 'agent')}`;
}
