/** Coded redundancy across processes: an agent that stands still, and one that is killed, are not noticed by any frame. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DeploymentStatus, PlanReport } from '../../broker/messages.js';
import type { Tensor } from '../../broker/tensor.js';
import { TOLERANCE } from '../../models/slicing/verify.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { LocalCluster } from '../children.js';
import { Net, startCluster } from './fixture.js';

/** Frames that the client has under way. */
const WINDOW = 3;

let net: Net;
let cluster: LocalCluster;
let client: ChairClient;

beforeAll(async () => {
  net = await Net.build('alexnet', { scale: 0.25, size: 67, classes: 20, seed: 5 });
  ({ cluster, client } = await startCluster(net, 5, WINDOW));
}, 150_000);

afterAll(async () => {
  for (const agent of cluster?.agents ?? []) agent.process.kill('SIGCONT');
  await client?.close();
  await cluster?.stop();
  net?.remove();
}, 30_000);

interface Seen {
  readonly atMs: number;
  readonly attempts: number;
  readonly difference: number;
}

/** Frames one after another until `end` is called. */
function load(): { readonly seen: Seen[]; readonly end: () => Promise<void> } {
  const seen: Seen[] = [];
  let on = true;
  function* frames(): Generator<Readonly<Record<string, Tensor>>> {
    for (let i = 0; on; i++) yield net.input(i);
  }
  const done = (async () => {
    for await (const { outputs, attempts } of client.inferStream('net', frames(), { deadlineMs: 60_000 })) {
      const difference = net.difference(seen.length, outputs);
      seen.push({ atMs: performance.now(), attempts, difference });
    }
  })();
  return {
    seen,
    end: () => {
      on = false;
      return done;
    },
  };
}

async function until<T>(what: string, find: () => T | undefined | Promise<T | undefined>, withinMs = 60_000): Promise<T> {
  const endMs = performance.now() + withinMs;
  for (;;) {
    const found = await find();
    if (found !== undefined) return found;
    if (performance.now() > endMs) throw new Error(`waited ${withinMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const deployment = async (): Promise<DeploymentStatus | undefined> => (await client.status()).deployments[0];
const process_ = (name: string | undefined) => cluster.agents[Number(name?.split('-')[1]) - 1]?.process;
const served = (epoch: number) => async (): Promise<PlanReport | undefined> => {
  const now = await deployment();
  return now?.state === 'serving' && now.epoch > epoch ? (now.plan ?? undefined) : undefined;
};

describe('a deployment with redundancy 1', () => {
  it('loses no frame and sends none again when a part stands still, and when another is killed', { timeout: 180_000 }, async () => {
    const plan = await client.deploy({ name: 'net', model: net.model, cut: 'channels:3', redundancy: 1, verify: true });
    expect(plan.redundancy?.rows.length).toBeGreaterThan(5);
    const [victim] = plan.redundancy?.covered ?? [];
    const { seen, end } = load();
    await until('frames to flow', () => (seen.length >= 20 ? true : undefined));

    process_(victim)?.kill('SIGSTOP');
    const from = seen.length;
    // Nobody knows yet, and results go on: at least as many as could have been under way.
    const known = await until('the agent to be lost', async () => {
      const state = (await client.status()).agents.find(({ agent }) => agent === victim)?.state;
      return state === 'lost' ? seen.length : undefined;
    });
    expect(known - from).toBeGreaterThan(WINDOW);
    const next = await until('a plan without it', served(plan.epoch));
    expect(next.seats.map(({ agent }) => agent)).not.toContain(victim);
    expect(next.redundancy?.covered.length).toBeGreaterThan(1);

    // For a frame that is still under way in the plan before, another loss would be the second.
    const switched = seen.length;
    await until('results of it', () => (seen.length > switched + 4 * WINDOW ? true : undefined));
    process_(next.redundancy?.covered[0])?.kill('SIGKILL');
    const last = await until('a plan without that one, too', served(next.epoch));
    const again = seen.length;
    await until('results of it', () => (seen.length > again + 4 * WINDOW ? true : undefined));
    const covered = [...seen];
    expect(await deployment()).toMatchObject({ failed: 0, reissued: 0 });

    // The one that merges and holds the parities: an ordinary loss, for which a neighbour stands by.
    await until('its repair to be at hand', async () => {
      const rows = (await deployment())?.losses.filter(({ agent }) => last.redundancy?.exposed.includes(agent)) ?? [];
      return rows.length > 0 && rows.every(({ outcome }) => outcome === 'repair') ? true : undefined;
    });
    const fromMs = performance.now();
    process_(last.redundancy?.exposed[0])?.kill('SIGKILL');
    await until('results without it', () => (seen.filter(({ atMs }) => atMs > fromMs).length > 4 * WINDOW ? true : undefined));
    await end();
    const pauseMs = Math.max(...seen.slice(covered.length).map(({ atMs }, i) => atMs - (seen[covered.length + i - 1]?.atMs ?? atMs)));
    console.log(`the merging agent was killed: at most ${pauseMs.toFixed(0)} ms without a result`);
    expect((await client.status()).events.some(({ kind, text }) => kind === 'repair' && text.includes('without the parities'))).toBe(true);

    const gaps = covered.slice(1).map(({ atMs }, i) => atMs - (covered[i]?.atMs ?? atMs));
    console.log(
      `${covered.length} results, ${known - from} between SIGSTOP and its discovery; longest gap ${Math.max(...gaps).toFixed(0)} ms, usual ${gaps
        .sort((a, b) => a - b)
        [Math.floor(gaps.length / 2)]?.toFixed(
          0,
        )} ms; largest difference ${Math.max(...seen.map((one) => one.difference)).toExponential(1)}`,
    );
    expect(covered.filter(({ attempts }) => attempts > 1)).toEqual([]);
    expect(Math.max(...seen.map((one) => one.difference))).toBeLessThanOrEqual(TOLERANCE);
    expect(await deployment()).toMatchObject({ failed: 0 });
    expect(last.epoch).toBeGreaterThan(next.epoch);
  });
});
