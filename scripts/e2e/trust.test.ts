/** A cluster with credentials in one process: everything encrypted, everybody held to his rights, nobody in who is revoked. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encode } from '../../broker/codec.js';
import { connectBus } from '../../broker/mqtt-bus.js';
import { NO_SEAL } from '../../broker/seal.js';
import type { Tensor } from '../../broker/tensor.js';
import { type TestAuthority, type TestTrust, testAuthority } from '../../broker/test-credentials.js';
import { topicsOf } from '../../broker/topics.js';
import type { Engine } from '../../models/engine/engine.js';
import { createOnnxRuntimeEngine } from '../../models/engine/onnxruntime.js';
import { randomTensor } from '../../models/random.js';
import { compare, TOLERANCE } from '../../models/slicing/verify.js';
import { buildZoo } from '../../models/zoo/index.js';
import { type RunningAgent, runAgent } from '../../node-agent/main.js';
import { ChairClient } from '../../scheduler/client.js';
import { Gateway } from '../../scheduler/gateway.js';
import { untilAgentsReady } from '../commands/cluster.js';

const CLUSTER = 'home';
const NAMES = ['pi-1', 'pi-2', 'pi-3'];
const HERE = { laneHost: '127.0.0.1', addresses: ['127.0.0.1'] };

let folder = '';
let engine: Engine;
let authority: TestAuthority;
let gateway: Gateway;
let gatewayTrust: TestTrust;
let client: ChairClient;
let input: Record<string, Tensor>;
let expected: Record<string, Tensor>;
const agents: RunningAgent[] = [];
const lines: string[] = [];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-trust-'));
  const model = path.join(folder, 'net.onnx');
  await buildZoo('alexnet', model, { scale: 0.125, size: 96, classes: 10, seed: 4 });
  engine = await createOnnxRuntimeEngine({ threads: 1 });
  const session = await engine.load(model);
  input = Object.fromEntries(session.inputs.map((info) => [info.name, randomTensor(info, 9)]));
  expected = { ...(await session.run(input)).outputs };
  authority = await testAuthority(CLUSTER);
  gatewayTrust = authority.trust(await authority.make('gateway', 'gateway'));
  gateway = new Gateway({
    ...HERE,
    cluster: CLUSTER,
    trust: gatewayTrust,
    stateDirectory: path.join(folder, 'gateway'),
    broker: { host: '127.0.0.1', port: 0 },
    createEngine: () => createOnnxRuntimeEngine({ threads: 1 }),
    // All in one process, on a machine that may be busy: nobody is lost for being slow. Who is revoked is gone by its Last Will.
    membership: { missedHealth: 60, holdDown: { baseMs: 0 } },
    log: (line) => lines.push(line),
  });
  await gateway.start();
  for (const name of NAMES) {
    const trust = authority.trust(await authority.make('agent', name));
    const options = {
      ...HERE,
      name,
      cluster: CLUSTER,
      broker: gateway.brokerUrl,
      directory: path.join(folder, name),
      threads: 1,
      healthMs: 200,
    };
    agents.push(await runAgent(options, { softwareVersion: 'test', trust, log: (line) => lines.push(`${name}: ${line}`) }));
  }
  const trust = authority.trust(await authority.make('operator', 'alice'));
  client = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: CLUSTER, trust });
  await untilAgentsReady(client, NAMES.length);
}, 60_000);

afterAll(async () => {
  await client?.close();
  await Promise.all(agents.map((agent) => agent.stop()));
  await gateway?.stop();
  await engine?.dispose();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

async function infer(): Promise<number> {
  const { outputs } = await client.infer('net', input, { deadlineMs: 20_000 });
  return compare(expected, outputs).maxRelDiff;
}

describe('a cluster with credentials', { timeout: 120_000 }, () => {
  it('deploys, measures links and runs frames over direct lanes, encrypted from end to end', async () => {
    const report = await client.deploy({ name: 'net', model: path.join(folder, 'net.onnx'), cut: 'stages:3' });
    expect(new Set(report.seats.map(({ agent }) => agent)).size).toBe(3);
    for (let i = 0; i < 5; i++) expect(await infer()).toBeLessThan(TOLERANCE);
    expect(client.lane()).toBe('direct');
    const { links } = await client.links({ measure: true, evenIfBusy: true, agents: ['pi-1', 'pi-2'] });
    expect(links.filter(({ source }) => source === 'measured').length).toBeGreaterThan(0);
    await expect
      .poll(async () => {
        const { agents } = await client.status();
        return agents.flatMap(({ agent, health }) =>
          (health?.lanes ?? []).filter((lane) => lane.messagesSent > 0).map(({ lane }) => `${agent} ${lane}`),
        );
      })
      .toEqual(expect.arrayContaining(NAMES.map((name) => `${name} direct`)));
    const status = await client.status();
    expect([status.encrypted, status.agents.map(({ encrypted }) => encrypted)]).toEqual([true, [true, true, true]]);
    expect(gatewayTrust.refusals).toEqual([]);
  });

  it('lets a viewer look, and nothing else', async () => {
    const trust = authority.trust(await authority.make('viewer', 'bob'));
    const viewer = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: CLUSTER, trust, requestTimeoutMs: 10_000 });
    try {
      await expect.poll(async () => (await viewer.status()).deployments[0]?.state, { timeout: 20_000 }).toBe('serving');
      expect((await viewer.peers('pi-1')).tables.length).toBe(1);
      await expect(viewer.undeploy('net')).rejects.toMatchObject({ code: 'BROKER_REFUSED' });
      await expect(viewer.infer('net', input, { deadlineMs: 2_000 })).rejects.toMatchObject({ code: 'BROKER_REFUSED' });
    } finally {
      await viewer.close();
    }
  });

  it('has agents that obey no command without the signature of the gateway, whoever sends it', async () => {
    // As a broker that was taken over would: with the right to write there, and all that can be heard.
    const topics = topicsOf(CLUSTER);
    const bus = await connectBus({ url: gateway.brokerUrl, id: 'scheduler', trust: gatewayTrust });
    const status = await client.status();
    const [first] = status.agents;
    const nonce = first?.health?.nonce ?? '';
    const body = { kind: 'release', release: { deployment: 'net', epoch: status.deployments[0]?.epoch ?? 0 } } as const;
    const command = { id: 'forged', term: status.term, scheduler: 's', nonce, deadlineMs: 1000, body, seal: NO_SEAL };
    await bus.publishBytes(topics.command('pi-1').name, encode('Command', command), 1);
    await expect
      .poll(async () => (await client.status()).agents.find(({ agent }) => agent === 'pi-1')?.health?.refusals.map(({ code }) => code))
      .toContain('SIGNATURE_WRONG');
    await bus.stop();
    expect(await infer()).toBeLessThan(TOLERANCE);
  });

  it('cuts a revoked agent off at once, seats others in its place, and does not let it in again', async () => {
    const before = (await client.status('net')).deployments[0]?.plan?.seats.map(({ agent }) => agent) ?? [];
    expect(before).toContain('pi-3');
    const from = performance.now();
    authority.revoke('pi-3');
    await expect
      .poll(async () => (await client.status()).agents.find(({ agent }) => agent === 'pi-3')?.state, { timeout: 10_000 })
      .toBe('lost');
    // By its Last Will: silence would take a minute.
    expect(performance.now() - from).toBeLessThan(10_000);
    await expect
      .poll(async () => (await client.status('net')).deployments[0]?.plan?.seats.map(({ agent }) => agent), { timeout: 30_000 })
      .not.toContain('pi-3');
    expect(await infer()).toBeLessThan(TOLERANCE);
    await expect.poll(() => lines.some((line) => line.startsWith('pi-3: BROKER_REFUSED')), { timeout: 15_000 }).toBe(true);
    expect((await client.status()).agents.find(({ agent }) => agent === 'pi-3')?.state).toBe('lost');
  });
});
