/** Uneven devices and their faults: what the kernel really does to a device of the testbed, and that the cluster lives through it. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildZoo } from '../../models/zoo/index.js';
import { compiled, compiledCli } from '../e2e/compiled.js';
import type { TestbedClient } from './client.js';
import { parseDevices } from './devices.js';
import { type Device, startTestbed, type Testbed, whyPlainProcesses } from './testbed.js';

const why = whyPlainProcesses();
const MAIN = new URL('./main.ts', import.meta.url);
const MIB = 2 ** 20;

/** Waits for what must come by itself; fails with the last value when it does not. */
async function until<T>(what: () => Promise<T>, ok: (value: T) => boolean, withinMs = 60_000): Promise<T> {
  const end = performance.now() + withinMs;
  for (;;) {
    const value = await what();
    if (ok(value) || performance.now() > end) {
      expect(ok(value), JSON.stringify(value)).toBe(true);
      return value;
    }
    await delay(200);
  }
}

const RECEIVER = `
  const server = require('node:net').createServer((socket) => {
    let left = Number(process.argv[1]);
    socket.on('data', (data) => { left -= data.length; if (left <= 0) { socket.end(); server.close(); } });
  }).listen(7777, '0.0.0.0', () => console.log('listening'));`;
const SENDER = `
  const [host, bytes] = process.argv.slice(1);
  const from = performance.now();
  const socket = require('node:net').connect(7777, host, () => socket.write(Buffer.alloc(Number(bytes))));
  socket.on('close', () => console.log(performance.now() - from)).resume();`;

/** Milliseconds that so many bytes take from one device to another. */
async function transferMs(from: Device, to: Device, bytes: number): Promise<number> {
  const [program = '', ...args] = to.command([process.execPath, '-e', RECEIVER, String(bytes)]);
  const receiver = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  to.own(receiver);
  await new Promise((resolve) => receiver.stdout.once('data', resolve));
  const [sender = '', ...more] = from.command([process.execPath, '-e', SENDER, to.address, String(bytes)]);
  const sending = spawn(sender, more, { stdio: ['ignore', 'pipe', 'inherit'] });
  from.own(sending);
  return Number(await new Promise<string>((resolve) => sending.stdout.once('data', (data) => resolve(String(data)))));
}

describe.skipIf(why !== '')('a testbed of uneven devices', () => {
  let testbed: Testbed;
  let client: TestbedClient;
  let models: string;
  const stateOf = async (name: string) => (await client.status()).agents.find((agent) => agent.agent === name);
  const load = () => client.load({ deployment: 'net', frames: 8, inFlight: 2 });

  beforeAll(async () => {
    models = await mkdtemp(path.join(tmpdir(), 'testbed-models-'));
    await buildZoo('mobilenetv2', path.join(models, 'net.onnx'), { size: 64, scale: 0.25, classes: 10 });
    testbed = await startTestbed({ cli: compiledCli(), agents: parseDevices('pi3:1,pi4:2', 0.25) });
    client = await testbed.client();
    await client.untilReady(3);
    await client.deploy({ name: 'net', model: path.join(models, 'net.onnx'), cut: 'replicas:3', objective: 'throughput' });
  }, 120_000);
  afterAll(async () => {
    await testbed?.stop();
    await rm(models, { recursive: true, force: true });
  }, 60_000);

  it('holds each device to its share of a core, and tells its agent how much memory it has', async () => {
    expect(testbed.conditions.agents.map((spec) => spec.cpu)).toEqual([0.25, 0.5, 0.5]);
    // Without the start of the program, which takes longer where all is busy.
    const program = `const [from, startedAt] = [process.cpuUsage(), performance.now()];
      while (performance.now() < startedAt + 1500);
      console.log(process.cpuUsage(from).user / (performance.now() - startedAt) / 1000)`;
    for (const agent of testbed.agents.slice(0, 2)) {
      const [command = '', ...args] = agent.device.command([process.execPath, '-e', program]);
      const share = Number(spawnSync(command, args, { encoding: 'utf8' }).stdout);
      const { cpu = 0 } = testbed.conditions.agents[testbed.agents.indexOf(agent)] ?? {};
      // A machine that is busy gives less, never more.
      expect(share).toBeLessThan(cpu * 1.2);
      expect(share).toBeGreaterThan(0);
    }
    const memory = (await client.status()).agents.toSorted((a, b) => a.agent.localeCompare(b.agent)).map((agent) => agent.memoryBytes);
    expect(memory).toEqual([1024 * MIB, 2048 * MIB, 2048 * MIB]);
  }, 30_000);

  it('has links of different rates: 4 MB take 0.32 s and more through 100 Mbit/s, and less through 1 Gbit/s', async () => {
    const [slow, fast] = [testbed.agents[0]?.device, testbed.agents[1]?.device];
    const { device } = testbed.gateway;
    if (slow === undefined || fast === undefined) throw new Error('two agents');
    const [slowMs, fastMs] = [await transferMs(device, slow, 4e6), await transferMs(device, fast, 4e6)];
    // What fits the link's burst and buffer goes at once: 50 ms of it.
    expect(slowMs).toBeGreaterThan(250);
    expect(fastMs).toBeLessThan(slowMs);
  }, 30_000);

  it('goes on without an agent whose link is down, and has it back when the link is up', async () => {
    const agent = testbed.agents[2];
    agent?.linkDown();
    await until(
      () => stateOf('agent-3'),
      (state) => state?.state !== 'ready',
    );
    expect(await load()).toMatchObject({ failures: [] });
    agent?.linkUp();
    await until(
      () => stateOf('agent-3'),
      (state) => state?.state === 'ready',
    );
    expect(await load()).toMatchObject({ failures: [], lane: 'direct' });
  }, 150_000);

  it('has an agent back under a new address, which it announces', async () => {
    const agent = testbed.agents[1];
    const before = agent?.address;
    const address = agent?.changeAddress();
    expect(address).not.toBe(before);
    expect(agent?.address).toBe(address);
    await until(
      () => stateOf('agent-2'),
      (state) => state?.state === 'ready' && state.addresses.includes(address ?? ''),
    );
    expect(await load()).toMatchObject({ failures: [] });
  }, 150_000);

  it('has an agent back after its power was off, as another process on the same device', async () => {
    const agent = testbed.agents[2];
    const [pid, address] = [agent?.pid, agent?.address];
    await agent?.restart();
    expect(agent?.pid).not.toBe(pid);
    expect(agent?.address).toBe(address);
    await until(
      () => stateOf('agent-3'),
      (state) => state?.state === 'ready',
    );
    expect(await load()).toMatchObject({ failures: [] });
  }, 120_000);

  it('kills what takes more memory than the device has', async () => {
    const device = testbed.addDevice('small', { cpu: 0.3, memoryBytes: 128 * MIB, rateBits: 1e9 });
    const hoard = (mib: number) => {
      const program = `const kept = Array.from({ length: ${mib} }, () => Buffer.alloc(${MIB}, 1)); console.log(kept.length)`;
      const [command = '', ...args] = device.command([process.execPath, '-e', program]);
      const { stdout, signal } = spawnSync(command, args, { encoding: 'utf8' });
      return { stdout: stdout.trim(), signal };
    };
    expect(hoard(16)).toEqual({ stdout: '16', signal: null });
    expect(hoard(400)).toEqual({ stdout: '', signal: 'SIGKILL' });
  }, 60_000);
});

describe.skipIf(why !== '')('a model that fits no device', () => {
  it('is refused with the memory that is there and that it needs, and the agents live', async () => {
    const models = await mkdtemp(path.join(tmpdir(), 'testbed-models-'));
    const testbed = await startTestbed({ cli: compiledCli(), agents: [{ cpu: 0.5, memoryBytes: 192 * MIB, rateBits: 1e9 }] });
    try {
      await buildZoo('alexnet', path.join(models, 'net.onnx'));
      const client = await testbed.client();
      await client.untilReady(1);
      const deploying = client.deploy({ name: 'net', model: path.join(models, 'net.onnx'), planner: 'single' });
      await expect(deploying).rejects.toMatchObject({ code: 'PLAN_NOT_POSSIBLE', message: expect.stringMatching(/agent-1 has 163 MiB/) });
      expect((await client.status()).agents.map((agent) => agent.state)).toEqual(['ready']);
    } finally {
      await testbed.stop();
      await rm(models, { recursive: true, force: true });
    }
  }, 120_000);
});

describe('npm run testbed', () => {
  const run = (args: readonly string[], prefix: readonly string[] = []) => {
    const [program = '', ...rest] = [...prefix, ...compiled(MAIN), ...args];
    return spawnSync(program, rest, { encoding: 'utf8', cwd: tmpdir() });
  };

  it('runs a command beside the gateway with its address in the environment, and ends as the command ends', () => {
    const script = 'echo "$MUSICAL_CHAIR_CLUSTER $MUSICAL_CHAIR_BROKER"; exit 7';
    const { status, stdout, stderr } = run(['--agents', '1', '--cpu', '0.5', '--', 'sh', '-c', script]);
    expect(stderr).not.toMatch(/^[A-Z_]+: /m);
    expect(stdout).toMatch(why === '' ? /^testbed mqtt:\/\/10\.77\.0\.\d+:1883$/m : /^testbed mqtt:\/\/127\.0\.0\.1:\d+$/m);
    expect(status).toBe(7);
  }, 90_000);

  it('says that a command could not be started, and leaves nothing', () => {
    const { status, stderr } = run(['--agents', '1', '--plain', '--', '/no/such/program']);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(/USAGE: \/no\/such\/program could not be started/);
  }, 90_000);

  const dropper = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  const canDrop = process.getuid?.() === 0 && spawnSync(dropper[0] ?? '', [...dropper.slice(1), 'true']).status === 0;
  it.skipIf(!canDrop)(
    'runs plain processes for those who are not root, and says that nothing measured so counts',
    async () => {
      const home = await mkdtemp(path.join(tmpdir(), 'testbed-nobody-'));
      try {
        const { status, stdout, stderr } = run(['--agents', '1'], [...dropper, 'env', `HOME=${home}`]);
        expect({ status, stderr: /^[A-Z_]+: .*/m.exec(stderr)?.[0] }).toEqual({ status: 0, stderr: undefined });
        expect(stdout).toMatch(/Plain processes without limits.*\(not root\): no figure measured here counts/);
        expect(stdout).toMatch(/agent-1\s+127\.0\.0\.1/);
      } finally {
        await rm(home, { recursive: true, force: true });
      }
      expect(existsSync(path.join(tmpdir(), 'musical-chair-testbed-65534'))).toBe(true);
    },
    90_000,
  );
});
