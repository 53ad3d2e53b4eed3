/** One of six agents loses its power under load: what is lost, what comes twice, and how long no result comes. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, framesPerSecond, onCluster, planWords } from './cluster.js';
import { atMost, type Figure, figure, largest, median } from './figures.js';

const MODEL = 'alexnet';
const AGENTS = 6;
const IN_FLIGHT = 12;
const ALLOWED_GAP_MS = 1000;
/** When the power goes, from the start of the load, and how long the load goes on, as fast as before. */
const KILL_AFTER_MS = 3000;
const REST_MS = 10_000;
const QUICK_REST_MS = 5000;

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

async function at(name: string, objective: string, quick: boolean, cluster: Cluster, plans: Record<string, string>): Promise<Figure[]> {
  const { testbed, client, deploy, load, network } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(MODEL)), objective });
  plans[name] = planWords(plan);
  const victim = testbed.agents.find((agent) => plan.seats.some((seat) => seat.agent === agent.name));
  const frameMs = median((await load({ deployment: 'net', frames: 6, inFlight: 1 })).latenciesMs);
  const rate = framesPerSecond(await load({ deployment: 'net', frames: 4 * IN_FLIGHT, inFlight: IN_FLIGHT }), IN_FLIGHT);
  const answered = async (): Promise<number> => (await client.status('net')).deployments[0]?.completed ?? Number.NaN;
  const before = await answered();
  const frames = Math.round((rate * (KILL_AFTER_MS + (quick ? QUICK_REST_MS : REST_MS))) / 1000) + IN_FLIGHT;
  const loading = client.load({ deployment: 'net', frames, inFlight: IN_FLIGHT });
  await delay(KILL_AFTER_MS);
  await victim?.kill();
  const { latenciesMs, endedAtMs, failures, retried } = await loading;
  const answers = (await answered()) - before;
  await client.undeploy('net');
  // The same device comes back for the next case.
  await victim?.restart();
  await client.untilReady(testbed.agents.length);
  const after = endedAtMs.filter((ms) => ms > KILL_AFTER_MS).length;
  if (after < IN_FLIGHT) throw new ChairError('INTERNAL', 'the load was over before the agent was killed: nothing was measured');
  return [
    figure(`${name}: frames lost`, 'frames', [frames - latenciesMs.length - failures.length], atMost(0)),
    figure(`${name}: frames that failed with a code`, 'frames', [failures.length], atMost(0)),
    figure(`${name}: answers of the gateway above the frames sent`, 'frames', [Math.max(0, answers - latenciesMs.length)], atMost(0)),
    figure(
      `${name}: longest time without a result, less one frame's latency`,
      'ms',
      [Math.max(0, longestGap(endedAtMs, KILL_AFTER_MS) - frameMs)],
      atMost(ALLOWED_GAP_MS),
    ),
    figure(`${name}: one frame alone`, 'ms', [frameMs]),
    figure(`${name}: slowest frame`, 'ms', [largest(latenciesMs)]),
    figure(`${name}: frames issued again`, 'frames', [retried]),
    figure(`${name}: results after the kill`, 'frames', [after]),
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { agents: AGENTS }, async (cluster) => {
    const one = (objective: string): Case => {
      const name = `${MODEL}, planned for ${objective}`;
      return { name, run: () => at(name, objective, context.quick, cluster, plans) };
    };
    await context.cases((context.quick ? ['throughput'] : ['throughput', 'latency']).map(one));
    return { model: MODEL, 'kill -9': 'one agent with a seat, under load', ...cluster.testbed.conditions, plans };
  });
}

export const failover: Bench = { name: 'failover', summary: 'kill -9 of one of six agents under load', seconds: 70, run };
