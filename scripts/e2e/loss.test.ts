import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TOLERANCE } from '../../models/slicing/verify.js';
import type { ChairClient } from '../../scheduler/client.js';
import type { LocalCluster } from '../children.js';
import { Load, Net, startCluster, until } from './fixture.js';

const AGENTS = 6;

let net: Net;
let cluster: LocalCluster;
let client: ChairClient;

beforeAll(async () => {
  net = await Net.build('alexnet', { scale: 0.125, size: 96, classes: 10, seed: 3 }, 6);
  ({ cluster, client } = await startCluster(net, AGENTS));
}, 150_000);

afterAll(async () => {
  await client?.close();
  await cluster?.stop();
  net?.remove();
}, 30_000);

describe('six agents, each a process of its own, with a stage each that nobody else has', () => {
  it('lose one after the other under load, and every frame has its one result, equal to the single machine', {
    timeout: 150_000,
  }, async () => {
    await client.deploy({ name: 'net', model: net.model, cut: `stages:${AGENTS}` });
    const seatsNow = async () => (await client.status('net')).deployments[0]?.plan?.seats.map(({ agent }) => agent) ?? [];
    expect(new Set(await seatsNow()).size).toBe(AGENTS);
    const load = new Load(client, 'net', net, 4);
    try {
      await load.more(40);
      // All but one of them: each time another one takes the seats.
      for (const { name, process } of cluster.agents.slice(1)) {
        const from = load.frames;
        process.kill('SIGKILL');
        await load.more(40);
        await until(`a plan without ${name}`, async () => !(await seatsNow()).includes(name));
        console.log(`${name} was killed: at most ${Math.round(load.gapMs(from))} ms without a result`);
      }
    } finally {
      await load.stop();
    }
    expect(load.errors).toEqual([]);
    expect(load.worst).toBeLessThanOrEqual(TOLERANCE);
    const { deployments, events } = await client.status('net');
    expect(deployments[0]).toMatchObject({ failed: 0, completed: load.frames });
    expect(events.filter(({ kind }) => kind === 'repair').length).toBeGreaterThan(0);
    expect(new Set(await seatsNow())).toEqual(new Set(['agent-1']));
  });
});
