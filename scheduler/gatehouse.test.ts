/** A gateway with certificates: joining, what operators ask over the broker, and what a revocation does, with everybody on TLS. */
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type Role, readCredentials } from '../broker/credentials/credentials.js';
import { enrol } from '../broker/credentials/enrolment.js';
import { GatewayClock } from '../broker/credentials/gateway-clock.js';
import { CredentialKeeper } from '../broker/credentials/keeper.js';
import { fixedSource } from '../broker/credentials/source.js';
import { connectBus } from '../broker/mqtt-bus.js';
import { topicsOf } from '../broker/topics.js';
import { trustOf } from '../broker/trust.js';
import { ChairClient, type ClientOptions } from './client.js';
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
  const connect = async (options: Partial<ClientOptions> = {}): Promise<ChairClient> => {
    const made = await ChairClient.connect({ brokerUrl: gateway.brokerUrl, cluster: 'home', ...options });
    running.push(() => made.close());
    return made;
  };
  const operator = async () => trustOf(fixedSource(await readCredentials(join(directory, 'state', 'credentials', 'operator'))));
  const client = await connect(secure ? { trust: await operator() } : {});
  /** Joins, as a machine does whose clock says `systemMs`. */
  const join_ = async (name: string, role: Role = 'agent', systemMs = Date.now()): Promise<CredentialKeeper> => {
    const { token, enrolmentPort } = await client.trust({ action: 'invite', name, role, ttlMs: 3_600_000 });
    const at = {
      directory: join(directory, name),
      gateway: { host: '127.0.0.1', port: enrolmentPort },
      clock: new GatewayClock(() => systemMs),
    };
    const credentials = await enrol({ ...at, token });
    // Another clock that was never set: as after a restart.
    const keeper = new CredentialKeeper({ ...at, credentials, clock: new GatewayClock(() => systemMs), gateways: () => [at.gateway] });
    running.push(() => keeper.stop());
    return keeper;
  };
  const startAgent = async (name: string, systemMs?: number): Promise<ScriptedAgent> => {
    const trust = trustOf(await join_(name, 'agent', systemMs));
    const agent = await ScriptedAgent.start({ brokerUrl: gateway.brokerUrl, cluster: 'home', name, trust });
    running.push(() => agent.stop());
    return agent;
  };
  return { gateway, client, directory, connect, joined: join_, startAgent };
}

const stateOf = (gateway: Gateway, name: string): string | undefined => gateway.status().agents.find(({ agent }) => agent === name)?.state;

describe('a gateway with certificates', () => {
  it('invites, lets in, shows, and throws out, as its operator asks; and writes down who asked', async () => {
    const { gateway, client, startAgent } = await start();
    const agents = new Map([
      ['pi-1', await startAgent('pi-1')],
      ['pi-2', await startAgent('pi-2')],
    ]);
    await expect.poll(() => [stateOf(gateway, 'pi-1'), stateOf(gateway, 'pi-2')], { timeout: 20_000 }).toEqual(['ready', 'ready']);
    expect((await client.trust({ action: 'tokens' })).tokens).toMatchObject([{ state: 'used' }, { state: 'used' }]);
    const { members } = await client.trust({ action: 'members' });
    expect(members.map(({ name, state }) => `${name} ${state}`)).toEqual(['gateway valid', 'operator valid', 'pi-1 valid', 'pi-2 valid']);
    await client.deploy({ name: 'm', model: 'scripted', planner: 'single' });
    const holder = gateway.status().deployments[0]?.plan?.seats[0]?.agent ?? 'pi-1';
    const other = holder === 'pi-1' ? 'pi-2' : 'pi-1';
    const revoked = await client.trust({ action: 'revoke', name: holder, why: 'lost \u001b[2J' });
    expect(revoked.members).toMatchObject([{ state: 'revoked', why: 'lost \\u001b[2J' }]);
    // Cut off, the others told to end their lanes with it, and its seats given to another.
    expect(stateOf(gateway, holder)).toBe('stopped');
    await expect.poll(() => agents.get(other)?.out, { timeout: 10_000 }).toEqual([holder]);
    expect(gateway.status().events).toContainEqual(
      expect.objectContaining({ kind: 'lost', text: `agent ${holder}: its certificate was revoked` }),
    );
    await expect.poll(() => gateway.status().deployments[0]?.plan?.seats.map(({ agent }) => agent), { timeout: 20_000 }).toEqual([other]);
    expect(stateOf(gateway, holder)).toBe('stopped');
    await client.undeploy('m');
    const bundle = { agent: other, name: '0.1.0-0123456789abcdef', arch: 'x64', sha256: '0'.repeat(64), sizeBytes: 1 };
    await expect(client.update(bundle)).rejects.toMatchObject({ code: 'UPDATE_REFUSED' });
    await client.drain(other);
    await client.drain(other, { undo: true });
    await expect(client.drain('nobody')).rejects.toMatchObject({ code: 'AGENT_UNKNOWN' });
    const audited = async () => {
      const { audit } = await client.trust({ action: 'audit', count: 100 });
      return audit.filter(({ event }) => event !== 'authority made');
    };
    // It is told that it is out when it comes again.
    await expect.poll(async () => (await audited()).some(({ code }) => code === 'CERTIFICATE_REVOKED'), { timeout: 20_000 }).toBe(true);
    const told = await audited();
    expect(told.filter(({ about }) => about === 'agent nobody')).toEqual([]);
    expect(told.map(({ event, by, about }) => `${event} | ${by} | ${about}`)).toEqual(
      expect.arrayContaining([
        'token created | operator | agent pi-1',
        'joined |  | agent pi-1',
        'deployed | operator | m',
        `revoked | operator | agent ${holder}`,
        'undeployed | operator | m',
        `update ordered | operator | agent ${other}`,
        `update failed | operator | agent ${other}`,
        `drained | operator | agent ${other}`,
        `drain undone | operator | agent ${other}`,
      ]),
    );
    expect(told.findIndex(({ event }) => event === 'revoked')).toBeLessThan(told.findIndex(({ code }) => code === 'CERTIFICATE_REVOKED'));
  });

  it('lets a board in whose clock says 1970, and one whose clock is a day off, on the port to join, the broker and lanes', async () => {
    const { gateway, startAgent } = await start();
    await startAgent('pi-1', 0);
    await startAgent('pi-2', Date.now() + 40 * 86_400_000);
    await expect.poll(() => [stateOf(gateway, 'pi-1'), stateOf(gateway, 'pi-2')], { timeout: 20_000 }).toEqual(['ready', 'ready']);
  });

  it('lets a viewer look, and nothing else, whatever it asks and wherever', async () => {
    const { gateway, connect, joined } = await start();
    const trust = trustOf(await joined('alice', 'viewer'));
    const viewer = await connect({ trust, requestTimeoutMs: 5_000 });
    expect((await viewer.status()).cluster).toBe('home');
    expect((await viewer.peers()).tables).toEqual([]);
    // A trace makes agents note what they do, and shows when whose frames came.
    const trace = { deployment: 'm', frames: 1, forMs: 1000, collect: false };
    for (const forbidden of [
      viewer.trust({ action: 'members' }),
      viewer.undeploy('m'),
      viewer.deploy({ name: 'm', model: 'scripted' }),
      viewer.adjust({ name: 'm', objective: '', weight: 0, dryRun: true }),
      viewer.drain('pi-1'),
      viewer.trace(trace),
      viewer.trace({ ...trace, collect: true }),
      viewer.links({ measure: true, evenIfBusy: false, agents: [] }),
    ]) {
      await expect(forbidden).rejects.toMatchObject({ code: 'BROKER_REFUSED' });
      await expect(forbidden).rejects.toThrow(/is not for viewers/);
    }
    expect((await viewer.status()).cluster).toBe('home');
    // One who writes his own program, and asks where viewers may ask.
    const topics = topicsOf('home');
    const bus = await connectBus({ url: gateway.brokerUrl, id: 'alice-00000001', trust });
    running.push(() => bus.stop());
    const codes: string[] = [];
    await bus.subscribe(topics.response(bus.id), ({ code }) => codes.push(code));
    for (const [i, body] of [
      { kind: 'trace', trace } as const,
      { kind: 'trace', trace: { ...trace, collect: true } } as const,
      { kind: 'drain', drain: { agent: 'pi-1', undo: false } } as const,
      { kind: 'links', links: { measure: true, evenIfBusy: true, agents: [] } } as const,
    ].entries()) {
      await bus.publish(topics.ask, { id: `own ${i}`, client: bus.id, deadlineMs: 1000, body });
      await expect.poll(() => codes.length, { timeout: 10_000 }).toBe(i + 1);
    }
    expect(new Set(codes)).toEqual(new Set(['BROKER_REFUSED']));
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
    await expect(client.trust({ action: 'revoke', name: 'scheduler', unknown: true })).rejects.toMatchObject({ code: 'IDENTITY_UNKNOWN' });
    const { members } = await client.trust({ action: 'revoke', name: 'x', why: 'lost', unknown: true });
    expect(members).toMatchObject([{ name: 'x', role: '', state: 'revoked', why: 'lost' }]);
    await expect(client.trust({ action: 'revoke token', key: '' })).rejects.toMatchObject({ code: 'TOKEN_REFUSED' });
    await expect(client.trust({ action: 'dance' })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('shows its lists whatever a reason is made of', async () => {
    const { client, startAgent } = await start();
    await startAgent('pi-1');
    await client.trust({ action: 'revoke', name: 'pi-1', why: '\u{1f600}'.repeat(4000) });
    const { members } = await client.trust({ action: 'members' });
    expect(members.find(({ name }) => name === 'pi-1')?.why).toMatch(/^[ -~]{1,200}$/);
    expect((await client.trust({ action: 'audit', count: 9 })).audit.length).toBeGreaterThan(3);
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

  it('knows those again who come with a good certificate, when it was restored from before they joined; and can throw them out', async () => {
    const { gateway, directory, joined } = await start();
    const trust = trustOf(await joined('pi-1'));
    await gateway.stop();
    for (const name of ['issued.json', 'revoked.json']) await rm(join(directory, 'state', 'credentials', name));
    const again = new Gateway({
      ...{ cluster: 'home', source: scriptedSource(), broker: { host: '127.0.0.1', port: 0 }, laneHost: '127.0.0.1' },
      ...{ stateDirectory: join(directory, 'state'), gatehouse: { host: '127.0.0.1', port: 0 } },
    });
    running.push(() => again.stop());
    await again.start();
    const known = (): string[] | undefined => again.gatehouse?.authority.members().map(({ name, state }) => `${name} ${state}`);
    expect(known()).toEqual(['gateway valid', 'operator valid']);
    const agent = await ScriptedAgent.start({ brokerUrl: again.brokerUrl, cluster: 'home', name: 'pi-1', trust });
    running.push(() => agent.stop());
    await expect.poll(() => stateOf(again, 'pi-1'), { timeout: 20_000 }).toBe('ready');
    expect(known()).toEqual(['gateway valid', 'operator valid', 'pi-1 valid']);
    await again.gatehouse?.authority.revoke('pi-1', 'stolen', 'test');
    await expect.poll(() => stateOf(again, 'pi-1'), { timeout: 20_000 }).toBe('stopped');
  });
});

it('a gateway without certificates answers no question on them', async () => {
  const { client } = await start(false);
  await expect(client.trust({ action: 'members' })).rejects.toMatchObject({ code: 'TRUST_OFF' });
});
