/** One of six agents loses its power under load: what is lost, what comes twice, and how long no result comes. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, onCluster, planWords } from './cluster.js';
import { atMost, type Figure, figure, largest, median } from './figures.js';

const MODEL = 'alexnet';
const AGENTS = 6;
const IN_FLIGHT = 12;
const ALLOWED_GAP_MS = 1000;

/** Longest time without a result, from `fromMs` on. Pure. */
export function longestGap(endedAtMs: readonly number[], fromMs: number): number {
  const sorted = endedAtMs.toSorted((a, b) => a - b);
  let longest = 0;
  for (const [i, at] of sorted.entries()) {
    const before = sorted[i - 1];
    if (before !== undefined && at > fromMs) longest = Math.max(longest, at - before);
  }
  return longest;
}

async function at(name: string, objective: string, frames: number, cluster: Cluster, plans: Record<string, string>): Promise<Figure[]> {
  const { testbed, client, deploy, load, network } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(MODEL)), objective });
  plans[name] = planWords(plan);
  const victim = testbed.agents.find((agent) => plan.seats.some((seat) => seat.agent === agent.name));
  const frameMs = median((await load({ deployment: 'net', frames: 6, inFlight: 1 })).latenciesMs);
  await load({ deployment: 'net', frames: IN_FLIGHT, inFlight: IN_FLIGHT });
  const loading = client.load({ deployment: 'net', frames, inFlight: IN_FLIGHT });
  const killAfterMs = 3000;
  await delay(killAfterMs);
  await victim?.kill();
  const { latenciesMs, endedAtMs, failures, retried } = await loading;
  const gap = longestGap(endedAtMs, killAfterMs);
  await client.undeploy('net');
  // The same device comes back for the next case.
  await victim?.restart();
  await client.untilReady(testbed.agents.length);
  return [
    figure(`${name}: frames lost`, 'frames', [frames - latenciesMs.length], atMost(0)),
    figure(`${name}: frames that failed with a code`, 'frames', [failures.length], atMost(0)),
    figure(`${name}: results above frames (duplicates)`, 'frames', [Math.max(0, latenciesMs.length + failures.length - frames)], atMost(0)),
    figure(`${name}: longest time without a result, less one frame's latency`, 'ms', [Math.max(0, gap - frameMs)], atMost(ALLOWED_GAP_MS)),
    figure(`${name}: one frame alone`, 'ms', [frameMs]),
    figure(`${name}: slowest frame`, 'ms', [largest(latenciesMs)]),
    figure(`${name}: frames issued again`, 'frames', [retried]),
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { agents: AGENTS }, async (cluster) => {
    const frames = context.quick ? 80 : 140;
    const one = (objective: string): Case => {
      const name = `${MODEL}, planned for ${objective}`;
      return { name, run: () => at(name, objective, frames, cluster, plans) };
    };
    await context.cases((context.quick ? ['throughput'] : ['throughput', 'latency']).map(one));
    return { model: MODEL, 'kill -9': 'one agent with a seat, under load', ...cluster.testbed.conditions, plans };
  });
}

export const failover: Bench = { name: 'failover', summary: 'kill -9 of one of six agents under load', seconds: 90, run };
