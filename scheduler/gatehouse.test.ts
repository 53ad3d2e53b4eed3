/** A gateway with certificates: what operators ask over the broker, and what a revocation does to the scheduler. TLS on the broker is tested where it is made. */
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { readCredentials } from '../broker/credentials/credentials.js';
import { enrol } from '../broker/credentials/enrolment.js';
import { GatewayClock } from '../broker/credentials/gateway-clock.js';
import { ChairClient } from './client.js';
import { Gateway } from './gateway.js';
import { ScriptedAgent, scriptedSource } from './scripted-agent.js';

const running: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of running.splice(0).reverse()) await stop();
});

async function start(secure = true) {
  const directory = await mkdtemp(join(tmpdir(), 'chair-gatehouse-'));
  const where = { broker: { host: '127.0.0.1', port: 0 }, laneHost: '127.0.0.1', stateDirectory: join(directory, 'state') };
  const gateway = new Gateway({
    cluster: 'home',
    source: scriptedSource(),
    ...where,
    ...(secure ? { gatehouse: { host: '127.0.0.1', port: 0 } } : {}),
  });
  running.push(async () => {
    await gateway.stop();
    await rm(directory, { recursive: true, force: true });
  });
  await gateway.start();
  const client = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: 'home', name: 'alice-0123abcd' });
  running.push(() => client.close());
  return { gateway, client, directory };
}

describe('a gateway with certificates', () => {
  it('invites, lets in, shows, and throws out, as its operator asks; and writes down who asked', async () => {
    const { gateway, client, directory } = await start();
    const { token, enrolmentPort, tokens } = await client.trust({ action: 'invite', name: 'pi-1', role: 'agent', ttlMs: 3_600_000 });
    expect(tokens).toMatchObject([{ name: 'pi-1', role: 'agent', state: 'open' }]);
    const at = { host: '127.0.0.1', port: enrolmentPort };
    const { identity } = await enrol({ directory: join(directory, 'pi'), token, gateway: at, clock: new GatewayClock() });
    expect(identity).toEqual({ cluster: 'home', role: 'agent', name: 'pi-1' });
    expect((await client.trust({ action: 'tokens' })).tokens).toMatchObject([{ state: 'used' }]);
    expect((await client.trust({ action: 'members' })).members.map(({ name, state }) => `${name} ${state}`)).toEqual([
      'gateway valid',
      'operator valid',
      'pi-1 valid',
    ]);
    const agent = await ScriptedAgent.start({ brokerUrl: gateway.brokerUrl, cluster: 'home', name: 'pi-1' });
    running.push(() => agent.stop());
    const spare = await ScriptedAgent.start({ brokerUrl: gateway.brokerUrl, cluster: 'home', name: 'pi-2' });
    running.push(() => spare.stop());
    await expect.poll(() => gateway.status().agents.filter(({ state }) => state === 'ready').length, { timeout: 20_000 }).toBe(2);
    await client.deploy({ name: 'm', model: 'scripted', agents: ['pi-1'] });
    await client.undeploy('m');
    expect((await client.trust({ action: 'revoke', name: 'pi-1', why: 'lost \u001b[2J' })).members).toMatchObject([
      { state: 'revoked', why: 'lost \\u001b[2J' },
    ]);
    // What it says after that, on a broker that does not cut it off, is another matter.
    expect(gateway.status().events).toContainEqual(
      expect.objectContaining({ kind: 'lost', text: 'agent pi-1: its certificate was revoked' }),
    );
    const { audit } = await client.trust({ action: 'audit', count: 5 });
    expect(audit.map(({ event, by, about }) => `${event} | ${by} | ${about}`)).toEqual([
      'token created | alice | agent pi-1',
      'joined |  | agent pi-1',
      'deployed | alice | m',
      'undeployed | alice | m',
      'revoked | alice | agent pi-1',
    ]);
  });

  it('refuses what makes no sense, with the code that says why', async () => {
    const { client } = await start();
    await expect(client.trust({ action: 'invite', name: 'gateway', role: 'agent', ttlMs: 3_600_000 })).rejects.toMatchObject({
      code: 'AGENT_NAME_INVALID',
    });
    await expect(client.trust({ action: 'invite', name: 'x', role: 'king', ttlMs: 3_600_000 })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(client.trust({ action: 'invite', name: 'x', role: 'agent', ttlMs: Number.NaN })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(client.trust({ action: 'invite', name: 'x', role: 'gateway', ttlMs: 3_600_000 })).rejects.toMatchObject({
      code: 'AGENT_NAME_INVALID',
    });
    await expect(client.trust({ action: 'approve', name: 'x' })).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    await expect(client.trust({ action: 'revoke', name: 'x' })).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    await expect(client.trust({ action: 'revoke token', key: '' })).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    await expect(client.trust({ action: 'dance' })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('keeps its authority over a restart, and has credentials for commands on the same machine', async () => {
    const { gateway, directory } = await start();
    const { fingerprint } = gateway.gatehouse?.authority ?? { fingerprint: '' };
    await gateway.stop();
    const again = new Gateway({
      ...{ cluster: 'home', source: scriptedSource(), broker: { host: '127.0.0.1', port: 0 }, laneHost: '127.0.0.1' },
      ...{ stateDirectory: join(directory, 'state'), gatehouse: { host: '127.0.0.1', port: 0 } },
    });
    running.push(() => again.stop());
    await again.start();
    expect(again.gatehouse?.authority.fingerprint).toBe(fingerprint);
    const { identity, ca } = await readCredentials(join(directory, 'state', 'credentials', 'operator'));
    expect(identity).toEqual({ cluster: 'home', role: 'operator', name: 'operator' });
    expect(new X509Certificate(ca).fingerprint256.replaceAll(':', '').toLowerCase()).toBe(fingerprint);
  });
});

it('a gateway without certificates answers no question on them', async () => {
  const { client } = await start(false);
  await expect(client.trust({ action: 'members' })).rejects.toMatchObject({ code: 'TRUST_OFF' });
});
