/** What the scheduler learns of links, machines and run times, over a real broker and real lanes, and what its plans make of it. */
import { describe, expect, it } from 'vitest';
import { hostId } from '../broker/host.js';
import { DISPATCHER } from '../broker/topics.js';
import type { ScriptedOptions } from './scripted-agent.js';
import { frame, TestCluster, until, untilReady } from './test-cluster.js';

const made = TestCluster.forEachTest();

/** Agents by name, each with options of its own. */
async function cluster(agents: Readonly<Record<string, Partial<ScriptedOptions>>>) {
  const lines: string[] = [];
  const gateway = await made.gateway({ log: (line) => lines.push(line) });
  const all = await Promise.all(Object.entries(agents).map(([name, options]) => made.agent(gateway.brokerUrl, name, options)));
  await untilReady(gateway, all.length);
  const client = await made.client(gateway.brokerUrl);
  return { gateway, client, agents: all, lines };
}

/** Room for two of the model's three blocks. */
const SMALL = { memoryBytes: 141e6 };
const FAST_AND_SMALL = { ...SMALL, probeMacsPerSecond: 2e12 };
/** A quarter of a minute for one tensor. */
const CRAWL = { upBytesPerSecond: 800, downBytesPerSecond: 800 };

describe('an agent that lies of itself', () => {
  it('gets no seats for what cannot be, and the cluster serves on', async () => {
    const lies = { probeMacsPerSecond: 1e300, cpuLimit: 1e-300, hostCores: 2 ** 31 - 1, host: hostId(), memoryBytes: -1 };
    const { gateway, client, lines } = await cluster({ a: {}, b: {}, liar: { hello: lies } });
    const { agents } = gateway.status();
    expect(agents.find(({ agent }) => agent === 'liar')).toMatchObject({ state: 'ready' });
    expect(lines.filter((line) => line.includes('agent liar says that it has 1e+300 MACs per second'))).toHaveLength(1);
    const { predictedLatencyMs } = await client.plan({ name: 'x', model: 'scripted' });
    expect(predictedLatencyMs).toBeGreaterThan(1);
    await client.deploy({ name: 'x', model: 'scripted' });
    expect((await client.infer('x', frame(0))).outputs).toBeDefined();
  });
});

describe('links', () => {
  it('that a plan would use are measured first, and one that turns out slow is avoided', async () => {
    const slow = (peer: string) => (peer === 'a' || peer === 'b' ? CRAWL : {});
    const { client, agents, gateway } = await cluster({
      a: { hello: FAST_AND_SMALL, link: slow },
      b: { hello: FAST_AND_SMALL, link: slow },
      c: { hello: SMALL },
    });
    const report = await client.deploy({ name: 'm', model: 'scripted' });
    expect(report.seats.some(({ agent }) => agent === 'c')).toBe(true);
    expect(report.links.map(({ from, to }) => [from, to].sort().join())).not.toContain('a,b');
    expect(agents.some(({ commands }) => commands.includes('measure'))).toBe(true);
    const rows = gateway.status().links;
    expect(rows.every(({ source }) => source === 'measured')).toBe(true);
    expect(rows.find(({ from, to }) => from === 'a' && to === 'b')).toMatchObject({ bytesPerSecond: 800 });
    expect(rows.some(({ from }) => from === DISPATCHER)).toBe(true);
  });

  it('are not measured that no plan would use', async () => {
    const { client, gateway } = await cluster({ a: {}, b: {}, c: {} });
    const report = await client.deploy({ name: 'm', model: 'scripted', planner: 'single' });
    const [only] = report.seats.map(({ agent }) => agent);
    expect(new Set(gateway.status().links.flatMap(({ from, to }) => [from, to]))).toEqual(new Set([DISPATCHER, only]));
  });

  it('of absurd speed are refused with a code, and the plan goes on without', async () => {
    const { client, lines, gateway } = await cluster({
      a: { hello: SMALL, link: () => ({ upBytesPerSecond: 0 }) },
      b: { hello: SMALL, link: () => ({ upBytesPerSecond: 1e15 }) },
    });
    const report = await client.deploy({ name: 'm', model: 'scripted' });
    expect(new Set(report.seats.map(({ agent }) => agent)).size).toBe(2);
    await client.links({ measure: true, evenIfBusy: false, agents: ['a', 'b'] });
    expect(lines.some((line) => line.includes('LINK_IMPLAUSIBLE'))).toBe(true);
    expect(gateway.status().links.every(({ bytesPerSecond }) => bytesPerSecond > 0 && bytesPerSecond < 1e12)).toBe(true);
    await client.infer('m', frame(0));
  });

  it('are measured on request, between the agents that are named', async () => {
    const { client } = await cluster({ a: {}, b: {}, c: {} });
    const { links } = await client.links({ measure: true, evenIfBusy: false, agents: ['a', 'b'] });
    expect(links.map(({ from, to }) => `${from}>${to}`).sort()).toEqual([
      'a>b',
      'a>dispatcher',
      'b>a',
      'b>dispatcher',
      'dispatcher>a',
      'dispatcher>b',
    ]);
    await expect(client.links({ measure: true, evenIfBusy: false, agents: ['nobody'] })).rejects.toMatchObject({ code: 'AGENT_UNKNOWN' });
  });
});

describe('run times', () => {
  it('of real frames correct the prediction, and the next plan takes the device that is faster in truth', async () => {
    // By its probe `a` needs 30 ms, 60 beside another deployment, and `b` 75; in truth `a` is throttled to 120.
    const { client } = await cluster({
      a: { hello: { probeMacsPerSecond: 1e11 }, runMs: 120 },
      b: { hello: { probeMacsPerSecond: 4e10 }, runMs: 75 },
    });
    const agentOf = async (): Promise<string> =>
      (await client.plan({ name: 'asked', model: 'scripted', planner: 'single' })).seats.map(({ agent }) => agent).join();
    await client.deploy({ name: 'm', model: 'scripted', planner: 'single' });
    expect(await agentOf()).toBe('a');
    const { deployments: before } = await client.status();
    let on = true;
    const load = Promise.all(
      [0, 1].map(async () => {
        while (on) await client.infer('m', frame(0));
      }),
    );
    await until(
      'the correction is seen',
      async () => ((await client.status()).agents.find(({ agent }) => agent === 'a')?.correction ?? 1) > 3,
    );
    on = false;
    await load;
    const { deployments, agents } = await client.status();
    const [row] = deployments[0]?.live ?? [];
    expect(row).toMatchObject({ agent: 'a', measuredMs: 120 });
    expect(row?.predictedMs).toBeLessThan(40);
    expect(row?.factor).toBeGreaterThan(3);
    expect(deployments[0]?.expectedLatencyMs).toBeGreaterThan(2.5 * (before[0]?.expectedLatencyMs ?? 0));
    expect(agents.find(({ agent }) => agent === 'b')?.correction).toBe(1);
    expect(await agentOf()).toBe('b');
  }, 30_000);
});

describe('machines', () => {
  it('are the same for agents with the same id, the gateway beside them', async () => {
    const here = { host: hostId(), hostCores: 2, cores: 2, engineThreads: 2 };
    const { client, gateway } = await cluster({ a: { hello: here }, b: { hello: here }, c: { hello: { ...here, host: 'elsewhere' } } });
    const { host, agents } = gateway.status();
    expect(
      agents
        .filter((agent) => agent.host === host)
        .map(({ agent }) => agent)
        .sort(),
    ).toEqual(['a', 'b']);
    // Two unlimited agents of one machine are no faster than one: of three equal agents, two machines' worth of replicas.
    const { predictedFps } = await client.plan({ name: 'm', model: 'scripted', objective: 'throughput' });
    const alone = await client.plan({ name: 'm', model: 'scripted', objective: 'throughput', agents: ['a'] });
    const apart = await client.plan({ name: 'm', model: 'scripted', objective: 'throughput', agents: ['a', 'c'] });
    const together = await client.plan({ name: 'm', model: 'scripted', objective: 'throughput', agents: ['a', 'b'] });
    expect(together.predictedFps).toBeLessThan(1.05 * alone.predictedFps);
    expect(apart.predictedFps).toBeGreaterThan(1.8 * alone.predictedFps);
    expect(predictedFps).toBeLessThan(1.05 * apart.predictedFps);
  });
});
