/** The middle of a testbed and its disks: a broker of its own, a gateway that comes back, agents that join and leave. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiledCli } from '../e2e/compiled.js';
import type { TestbedClient } from './client.js';
import { startTestbed, type Testbed, whyPlainProcesses } from './testbed.js';

const DEVICE = { cpu: 0.4, memoryBytes: 512 * 2 ** 20, rateBits: 1e9 };
const DISK_BYTES = 24 * 2 ** 20;

/** Waits for what must come by itself. */
async function until(ok: () => Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
  const end = performance.now() + withinMs;
  while (!(await ok().catch(() => false))) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
    await delay(200);
  }
}

describe('a testbed with a broker of its own', () => {
  // Plain processes where namespaces cannot be had.
  const isolated = whyPlainProcesses() === '';
  let testbed: Testbed;
  let client: TestbedClient;
  const stateOf = async (name: string) => (await client.status()).agents.find((agent) => agent.agent === name)?.state;

  beforeAll(async () => {
    testbed = await startTestbed({ cli: compiledCli(), agents: [DEVICE], broker: 'own', diskBytes: DISK_BYTES });
    client = await testbed.client();
    await client.untilReady(1);
  }, 120_000);
  afterAll(async () => {
    const mounted = testbed?.directory ?? 'nothing was started';
    await testbed?.stop();
    if (existsSync('/proc/self/mounts')) expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain(mounted);
  }, 60_000);

  it('has its agents back after the broker was killed, under the same address', async () => {
    const pid = testbed.broker?.pid;
    await testbed.broker?.restart();
    expect(testbed.broker?.pid).not.toBe(pid);
    await until(async () => (await stateOf('agent-1')) === 'ready', 'the agent is ready');
  }, 90_000);

  it('has its agents back after the gateway was killed, in a later term', async () => {
    const { term } = await client.status();
    await testbed.gateway.restart();
    await until(async () => (await stateOf('agent-1')) === 'ready', 'the agent is ready');
    expect((await client.status()).term).toBeGreaterThan(term);
  }, 90_000);

  it('takes agents that come, answers what they hold open, and lets them leave in order', async () => {
    const agent = await testbed.addAgent(DEVICE);
    await client.untilReady(2);
    expect(testbed.agents.map(({ name }) => name)).toEqual(['agent-1', 'agent-2']);
    expect(await agent.child.ask('resources')).toMatchObject({ Timeout: expect.any(Number) });
    await agent.child.ask('drain');
    await agent.child.ended;
    expect(agent.alive).toBe(false);
    await until(async () => (await stateOf('agent-2')) === 'stopped', 'the agent is shown as stopped');
    await expect(agent.child.ask('resources', { withinMs: 200 })).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT' });
  }, 90_000);

  it.skipIf(!isolated)('fills the disk of one device to the last byte, and empties it', async () => {
    const [agent] = testbed.agents;
    const file = path.join(testbed.directory, 'agent-1', 'written-by-a-test');
    agent?.fillDisk();
    expect(() => writeFileSync(file, Buffer.alloc(100_000))).toThrow(/ENOSPC/);
    writeFileSync(path.join(testbed.directory, 'elsewhere'), 'another disk');
    agent?.emptyDisk();
    writeFileSync(file, Buffer.alloc(100_000));
    expect(existsSync(file)).toBe(true);
  });
});
