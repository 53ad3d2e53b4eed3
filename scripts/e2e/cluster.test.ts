import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TOLERANCE } from '../../models/slicing/verify.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { LocalCluster } from '../children.js';
import { Net, startCluster } from './fixture.js';
import { isAlive } from './run-cli.js';

const FRAMES = 200;

let net: Net;
let cluster: LocalCluster;
let client: ChairClient;

beforeAll(async () => {
  net = await Net.build('resnet18', { scale: 0.125, size: 64, classes: 10, seed: 5 }, 8);
  ({ cluster, client } = await startCluster(net, 4));
}, 150_000);

afterAll(async () => {
  await client?.close();
  await cluster?.stop();
  net?.remove();
}, 30_000);

describe('four agents, each a process of its own', () => {
  it('give 200 results equal to the single machine, though one is killed in the middle', { timeout: 90_000 }, async () => {
    await client.deploy({ name: 'net', model: net.model, cut: 'rows:4' });
    const frames = Array.from({ length: FRAMES }, (_, i) => net.input(i));
    let results = 0;
    let worst = 0;
    let reissued = 0;
    for await (const result of client.inferStream('net', frames, { deadlineMs: 60_000 })) {
      worst = Math.max(worst, net.difference(results, result.outputs));
      if (result.attempts > 1) reissued++;
      results++;
      if (results === FRAMES / 4) cluster.agents[2]?.process.kill('SIGKILL');
    }
    console.log(`${results} results, largest relative difference ${worst.toExponential(2)}, ${reissued} frames issued again`);
    expect(results).toBe(FRAMES);
    expect(worst).toBeLessThanOrEqual(TOLERANCE);
    const { agents, deployments } = await client.status();
    expect(agents.find((a) => a.agent === 'agent-3')?.state).not.toBe('ready');
    const [deployment] = deployments;
    expect(deployment?.state).toBe('serving');
    expect(deployment?.failed).toBe(0);
    expect(deployment?.plan?.seats.map((s) => s.agent)).not.toContain('agent-3');
  });

  it('leave nothing behind when they are stopped', { timeout: 30_000 }, async () => {
    const pids = [cluster.gateway, ...cluster.agents].map((c) => c.pid);
    await client.close();
    await cluster.stop();
    expect(pids.filter(isAlive)).toEqual([]);
  });
});
