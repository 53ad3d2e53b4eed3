import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildZoo } from '../../models/zoo/index.js';
import { compiledCli } from '../e2e/compiled.js';
import { machinesText } from '../links-text.js';
import type { TestbedClient } from './client.js';
import { startTestbed, type Testbed, whyPlainProcesses } from './testbed.js';

const why = whyPlainProcesses();
if (why !== '') console.warn(`Tests of measured links are skipped: ${why}.`);
const FAST = 200e6;
const SLOW = 2e6;

describe.skipIf(why !== '')('links of real rates', () => {
  let testbed: Testbed;
  let client: TestbedClient;
  let folder: string;
  let model: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'testbed-links-'));
    model = path.join(folder, 'net.onnx');
    // 150 KB of input and about 90 million MACs: little on a fast link, half a second on the slow one.
    await buildZoo('vgg16', model, { size: 112, scale: 0.125, classes: 10 });
    const device = (rateBits: number) => ({ cpu: 0.2, memoryBytes: 512 * 2 ** 20, rateBits });
    // What is asked for is looked at, not what the gateway would do by itself meanwhile.
    testbed = await startTestbed({ cli: compiledCli(), agents: [device(FAST), device(SLOW), device(FAST)], holdPlans: true });
    client = await testbed.client();
    await client.untilReady(3);
  }, 120_000);
  afterAll(async () => {
    await testbed?.stop();
    await rm(folder, { recursive: true, force: true });
  }, 60_000);

  const used = async (): Promise<string[]> => {
    // Without a bound the slow one is worth having: every fortieth frame goes there.
    const { seats } = await client.plan({ name: 'asked', model, objective: 'throughput<300' });
    return [...new Set(seats.map(({ agent }) => agent))].sort();
  };
  const speed = async (from: string, to: string): Promise<number> => {
    const { links } = await client.status();
    return 8 * (links.find((link) => link.from === from && link.to === to)?.bytesPerSecond ?? 0);
  };

  it('are measured before a plan uses them, and the slow one is avoided', async () => {
    const [first, slow, last] = testbed.agents.map(({ device }) => device.name);
    expect(await used()).toEqual([first, last]);
    // The rate counts Ethernet frames and lets a burst through; the payload is some per cent less, and on a busy machine much less.
    expect((await speed('dispatcher', slow ?? '')) / SLOW).toBeGreaterThan(0.4);
    expect((await speed('dispatcher', slow ?? '')) / SLOW).toBeLessThan(1.15);
    expect(await speed('dispatcher', first ?? '')).toBeGreaterThan(5 * SLOW);
  }, 120_000);

  it('that become faster are used after they were measured again', async () => {
    testbed.agents[1]?.setRate(FAST);
    // A busy machine may disturb one measurement.
    let agents: string[] = [];
    for (let tries = 0; tries < 4 && agents.length < 3; tries++) {
      await client.links({ measure: true, evenIfBusy: false, agents: [] });
      agents = await used();
    }
    expect(agents).toHaveLength(3);
  }, 120_000);

  it('are on one machine here, whose cores the agents do not share: their quotas fit together', async () => {
    const report = await client.status();
    for (const agent of report.agents) expect(agent).toMatchObject({ host: report.host, cpuLimit: 0.2 });
    expect(machinesText(report)).toMatch(/agent-1, agent-2, agent-3 run on the gateway's own machine, which has \d+ cores?,\s+enough/);
  });

  // A busy machine may disturb the probe, or the frames, or both.
  it('leave the choice to run times where a device is throttled while it serves: the next plan takes another', {
    timeout: 180_000,
    retry: 2,
  }, async () => {
    const single = { model, planner: 'single', agents: ['agent-1', 'agent-3'] } as const;
    for (const agent of testbed.agents) agent.setCpu(0.2);
    await client.undeploy('served').catch(() => undefined);
    const { seats } = await client.deploy({ ...single, name: 'served' });
    const [first = ''] = seats.map(({ agent }) => agent);
    const device = testbed.agents.find((agent) => agent.device.name === first);
    device?.setCpu(0.05);
    const correction = async (): Promise<number> => (await client.status()).agents.find(({ agent }) => agent === first)?.correction ?? 1;
    let corrected = 1;
    for (
      const end = performance.now() + 60_000;
      corrected < 1.6 && performance.now() < end;
      corrected = Math.max(corrected, await correction())
    ) {
      const { failures } = await client.load({ deployment: 'served', frames: 20, inFlight: 2 });
      expect(failures).toEqual([]);
    }
    // A quarter of the quota: up to four times the time, less what the machine was too busy for when it was probed.
    expect(corrected).toBeGreaterThan(1.5);
    const [row] = (await client.status('served')).deployments[0]?.live ?? [];
    expect(row?.measuredMs).toBeGreaterThan(1.5 * (row?.predictedMs ?? 0));
    const { seats: then } = await client.plan({ ...single, name: 'asked' });
    expect(then.map(({ agent }) => agent)).not.toContain(first);
    await client.undeploy('served');
    device?.setCpu(0.2);
  });
});
