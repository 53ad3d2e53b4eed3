/** One of six agents loses its power under load: what is lost, what comes twice, and how long no result comes. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { DeployOptions } from '../../scheduler/client.js';
import type { TestbedClient } from '../testbed/client.js';
import type { Testbed } from '../testbed/testbed.js';
import type { Bench, BenchContext, Case } from './bench.js';
import { type Cluster, framesPerSecond, onCluster, planWords, STANDBY } from './cluster.js';
import { atMost, type Figure, figure, largest, median } from './figures.js';

const MODEL = 'alexnet';
const AGENTS = 6;
const IN_FLIGHT = 12;
const ALLOWED_GAP_MS = 1000;
/** When the power goes, from the start of the load, and how long the load goes on, as fast as before. */
const KILL_AFTER_MS = 3000;
const REST_MS = 10_000;
const QUICK_REST_MS = 5000;
/** What stands by is asked for a second after the last change, and fetched and loaded in a few. */
const CALM_SECONDS = 6;
/** For all that stands by to come to its place: some 100 MB for each agent, slowly. */
const STANDBY_WITHIN_MS = 180_000;

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

interface Setting {
  readonly name: string;
  readonly plan: Pick<DeployOptions, 'objective' | 'cut'>;
  /** Each agent of the plan is killed in turn, and comes back before the next; otherwise only the first. */
  readonly each: boolean;
}

interface Fall {
  readonly lost: number;
  readonly failed: number;
  readonly twice: number;
  readonly gapMs: number;
  readonly slowestMs: number;
  readonly retried: number;
}

async function at(
  { name, plan: wanted, each }: Setting,
  quick: boolean,
  cluster: Cluster,
  plans: Record<string, string>,
): Promise<Figure[]> {
  const { testbed, deploy, load, network, client } = cluster;
  const plan = await deploy({ name: 'net', ...(await network(MODEL)), ...wanted });
  plans[name] = planWords(plan);
  const frameMs = median((await load({ deployment: 'net', frames: 6, inFlight: 1 })).latenciesMs);
  const rate = framesPerSecond(await load({ deployment: 'net', frames: 4 * IN_FLIGHT, inFlight: IN_FLIGHT }), IN_FLIGHT, IN_FLIGHT);
  const seated = testbed.agents.filter((agent) => plan.seats.some((seat) => seat.agent === agent.name));
  const falls: Fall[] = [];
  for (const victim of each ? seated : seated.slice(0, 1)) {
    await untilServes(client);
    falls.push(await fall(victim, rate, quick, cluster));
  }
  await client.undeploy('net');
  const of = (figureOf: (one: Fall) => number): number[] => falls.map(figureOf);
  return [
    figure(
      `${name}: frames lost`,
      'frames',
      of(({ lost }) => lost),
      atMost(0),
    ),
    figure(
      `${name}: frames that failed with a code`,
      'frames',
      of(({ failed }) => failed),
      atMost(0),
    ),
    figure(
      `${name}: answers of the gateway above the frames sent`,
      'frames',
      of(({ twice }) => twice),
      atMost(0),
    ),
    figure(
      `${name}: longest time without a result, less one frame's latency${each ? ', the worst of all' : ''}`,
      'ms',
      [Math.max(0, largest(of(({ gapMs }) => gapMs)) - frameMs)],
      atMost(ALLOWED_GAP_MS),
    ),
    ...(each
      ? [
          figure(
            `${name}: longest time without a result`,
            'ms',
            of(({ gapMs }) => gapMs),
          ),
        ]
      : []),
    figure(`${name}: one frame alone`, 'ms', [frameMs]),
    figure(`${name}: slowest frame`, 'ms', [largest(of(({ slowestMs }) => slowestMs))]),
    figure(
      `${name}: frames issued again`,
      'frames',
      of(({ retried }) => retried),
    ),
  ];
}

/** One agent loses its power under load, and comes back afterwards. */
async function fall(victim: Testbed['agents'][number], rate: number, quick: boolean, { testbed, client }: Cluster): Promise<Fall> {
  const answered = async (): Promise<number> => (await client.status('net')).deployments[0]?.completed ?? Number.NaN;
  const before = await answered();
  const frames = Math.round((rate * (KILL_AFTER_MS + (quick ? QUICK_REST_MS : REST_MS))) / 1000) + IN_FLIGHT;
  const loading = client.load({ deployment: 'net', frames, inFlight: IN_FLIGHT });
  await delay(KILL_AFTER_MS);
  await victim.kill();
  const { latenciesMs, endedAtMs, failures, retried } = await loading;
  const answers = (await answered()) - before;
  if (endedAtMs.filter((ms) => ms > KILL_AFTER_MS).length < IN_FLIGHT) {
    throw new ChairError('INTERNAL', 'the load was over before the agent was killed: nothing was measured');
  }
  await victim.restart();
  await client.untilReady(testbed.agents.length);
  return {
    lost: frames - latenciesMs.length - failures.length,
    failed: failures.length,
    twice: Math.max(0, answers - latenciesMs.length),
    gapMs: longestGap(endedAtMs, KILL_AFTER_MS),
    slowestMs: largest(latenciesMs),
    retried,
  };
}

/** The agent is in the plan again, and what stands by is where it should be. Throws REQUEST_TIMEOUT when that takes too long. */
async function untilServes(client: TestbedClient): Promise<void> {
  const untilMs = performance.now() + STANDBY_WITHIN_MS;
  for (let calm = 0; calm < CALM_SECONDS; calm++) {
    const { deployments } = await client.status('net');
    const { state, losses } = deployments[0] ?? { state: 'not there', losses: [] };
    const awaited = losses.filter(({ outcome }) => outcome === 'fetching' || outcome === 'unknown');
    if (state !== 'serving' || losses.length === 0 || awaited.length > 0) calm = -1;
    if (calm < 0 && performance.now() > untilMs) {
      const came = `${state}; ${awaited.map(({ agent, outcome, why }) => `${agent} ${outcome} ${why}`).join(', ')}`;
      throw new ChairError('REQUEST_TIMEOUT', `the deployment was not ready for losses within ${STANDBY_WITHIN_MS / 1000} s`, { came });
    }
    await delay(1000);
  }
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { ...STANDBY, agents: AGENTS }, async (cluster) => {
    const settings: readonly Setting[] = [
      { name: `${MODEL}, planned for throughput`, plan: { objective: 'throughput' }, each: false },
      { name: `${MODEL}, planned for latency`, plan: { objective: 'latency' }, each: false },
      // Every agent holds what nobody else has.
      { name: `${MODEL} in ${AGENTS} stages, each agent in turn`, plan: { cut: `stages:${AGENTS}` }, each: true },
    ];
    const cases = settings.map((setting): Case => ({ name: setting.name, run: () => at(setting, context.quick, cluster, plans) }));
    await context.cases(context.quick ? cases.slice(0, 1) : cases);
    return { model: MODEL, 'kill -9': 'one agent with a seat, under load', ...cluster.testbed.conditions, plans };
  });
}

export const failover: Bench = { name: 'failover', summary: 'kill -9 of any one of six agents under load', seconds: 230, run };
