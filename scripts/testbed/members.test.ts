/** Members of a cluster under load, on devices of their own: one that moves to another address, one that hangs, one whose link becomes slow. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildZoo } from '../../models/zoo/index.js';
import { compiledCli } from '../e2e/compiled.js';
import type { LoadReport, TestbedClient } from './client.js';
import { startTestbed, type Testbed, whyPlainProcesses } from './testbed.js';

const AGENTS = 3;
const DEVICE = { cpu: 0.4, memoryBytes: 512 * 2 ** 20, rateBits: 1e9 };

/** Waits for what must come by itself. */
async function until(ok: () => Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
  const end = performance.now() + withinMs;
  // A request that nobody answers in time on a busy machine is not the end of the wait.
  while (!(await ok().catch(() => false))) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await delay(100);
  }
}

/** Longest time between results, and when it began. */
function longestGap(endedAtMs: readonly number[]): string {
  const gaps = endedAtMs.map((at, i) => ({ ms: at - (endedAtMs[i - 1] ?? 0), fromMs: endedAtMs[i - 1] ?? 0 }));
  const { ms, fromMs } = gaps.reduce((longest, gap) => (gap.ms > longest.ms ? gap : longest), { ms: 0, fromMs: 0 });
  return `${Math.round(ms)} ms from ${Math.round(fromMs)} ms on, of ${Math.round(endedAtMs.at(-1) ?? 0)} ms and ${endedAtMs.length} results`;
}

describe.skipIf(whyPlainProcesses() !== '')('members under load', () => {
  let testbed: Testbed;
  let client: TestbedClient;
  let models: string;
  const stateOf = async (name: string) => (await client.status()).agents.find((agent) => agent.agent === name)?.state;
  const epochOf = async () => (await client.status()).deployments[0]?.epoch;

  beforeAll(async () => {
    models = await mkdtemp(path.join(tmpdir(), 'testbed-models-'));
    await buildZoo('mobilenetv2', path.join(models, 'net.onnx'), { size: 64, scale: 0.25, classes: 10 });
    testbed = await startTestbed({ cli: compiledCli(), agents: Array.from({ length: AGENTS }, () => DEVICE) });
    client = await testbed.client();
    await client.untilReady(AGENTS);
    // Every frame passes all three, and each has to do with both others.
    await client.deploy({ name: 'net', model: path.join(models, 'net.onnx'), cut: 'rows:3', objective: 'throughput' });
  }, 120_000);
  afterAll(async () => {
    await testbed?.stop();
    await rm(models, { recursive: true, force: true });
  }, 60_000);

  it('have peer tables that they hold: all neighbours, their addresses, direct lanes', async () => {
    await client.load({ deployment: 'net', frames: 20, inFlight: 2 });
    await until(async () => (await client.peers()).tables.every((table) => table.heldVersion === table.version), 'all hold their tables');
    const { tables } = await client.peers();
    expect(tables.map(({ agent }) => agent).toSorted()).toEqual(['agent-1', 'agent-2', 'agent-3']);
    for (const { agent, rows } of tables) {
      expect(rows.map((row) => row.agent).toSorted()).toEqual(
        ['agent-1', 'agent-2', 'agent-3', 'dispatcher'].filter((name) => name !== agent),
      );
      for (const row of rows) expect(row).toMatchObject({ lane: 'direct' });
      for (const row of rows)
        expect(row.addresses).toContain(testbed.agents.find(({ name }) => name === row.agent)?.address ?? testbed.gateway.device.address);
    }
    await expect(client.peers('nobody')).rejects.toMatchObject({ code: 'AGENT_UNKNOWN' });
  }, 60_000);

  it('may move to another address: tables and lanes follow, with the same plan and without a lost frame', async () => {
    const epoch = await epochOf();
    const agent = testbed.agents[1];
    const loading = client.load({ deployment: 'net', frames: 100_000, inFlight: 3, forMs: 5000, deadlineMs: 30_000 });
    await delay(1500);
    const before = (await client.peers('agent-1')).tables[0]?.version ?? 0;
    const address = agent?.changeAddress() ?? '';
    const report = await loading;
    console.log(`moved: longest gap ${longestGap(report.endedAtMs)}, ${report.retried} frames issued again`);
    expect(report.failures).toEqual([]);
    expect(await epochOf()).toBe(epoch);
    const { events, agents } = await client.status();
    expect(events.filter(({ kind, text }) => kind === 'lost' && text.includes('agent-2'))).toEqual([]);
    expect(agents.map(({ state }) => state)).toEqual(['ready', 'ready', 'ready']);
    await until(
      async () => (await client.peers()).tables.every(({ rows }) => rows.every(({ lane }) => lane === 'direct')),
      'all lanes are direct again',
    );
    const { tables } = await client.peers('agent-1');
    expect(tables[0]?.version).toBeGreaterThan(before);
    expect(tables[0]?.rows.find((row) => row.agent === 'agent-2')?.addresses).toEqual([address]);
  }, 120_000);

  it('may hang: found without a farewell, the others go on, and it is taken back', async () => {
    const agent = testbed.agents[2];
    const loading = client.load({ deployment: 'net', frames: 100_000, inFlight: 3, forMs: 8000, deadlineMs: 60_000 });
    await delay(1500);
    const from = performance.now();
    agent?.pause();
    await until(async () => (await stateOf('agent-3')) === 'lost', 'the agent that hangs is lost');
    const foundMs = performance.now() - from;
    await until(async () => {
      const [deployment] = (await client.status()).deployments;
      return deployment?.state === 'serving' && deployment.plan?.seats.every((seat) => seat.agent !== 'agent-3') === true;
    }, 'the others hold its seats');
    const report = await loading;
    console.log(
      `hung: found after ${Math.round(foundMs)} ms; longest gap ${longestGap(report.endedAtMs)}, ${report.retried} frames issued again`,
    );
    expect(report.failures).toEqual([]);
    agent?.resume();
    await until(async () => (await stateOf('agent-3')) === 'ready', 'it is back');
    expect((await client.load({ deployment: 'net', frames: 10, inFlight: 2 })).failures).toEqual([]);
  }, 120_000);

  it('may have a link that becomes a hundred times slower: others take its seats in seconds, and it is counted on again when it is what it was', async () => {
    const agent = testbed.agents[1];
    const seats = async () => (await client.status()).deployments[0]?.plan?.seats.map((seat) => seat.agent) ?? [];
    await until(async () => new Set(await seats()).size === AGENTS, 'all three hold seats');
    // As long as it takes: what carries nothing is not found to be slow.
    let goesOn = true;
    const loading = (async () => {
      const reports: LoadReport[] = [];
      while (goesOn) reports.push(await client.load({ deployment: 'net', frames: 100_000, inFlight: 3, forMs: 2000, deadlineMs: 60_000 }));
      return reports;
    })();
    loading.catch(() => undefined);
    await delay(1500);
    const from = performance.now();
    agent?.setRate(0.5e6);
    await until(async () => (await stateOf('agent-2')) === 'suspect', 'its link is found to be slow', 30_000).finally(() => {
      goesOn = false;
    });
    const foundMs = performance.now() - from;
    const { agents } = await client.status();
    console.log(agents.find(({ agent: name }) => name === 'agent-2')?.why);
    await until(async () => !(await seats()).includes('agent-2'), 'the others hold its seats');
    const movedMs = performance.now() - from;
    const reports = await loading;
    const gaps = reports.map(({ endedAtMs }) => longestGap(endedAtMs));
    const retried = reports.reduce((sum, one) => sum + one.retried, 0);
    console.log(
      `slow: found after ${Math.round(foundMs)} ms, moved after ${Math.round(movedMs)}; longest gaps ${gaps.join('; ')}; ${retried} frames issued again`,
    );
    expect(reports.flatMap(({ failures }) => failures)).toEqual([]);
    agent?.setRate(DEVICE.rateBits);
    await until(async () => (await stateOf('agent-2')) === 'ready', 'it is counted on again');
    const { events } = await client.status();
    expect(events.filter(({ kind, text }) => kind === 'lost' && text.includes('agent-2'))).toEqual([]);
    expect(events.filter(({ kind, text }) => kind === 'slow link' && text.includes('agent-2'))).toHaveLength(1);
  }, 120_000);
});
