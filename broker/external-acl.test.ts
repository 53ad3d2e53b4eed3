import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import mqtt from 'mqtt';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Credentials, Identity } from './credentials/credentials.js';
import { externalAcl, subjectOf } from './external-acl.js';
import { listen } from './listen.js';
import { connectBus } from './mqtt-bus.js';
import { MOSQUITTO, MOSQUITTO_PATH, until } from './test-brokers.js';
import { type TestAuthority, testAuthority } from './test-credentials.js';
import { spokenBy, topicsOf } from './topics.js';

const topics = topicsOf('test');
const AGENT: Identity = { cluster: 'test', role: 'agent', name: 'pi-1' };

describe('access lists for other brokers', () => {
  it('name each identity by the subject of its certificate, and its topics', () => {
    const text = externalAcl('mosquitto', [AGENT, { ...AGENT, role: 'viewer', name: 'bob' }]);
    expect(text.split('\n\n')[1]?.split('\n').slice(0, 3)).toEqual([
      'user CN=pi-1,OU=agent,O=test',
      'topic write mc/test/hello/by/pi-1',
      'topic write mc/test/health/by/pi-1',
    ]);
    expect(text).toContain('user CN=bob,OU=viewer,O=test\ntopic write mc/test/ask/by/bob\n');
    expect(text).not.toMatch(/pattern|readwrite|%/);
  });

  it('are refused where they could not say the same', () => {
    for (const make of ['rabbitmq', 'emqx'] as const) expect(() => externalAcl(make, [AGENT])).toThrow(/no access list for/);
  });
});

interface Mosquitto {
  readonly url: string;
  /** Its access list is of these now. */
  reload(members: readonly Credentials[]): void;
}

/** Mosquitto as docs/brokers.md says it is set up. */
async function startMosquitto(authority: TestAuthority, members: readonly Credentials[]): Promise<Mosquitto> {
  const directory = mkdtempSync(join(tmpdir(), 'mosquitto-acl-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const { ca, certificate, key } = await authority.make('gateway', 'gateway');
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  const aclOf = (credentials: readonly Credentials[]): string =>
    file(
      'acl',
      externalAcl(
        'mosquitto',
        credentials.map(({ identity }) => identity),
      ),
    );
  const free = createServer();
  const port = await listen(free, '127.0.0.1', 0);
  await new Promise<void>((resolve) => free.close(() => resolve()));
  const config = file(
    'mosquitto.conf',
    [
      'user root',
      'persistence false',
      `listener ${port} 127.0.0.1`,
      `cafile ${file('ca.pem', ca)}`,
      `certfile ${file('cert.pem', certificate)}`,
      `keyfile ${file('key.pem', key)}`,
      'require_certificate true',
      'use_subject_as_username true',
      'retain_available false',
      `acl_file ${aclOf(members)}`,
      '',
    ].join('\n'),
  );
  const child = spawn('mosquitto', ['-c', config], { stdio: 'ignore', env: { ...process.env, PATH: MOSQUITTO_PATH } });
  onTestFinished(() => void child.kill('SIGKILL'));
  const reload = (now: readonly Credentials[]): void => {
    aclOf(now);
    child.kill('SIGHUP');
  };
  return { url: `mqtts://127.0.0.1:${port}`, reload };
}

describe.skipIf(MOSQUITTO.missing !== '')(
  `Mosquitto with our certificates and access list${MOSQUITTO.missing === '' ? '' : ` (${MOSQUITTO.missing})`}`,
  () => {
    it('carries what each may say, and nothing that is said or read in the name of another', async () => {
      const authority = await testAuthority();
      const [gateway, pi1, pi2] = await Promise.all([
        authority.make('gateway', 'gateway'),
        authority.make('agent', 'pi-1'),
        authority.make('agent', 'pi-2'),
      ]);
      const { url, reload } = await startMosquitto(authority, [gateway, pi1, pi2]);
      const connected = async (id: string, credentials: Credentials) => {
        const bus = await connectBus({ url, id, trust: authority.trust(credentials), retryFirst: true, random: () => 0 });
        onTestFinished(() => bus.stop());
        await until(`${id} is in`, () => bus.connected, 10_000);
        return bus;
      };
      const scheduler = await connected('scheduler', gateway);
      const heard: string[] = [];
      await scheduler.subscribe(topics.gone, ({ agent }) => heard.push(agent));
      const agent = await connected('pi-1', pi1);
      const reigns: number[] = [];
      await agent.subscribe(topics.reign, ({ term }) => reigns.push(term));
      await agent.publish(topics.gone, { agent: 'pi-1', nonce: '', why: 'stopped', connection: 0 });
      await scheduler.publish(topics.reign, { term: 3, scheduler: 's', schemaFingerprint: '', schemaVersion: 1 });
      await until('both', () => heard.length === 1 && reigns.length === 1);
      // A stock client with the certificate of pi-1 tries to be pi-2, and to read what is pi-2's.
      const { ca, certificate, key } = pi1;
      const stock = mqtt.connect(url, {
        ca,
        cert: certificate,
        key,
        rejectUnauthorized: false,
        reconnectPeriod: 0,
        clientId: 'pi-1~x',
        protocolVersion: 4,
      });
      onTestFinished(() => void stock.end(true));
      const overheard: string[] = [];
      stock.on('message', (topic) => overheard.push(topic));
      await new Promise((resolve, reject) => stock.once('connect', resolve).once('error', reject));
      await stock.subscribeAsync([topics.command('pi-2').name, 'mc/#'], { qos: 1 }).catch(() => undefined);
      await stock.publishAsync(spokenBy(topics.gone.name, 'pi-2'), 'x', { qos: 1 });
      await scheduler.publishBytes(topics.command('pi-2').name, Buffer.from('x'), 1);
      await scheduler.publishBytes(topics.command('pi-1').name, Buffer.from('x'), 1);
      // What pi-1 may hear reaches it through its wide subscription; what is pi-2's was before it.
      await until('its own', () => overheard.includes(topics.command('pi-1').name));
      expect(overheard.filter((topic) => topic.includes('pi-2'))).toEqual([]);
      expect(heard).toEqual(['pi-1']);
      expect(subjectOf(pi1.identity)).toBe('CN=pi-1,OU=agent,O=test');

      // pi-1 is revoked: its connection stays, and says and hears nothing from the moment of the reload on; that of pi-2 does.
      const other = await connected('pi-2', pi2);
      const others: number[] = [];
      await other.subscribe(topics.reign, ({ term }) => others.push(term));
      reload([gateway, pi2]);
      for (let term = 4, isDeaf = false; !isDeaf; term++) {
        expect(term).toBeLessThan(100);
        await scheduler.publish(topics.reign, { term, scheduler: 's', schemaFingerprint: '', schemaVersion: 1 });
        await until('pi-2 hears', () => others.includes(term));
        await new Promise((resolve) => setTimeout(resolve, 50));
        isDeaf = !reigns.includes(term);
      }
      expect(agent.connected).toBe(true);
      heard.length = 0;
      await agent.publish(topics.gone, { agent: 'pi-1', nonce: '', why: 'stopped', connection: 0 }).catch(() => undefined);
      await other.publish(topics.gone, { agent: 'pi-2', nonce: '', why: 'stopped', connection: 0 });
      await until('pi-2', () => heard.length > 0);
      expect(heard).toEqual(['pi-2']);
    });
  },
);
