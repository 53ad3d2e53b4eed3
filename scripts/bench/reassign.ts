/** Plans that change while frames run, as planned: what is lost, what comes twice, and how much longer than usual no result comes. */
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';
import type { Bench, BenchContext } from './bench.js';
import { type Cluster, onCluster, planWords, STANDBY } from './cluster.js';
import { longestGap } from './failover.js';
import { atMost, type Figure, figure } from './figures.js';

const MODEL = 'alexnet';
const AGENTS = 6;
const IN_FLIGHT = 12;
const MOST_FRAMES = 1_000_000;
/** Load before the change and after it, under which gaps are the usual ones. */
const STEADY_MS = 20_000;
const QUICK_STEADY_MS = 8000;
/** A change takes at most so long. */
const CHANGE_MS = 40_000;
const JOIN_MS = 60_000;
/** The pipe fills. */
const SKIP_MS = 2000;
/** What leaves the old plan. */
const SETTLE_MS = 1000;

/** Longest time without a result that ends within `[fromMs, untilMs)`. Pure. */
export function gapWithin(endedAtMs: readonly number[], fromMs: number, untilMs: number): number {
  return longestGap(
    endedAtMs.filter((ms) => ms < untilMs),
    fromMs,
  );
}

/** A change under load: `change` resolves when the new plan serves. */
async function under(name: string, quick: boolean, { client }: Cluster, mostMs: number, change: () => Promise<void>): Promise<Figure[]> {
  const steadyMs = quick ? QUICK_STEADY_MS : STEADY_MS;
  const row = async () => (await client.status('net')).deployments[0];
  const before = await row();
  const startedAt = performance.now();
  const sinceMs = (): number => performance.now() - startedAt;
  const forMs = steadyMs + mostMs + steadyMs;
  const loading = client.load({ deployment: 'net', frames: MOST_FRAMES, inFlight: IN_FLIGHT, forMs });
  await delay(steadyMs);
  const fromMs = sinceMs();
  await change();
  const tookMs = sinceMs() - fromMs;
  const { endedAtMs, failures, retried } = await loading;
  const after = await row();
  if (after?.epoch === before?.epoch) throw new ChairError('INTERNAL', 'the plan did not change: nothing was measured');
  const answered = (after?.completed ?? Number.NaN) - (before?.completed ?? Number.NaN);
  const usual = [gapWithin(endedAtMs, SKIP_MS, fromMs), gapWithin(endedAtMs, fromMs + tookMs + SETTLE_MS, forMs)];
  const longest = gapWithin(endedAtMs, fromMs, fromMs + tookMs + SETTLE_MS);
  return [
    figure(`${name}: frames that failed`, 'frames', [failures.length], atMost(0)),
    figure(`${name}: answers of the gateway above the results`, 'frames', [answered - endedAtMs.length], atMost(0)),
    figure(`${name}: frames issued again`, 'frames', [retried], atMost(0)),
    figure(`${name}: longest time without a result, of the usual one`, 'x', [longest / Math.max(...usual)], atMost(2)),
    figure(`${name}: longest time without a result`, 'ms', [longest]),
    figure(`${name}: usually, before`, 'ms', usual.slice(0, 1)),
    figure(`${name}: usually, after`, 'ms', usual.slice(1)),
    figure(`${name}: the change took`, 'ms', [tookMs]),
    figure(`${name}: frames`, 'frames', [endedAtMs.length]),
  ];
}

async function until(what: string, mostMs: number, holds: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + mostMs; performance.now() < end; await delay(100)) if (await holds()) return;
  throw new ChairError('INTERNAL', `not within ${mostMs} ms: ${what}`);
}

async function run(context: BenchContext): Promise<object> {
  const plans: Record<string, string> = {};
  return onCluster(context, { ...STANDBY, agents: AGENTS }, async (cluster) => {
    const { client, testbed, deploy, network } = cluster;
    const { quick } = context;
    const agents = async (): Promise<Set<string>> => {
      const seats = (await client.status('net')).deployments[0]?.plan?.seats ?? [];
      return new Set(seats.map(({ agent }) => agent));
    };
    const last = testbed.agents.at(-1);
    if (last === undefined) throw new ChairError('CONFIG_INVALID', 'a testbed without agents');
    const objective = (goal: string) => async (): Promise<void> => {
      const name = `the objective becomes ${goal}`;
      plans[name] = planWords(await client.adjust({ name: 'net', objective: goal, weight: 0, dryRun: false }));
    };
    await deploy({ name: 'net', ...(await network(MODEL)), objective: 'throughput' });
    const cases: readonly (readonly [string, number, () => Promise<void>])[] = [
      [
        'an agent leaves',
        CHANGE_MS,
        async () => {
          last.child.ask('drain');
          await until('another plan', CHANGE_MS, async () => !(await agents()).has(last.name));
        },
      ],
      [
        'an agent joins',
        JOIN_MS,
        async () => {
          await last.restart();
          await until('its seats', JOIN_MS, async () => (await agents()).has(last.name));
        },
      ],
      ['the objective becomes latency', CHANGE_MS, objective('latency')],
      ['the objective becomes throughput', CHANGE_MS, objective('throughput')],
    ];
    await context.cases(cases.map(([name, mostMs, change]) => ({ name, run: () => under(name, quick, cluster, mostMs, change) })));
    return { model: MODEL, ...testbed.conditions, plans };
  });
}

export const reassign: Bench = { name: 'reassign', summary: 'plans that change as planned, under load', seconds: 340, run };
