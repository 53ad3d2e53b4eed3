import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildZoo } from '../../models/zoo/index.js';
import { compiled, compiledCli } from '../e2e/compiled.js';
import type { TestbedClient } from './client.js';
import { startOf } from './run-directory.js';
import { startTestbed, type Testbed, whyPlainProcesses } from './testbed.js';

const why = whyPlainProcesses();
if (why !== '') console.warn(`Tests of the testbed's limits are skipped: ${why}.`);
// Small shares: the other tests want the machine as well.
const DEVICE = { cpu: 0.4, memoryBytes: 512 * 2 ** 20, rateBits: 1e9 };
const groupsOf = (pid: number): string => readFileSync(`/proc/${pid}/cgroup`, 'utf8');
const namespacesOf = (id: string): string[] => (existsSync('/run/netns') ? readdirSync('/run/netns').filter((n) => n.includes(id)) : []);

describe.skipIf(why !== '')('a testbed of two devices', () => {
  let testbed: Testbed;
  let client: TestbedClient;
  let models: string;

  beforeAll(async () => {
    models = await mkdtemp(path.join(tmpdir(), 'testbed-models-'));
    await buildZoo('mobilenetv2', path.join(models, 'net.onnx'), { size: 64, scale: 0.25, classes: 10 });
    testbed = await startTestbed({ cli: compiledCli(), agents: [DEVICE, DEVICE] });
    client = await testbed.client();
    await client.untilReady(2);
    await client.deploy({ name: 'net', model: path.join(models, 'net.onnx'), cut: 'rows:2' });
  }, 120_000);
  afterAll(async () => {
    await testbed?.stop();
    await rm(models, { recursive: true, force: true });
  }, 60_000);

  it('gives each agent an address, a group and a namespace of its own, and announces the address', async () => {
    const [a, b] = testbed.agents;
    expect(a?.address).not.toBe(b?.address);
    expect(groupsOf(a?.pid ?? 0)).toMatch(/musical-chair-.*agent-1/);
    const agents = (await client.status()).agents.toSorted((x, y) => x.agent.localeCompare(y.agent));
    expect(agents.map((s) => s.addresses)).toEqual(testbed.agents.map((agent) => [agent.address]));
    expect(agents.map((s) => s.memoryBytes)).toEqual([DEVICE.memoryBytes, DEVICE.memoryBytes]);
  });

  it('runs frames over the links between them', async () => {
    const { latenciesMs, failures, lane } = await client.load({ deployment: 'net', frames: 6, inFlight: 2 });
    expect({ answered: latenciesMs.length, failures, lane }).toEqual({ answered: 6, failures: [], lane: 'direct' });
  });

  it('holds a paused agent to its share of the core when it goes on', async () => {
    const [agent] = testbed.agents;
    agent?.pause();
    await delay(50);
    expect(readFileSync(`/proc/${agent?.pid}/stat`, 'utf8')).toMatch(/\) T /);
    agent?.resume();
    const before = agent?.device.throttledSeconds ?? 0;
    agent?.setCpu(0.1);
    await client.load({ deployment: 'net', frames: 6, inFlight: 2 });
    expect(agent?.device.throttledSeconds).toBeGreaterThan(before);
    agent?.setCpu(DEVICE.cpu);
  });

  it('slows frames on links that are shaped', async () => {
    const { latenciesMs: fast } = await client.load({ deployment: 'net', frames: 3, inFlight: 1 });
    for (const agent of testbed.agents) agent.setRate(1e6);
    // 64 x 64 x 3 float32 are 49 KB: at 1 Mbit/s at least 150 ms of wire, when half of it fits the burst.
    const { latenciesMs: slow } = await client.load({ deployment: 'net', frames: 3, inFlight: 1 });
    expect(Math.min(...slow)).toBeGreaterThan(Math.min(...fast) + 100);
    for (const agent of testbed.agents) agent.setRate(DEVICE.rateBits);
  });
});

describe.skipIf(why !== '')('what a testbed leaves', () => {
  const holder = `
    import { startTestbed } from ${JSON.stringify(compiled(new URL('./testbed.ts', import.meta.url))[1])};
    const testbed = await startTestbed({ agents: [{ cpu: 0.5, memoryBytes: 2 ** 29, rateBits: 1e9 }] });
    testbed.agents[0].pause();
    console.log(JSON.stringify({ pids: [testbed.gateway.child.pid, testbed.agents[0].pid], directory: testbed.directory, group: testbed.agents[0].pid }));
    setInterval(() => undefined, 1000);
  `;

  it('is gone soon after its process was killed with SIGKILL, a paused agent too', async () => {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', holder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const line = await new Promise<string>((resolve, reject) => {
      child.stdout.once('data', (data) => resolve(String(data)));
      child.once('close', () => reject(new Error('the testbed did not start')));
    });
    const { pids, directory } = JSON.parse(line) as { pids: number[]; directory: string };
    const id = path.basename(directory).replace('musical-chair-testbed-state-', '');
    expect(namespacesOf(id)).toHaveLength(3);
    const group = /:(\/musical-chair-[^/]+)\//.exec(groupsOf(pids[1] ?? 0))?.[1] ?? '';
    expect(group).toContain(id);
    child.kill('SIGKILL');
    for (let tries = 0; tries < 200 && (existsSync(directory) || namespacesOf(id).length > 0); tries++) await delay(100);
    expect({ namespaces: namespacesOf(id), state: existsSync(directory), alive: pids.filter((pid) => startOf(pid) !== '') }).toEqual({
      namespaces: [],
      state: false,
      alive: [],
    });
    expect(existsSync(path.join('/sys/fs/cgroup/cpu', group)) || existsSync(path.join('/sys/fs/cgroup', group))).toBe(false);
  }, 90_000);
});

describe('a testbed without limits', () => {
  it('runs plain processes and says so', async () => {
    const testbed = await startTestbed({ cli: compiledCli(), agents: 1, isolated: false });
    try {
      expect(testbed.conditions).toMatchObject({ isolation: 'processes', why: 'asked for', oversubscribed: false });
      const client = await testbed.client();
      expect((await client.untilReady(1)).agents).toHaveLength(1);
      expect(() => testbed.agents[0]?.linkDown()).toThrow(expect.objectContaining({ code: 'TESTBED_FAILED' }));
      expect(() => testbed.agents[0]?.fillDisk()).toThrow(expect.objectContaining({ code: 'TESTBED_FAILED' }));
    } finally {
      await testbed.stop();
    }
    expect(existsSync(testbed.directory)).toBe(false);
  }, 90_000);

  it.each([-1, 1.5, 100, Number.NaN])('refuses %s agents with a code, before anything is made', async (agents) => {
    await expect(startTestbed({ agents })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});
