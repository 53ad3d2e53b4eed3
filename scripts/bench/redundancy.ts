/** One part of every stage is missing, all of a sudden: how long no result comes with a parity, and without. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, onCluster, planWords, STANDBY } from './cluster.js';
import { longestGap } from './failover.js';
import { atMost, type Figure, figure, largest, median } from './figures.js';

const MODEL = 'alexnet';
const PARTS = 3;
/** Three parts, a parity, and one that can take the place of who falls. */
const AGENTS = PARTS + 2;
const IN_FLIGHT = 2;
/** When the part falls, from the start of the load, and how long the load goes on, as fast as before. */
const FALL_AFTER_MS = 4000;
/** Before an agent that says nothing is lost. */
const UNKNOWN_MS = 3000;
const REST_MS = 12_000;
const QUICK_REST_MS = 8000;

interface Setting {
  readonly name: string;
  readonly redundancy: number;
  readonly fall: 'kill -9' | 'SIGSTOP';
}

async function at({ name, redundancy, fall }: Setting, quick: boolean, cluster: Cluster, plans: Record<string, string>): Promise<Figure[]> {
  const { testbed, client, deploy, load, network } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(MODEL)), cut: `channels:${PARTS}`, redundancy });
  plans[name] = planWords(plan);
  const part = plan.redundancy?.covered[0] ?? plan.seats.at(-1)?.agent;
  const victim = testbed.agents.find((agent) => agent.name === part);
  const frameMs = median((await load({ deployment: 'net', frames: 8, inFlight: 1 })).latenciesMs);
  const usual = await load({ deployment: 'net', frames: 30, inFlight: IN_FLIGHT });
  const perFrameMs = ((usual.endedAtMs.at(-1) ?? 0) - (usual.endedAtMs[4] ?? 0)) / 25;
  const usualGapMs = longestGap(usual.endedAtMs, usual.endedAtMs[4] ?? 0);
  const frames = Math.round((FALL_AFTER_MS + (quick ? QUICK_REST_MS : REST_MS)) / perFrameMs);
  const loading = client.load({ deployment: 'net', frames, inFlight: IN_FLIGHT });
  await delay(FALL_AFTER_MS);
  if (fall === 'SIGSTOP') victim?.pause();
  else await victim?.kill();
  const { latenciesMs, endedAtMs, failures, retried } = await loading;
  await client.undeploy('net');
  // The same device comes back for the next case.
  if (fall === 'SIGSTOP') victim?.resume();
  else await victim?.restart();
  await client.untilReady(testbed.agents.length);
  const after = endedAtMs.filter((ms) => ms > FALL_AFTER_MS);
  if (after.length < 4 * IN_FLIGHT) throw new ChairError('INTERNAL', 'the load was over before the part fell: nothing was measured');
  // Until somebody knows: after that a new plan is made and loaded, which takes CPU from everybody.
  const soonMs = FALL_AFTER_MS + UNKNOWN_MS;
  const atOnce = longestGap([...endedAtMs.filter((ms) => ms < soonMs), soonMs], FALL_AFTER_MS);
  const coded = redundancy > 0;
  return [
    figure(`${name}: frames lost or failed`, 'frames', [frames - latenciesMs.length], atMost(0)),
    figure(`${name}: frames issued again`, 'frames', [retried], ...(coded ? [atMost(0)] : [])),
    figure(
      `${name}: longest time without a result, in the 3 s after the fall`,
      'ms',
      [atOnce],
      ...(coded ? [atMost(usualGapMs + frameMs)] : []),
    ),
    figure(`${name}: longest time without a result, with the change of plan`, 'ms', [longestGap(endedAtMs, FALL_AFTER_MS)]),
    figure(`${name}: usual longest time without a result`, 'ms', [usualGapMs]),
    figure(`${name}: one frame alone`, 'ms', [frameMs]),
    figure(`${name}: slowest frame`, 'ms', [largest(latenciesMs)]),
    figure(`${name}: failures`, 'frames', [failures.length], atMost(0)),
  ];
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { ...STANDBY, agents: AGENTS }, async (cluster) => {
    const settings: Setting[] = [
      { name: 'parity, kill -9', redundancy: 1, fall: 'kill -9' },
      { name: 'parity, SIGSTOP', redundancy: 1, fall: 'SIGSTOP' },
      { name: 'no parity, kill -9', redundancy: 0, fall: 'kill -9' },
      { name: 'no parity, SIGSTOP', redundancy: 0, fall: 'SIGSTOP' },
    ];
    const cases = settings.map((setting): Case => ({ name: setting.name, run: () => at(setting, context.quick, cluster, plans) }));
    await context.cases(cases);
    return { model: MODEL, cut: `channels:${PARTS}`, inFlight: IN_FLIGHT, ...cluster.testbed.conditions, plans };
  });
}

export const redundancy: Bench = {
  name: 'redundancy',
  summary: 'a part falls or stands still, with a parity and without',
  seconds: 130,
  run,
};
