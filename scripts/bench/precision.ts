/**
 * Wire precision: the same cut on slow links with raw wires and with an allowed error (`--max-error`), in turn. Deployed anew for every sample, since one
 * deployment would count as load on the other. The error is the one that the gateway measured; that it holds for what the cluster answers is a test's matter.
 */
import type { PlanReport } from '../../broker/messages.js';
import { DEFAULT_DEVICE } from '../testbed/devices.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, onCluster, throughputOf } from './cluster.js';
import { atMost, type Figure, figure, interleaved, largest, median } from './figures.js';

const RATE_BITS = 20e6;
const MAX_ERROR = 0.01;
const AGENTS = 3;

interface Setting {
  readonly model: string;
  readonly cut: string;
  readonly objective: 'latency' | 'throughput';
  readonly frames: number;
}

interface Sample {
  readonly plan: PlanReport;
  /** ms per frame: latency of one alone, or 1000 / frames per second. */
  readonly ms: number;
}

async function sample(cluster: Cluster, { model, cut, objective, frames }: Setting, maxError: number): Promise<Sample> {
  const plan = await cluster.deploy({ name: 'net', ...(await cluster.network(model)), cut, objective, maxError });
  try {
    const inFlight = objective === 'latency' ? 1 : 16;
    await cluster.load({ deployment: 'net', frames: 3, inFlight });
    if (objective === 'throughput') return { plan, ms: 1000 / (await throughputOf(cluster, plan)).fps };
    return { plan, ms: median((await cluster.load({ deployment: 'net', frames, inFlight: 1 })).latenciesMs) };
  } finally {
    await cluster.client.undeploy('net');
  }
}

const bytesOf = (plan: PlanReport): number => plan.links.reduce((sum, link) => sum + link.bytesPerFrame, 0);

async function measured(cluster: Cluster, setting: Setting, pairs: number, plans: Record<string, unknown>): Promise<Figure[]> {
  const samples = await interleaved(
    pairs,
    () => sample(cluster, setting, 0),
    () => sample(cluster, setting, MAX_ERROR),
  );
  const name = `${setting.model}, ${setting.cut}, ${setting.objective}`;
  plans[name] = samples.map(({ b }) => b.plan.precision?.rows.map((row) => row.encoding).join(' ') ?? '');
  const unit = 'ms per frame';
  const of = (pick: (pair: (typeof samples)[number]) => number): number[] => samples.map(pick);
  return [
    figure(
      `${name}: raw over encoded`,
      'x',
      of(({ a, b }) => a.ms / b.ms),
    ),
    figure(
      `${name}: raw`,
      unit,
      of(({ a }) => a.ms),
    ),
    figure(
      `${name}: with an error of ${MAX_ERROR} allowed`,
      unit,
      of(({ b }) => b.ms),
    ),
    figure(
      `${name}: largest measured error`,
      '',
      of(({ b }) => b.plan.precision?.error ?? 0),
      atMost(MAX_ERROR),
      { value: largest },
    ),
    figure(
      `${name}: bytes of a frame, encoded over raw`,
      'x',
      of(({ a, b }) => bytesOf(b.plan) / bytesOf(a.plan)),
    ),
  ];
}

async function run(context: BenchContext): Promise<object> {
  const agents = Array.from({ length: AGENTS }, () => ({ ...DEFAULT_DEVICE, rateBits: RATE_BITS }));
  const plans: Record<string, unknown> = {};
  return onCluster(context, { agents }, async (cluster) => {
    const one = (setting: Setting): Case => {
      const name = `${setting.model}, ${setting.cut}`;
      return { name, run: () => measured(cluster, setting, context.quick ? 1 : 3, plans) };
    };
    await context.cases([
      one({ model: 'vgg16-features', cut: 'rows:3', objective: 'latency', frames: context.quick ? 3 : 7 }),
      ...(context.quick ? [] : [one({ model: 'vgg16-features', cut: 'stages:3', objective: 'throughput', frames: 18 })]),
    ]);
    return { ...cluster.testbed.conditions, 'encodings by boundary': plans, 'calibration inputs': '4 made-up ones' };
  });
}

export const precision: Bench = {
  name: 'precision',
  summary: 'slow links with raw and with short wires (--max-error), and the measured error',
  seconds: 260,
  run,
};
