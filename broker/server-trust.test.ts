import { connect as connectPlain } from 'node:net';
import { connect as connectTls } from 'node:tls';
import mqtt, { type MqttClient } from 'mqtt';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { Bus } from './bus.js';
import type { Credentials } from './credentials/credentials.js';
import type { Gone, Reign } from './messages.js';
import { type BusOptions, connectBus } from './mqtt-bus.js';
import { type BrokerOptions, type BrokerServer, startBroker } from './server.js';
import { crowd, NO_CROWD, resources, until } from './test-brokers.js';
import { RenewedSource, type TestAuthority, type TestTrust, testAuthority } from './test-credentials.js';
import { spokenBy, topicsOf } from './topics.js';

const topics = topicsOf('test');
const REIGN: Reign = { term: 1, scheduler: 's', schemaFingerprint: '', schemaVersion: 1 };
const gone = (agent: string): Gone => ({ agent, nonce: 'n', why: 'will', connection: 0 });

let authority: TestAuthority;
let gateway: Credentials;
let pi1: Credentials;
let pi2: Credentials;
let alice: Credentials;
beforeAll(async () => {
  authority = await testAuthority();
  [gateway, pi1, pi2, alice] = await Promise.all([
    authority.make('gateway', 'gateway'),
    authority.make('agent', 'pi-1'),
    authority.make('agent', 'pi-2'),
    authority.make('operator', 'alice'),
  ]);
});

interface Served {
  readonly server: BrokerServer;
  readonly trust: TestTrust;
  readonly log: string[];
}

async function served(credentials: Credentials | RenewedSource = gateway, options: Partial<BrokerOptions> = {}): Promise<Served> {
  const trust = authority.trust(credentials);
  const log: string[] = [];
  const server = await startBroker({ host: '127.0.0.1', port: 0, trust, log: (line) => log.push(line), ...options });
  onTestFinished(() => server.stop());
  return { server, trust, log };
}

async function bus({ server }: Served, id: string, credentials: Credentials, options: Partial<BusOptions<Gone>> = {}): Promise<Bus> {
  const made = await connectBus({ url: server.url, id, trust: authority.trust(credentials), ...options });
  onTestFinished(() => made.stop());
  return made;
}

/** A stock client, which tries what ours does not. */
async function stock(
  { server }: Served,
  clientId: string,
  { ca, certificate, key }: Credentials,
  options: object = {},
): Promise<MqttClient> {
  const client = mqtt.connect(server.url, {
    ca,
    cert: certificate,
    key,
    rejectUnauthorized: false,
    clientId,
    reconnectPeriod: 0,
    protocolVersion: 4,
    ...options,
  });
  onTestFinished(() => void client.end(true));
  client.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve());
    client.once('error', reject);
    client.once('close', () => reject(new Error('closed')));
  });
  return client;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error: { code?: string }) => error.code ?? String(error),
  );
}

describe('broker with credentials', () => {
  it('lets in who has a certificate of the cluster, under its name, and carries what each may say', async () => {
    const world = await served();
    expect(world.server.url).toMatch(/^mqtts:/);
    const scheduler = await bus(world, 'scheduler', gateway);
    const heard: string[] = [];
    await scheduler.subscribe(topics.gone, ({ agent }) => heard.push(agent));
    const agent = await bus(world, 'pi-1', pi1);
    const reigns: number[] = [];
    await agent.subscribe(topics.reign, ({ term }) => reigns.push(term));
    await agent.publish(topics.gone, gone('pi-1'));
    await scheduler.publish(topics.reign, REIGN);
    await until('both', () => heard.length === 1 && reigns.length === 1);
    expect(world.server.stats()).toMatchObject({ untrusted: 0, duplicates: 0 });
    // Whoever signs for them may have forgotten them.
    expect(world.trust.met).toEqual(['gateway gateway', 'agent pi-1']);
  });

  it('turns away plain MQTT, no certificate, one of another cluster, one that is over and one that is not valid yet, and says so', async () => {
    const world = await served();
    const other = await testAuthority();
    const hour = 3_600_000;
    const now = Date.now();
    const attempts: readonly (readonly [Credentials, RegExp])[] = [
      [await other.make('agent', 'pi-1'), /CERTIFICATE_FOREIGN/],
      [await authority.make('agent', 'pi-1', { notBeforeMs: now - 9 * hour, notAfterMs: now - hour }), /CERTIFICATE_EXPIRED.*has expired/],
      [
        await authority.make('agent', 'pi-1', { notBeforeMs: now + hour, notAfterMs: now + 9 * hour }),
        /CERTIFICATE_EXPIRED.*not valid yet/,
      ],
    ];
    for (const [credentials, expected] of attempts) {
      const before = world.trust.refusals.length;
      // A stock client does not look at the broker's certificate: the broker must look at its.
      await expect(stock(world, 'pi-1~x', credentials)).rejects.toThrow(/Not authorized|closed/);
      await until('the refusal', () => world.trust.refusals.length > before);
      expect(`${world.trust.refusals.at(-1)?.error.code}: ${world.trust.refusals.at(-1)?.error.message}`).toMatch(expected);
    }
    const bare = connectTls({ port: world.server.port, host: '127.0.0.1', rejectUnauthorized: false });
    bare.on('error', () => undefined);
    bare.resume();
    await until('the end', () => bare.destroyed);
    const plain = connectPlain(world.server.port, '127.0.0.1');
    plain.on('error', () => undefined);
    plain.resume();
    plain.write(Buffer.from([0x10, 13, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 0, 0, 1, 0x61]));
    await until('the end', () => plain.destroyed);
    await until('the counts', () => world.server.stats().untrusted === 5);
    expect(world.trust.refusals.map(({ error }) => error.code)).toEqual([
      'CERTIFICATE_FOREIGN',
      'CERTIFICATE_EXPIRED',
      'CERTIFICATE_EXPIRED',
      'CERTIFICATE_FOREIGN',
      'TLS_FAILED',
    ]);
    expect(world.server.stats().clients).toBe(0);
  });

  it('is itself looked at: an agent speaks to no broker of another cluster, to no agent that plays broker, and to no plain one', async () => {
    const other = await testAuthority();
    const foreign = await startBroker({ host: '127.0.0.1', port: 0, trust: other.trust(await other.make('gateway', 'gateway')) });
    onTestFinished(() => foreign.stop());
    const plain = await startBroker({ host: '127.0.0.1', port: 0 });
    onTestFinished(() => plain.stop());
    const impostor = await served(pi2);
    const to = (url: string) => codeOf(connectBus({ url, id: 'pi-1', trust: authority.trust(pi1) }));
    expect(await to(foreign.url)).toBe('CERTIFICATE_FOREIGN');
    expect(await to(impostor.server.url)).toBe('CERTIFICATE_FOREIGN');
    expect(await to(plain.url)).toBe('INSECURE_REFUSED');
    expect(await to(plain.url.replace('mqtt:', 'mqtts:'))).toBe('BROKER_UNREACHABLE');
    expect(foreign.stats().messagesIn + impostor.server.stats().messagesIn).toBe(0);
  });

  it("refuses a client id that is not the certificate's name with CONNACK 2, and tells of it", async () => {
    const world = await served();
    for (const [id, credentials] of [
      ['pi-2~x', pi1],
      ['scheduler~x', pi1],
      ['pi-1-00000000~x', pi1],
      ['bob-1a2b3c4d~x', alice],
      ['pi-1~x', alice],
    ] as const) {
      await expect(stock(world, id, credentials)).rejects.toThrow(/Identifier rejected/);
    }
    expect(world.trust.refusals.map(({ error, who }) => `${error.code} ${who}`)).toEqual([
      ...Array(3).fill('BROKER_REFUSED agent pi-1'),
      ...Array(2).fill('BROKER_REFUSED operator alice'),
    ]);
    await expect(connectBus({ url: world.server.url, id: 'pi-2', trust: authority.trust(pi1) })).rejects.toMatchObject({
      code: 'BROKER_REFUSED',
    });
    await stock(world, 'alice-1a2b3c4d~x', alice);
  });

  it('keeps no session for anybody who is away: what is said to him would be kept for ever', async () => {
    const world = await served();
    for (let i = 0; i < 3; i++) await expect(stock(world, `pi-1~${i}`, pi1, { clean: false })).rejects.toThrow(/Identifier rejected/);
    expect(world.trust.refusals.map(({ error, who }) => `${error.code} ${who}`)).toEqual(Array(3).fill('BROKER_REFUSED agent pi-1'));
  });

  it("ends the connection of an agent that publishes in another's name, leaves a Will there, or retains, and nobody hears it", async () => {
    const world = await served();
    const scheduler = await bus(world, 'scheduler', gateway);
    const heard: string[] = [];
    await scheduler.subscribeBytes('mc/test/gone/by/+', (_, speaker) => heard.push(speaker));
    await scheduler.subscribeBytes(topics.command('pi-2').name, () => heard.push('command'));
    for (const [topic, retain] of [
      [spokenBy(topics.gone.name, 'pi-2'), false],
      [topics.command('pi-2').name, false],
      [spokenBy(topics.gone.name, 'pi-1'), true],
    ] as const) {
      const client = await stock(world, 'pi-1~x', pi1);
      const closed = new Promise<void>((resolve) => void client.once('close', () => resolve()));
      client.publish(topic, 'x', { qos: 1, retain });
      await closed;
    }
    for (const topic of [spokenBy(topics.gone.name, 'pi-2'), topics.command('pi-2').name]) {
      await expect(stock(world, 'pi-1~x', pi1, { will: { topic, payload: 'x', qos: 1, retain: false } })).rejects.toThrow(/Not authorized/);
    }
    const right = await stock(world, 'pi-1~x', pi1);
    await right.publishAsync(spokenBy(topics.gone.name, 'pi-1'), 'x', { qos: 1 });
    await until('the right one', () => heard.length > 0);
    expect(heard).toEqual(['pi-1']);
    expect(world.trust.refusals.map(({ error, who }) => `${error.code} ${who}`)).toEqual(Array(5).fill('BROKER_REFUSED agent pi-1'));
    // What ours would be dropped for it does not even try.
    const own = await bus(world, 'pi-1', pi1);
    await expect(own.publishBytes(topics.command('pi-2').name, new Uint8Array(1))).rejects.toMatchObject({ code: 'BROKER_REFUSED' });
    expect(own.connected).toBe(true);
  });

  it('answers a subscription to what is not for the agent with 0x80, and serves it on', async () => {
    const world = await served();
    const client = await stock(world, 'pi-1~x', pi1);
    const granted = async (topic: string) => (await client.subscribeAsync(topic, { qos: 1 }).catch(() => [{ qos: 128 }]))[0]?.qos;
    expect(await granted(topics.command('pi-1').name)).toBe(1);
    for (const topic of ['#', 'mc/test/#', topics.command('pi-2').name, 'mc/test/hello/by/+', `${topics.activation('pi-2')}/by/+`]) {
      expect([topic, await granted(topic)]).toEqual([topic, 128]);
    }
    expect(client.connected).toBe(true);
  });

  it('believes no message that says in its body that somebody else speaks', async () => {
    const world = await served();
    const scheduler = await bus(world, 'scheduler', gateway);
    const heard: string[] = [];
    const refused: string[] = [];
    scheduler.onRefused((topic, error) => refused.push(`${topic} ${'code' in error ? error.code : ''}`));
    await scheduler.subscribe(topics.gone, ({ agent }) => heard.push(agent));
    const liar = await bus(world, 'pi-1', pi1);
    await liar.publish(topics.gone, gone('pi-2'));
    await liar.publish(topics.gone, gone('pi-1'));
    await until('the second', () => heard.length > 0);
    expect(heard).toEqual(['pi-1']);
    expect(refused).toEqual([expect.stringMatching(/gone.* SENDER_WRONG/)]);
  });

  it('cuts off whoever is revoked at once, says its Last Will, and does not let it in again', async () => {
    const world = await served();
    const scheduler = await bus(world, 'scheduler', gateway);
    const wills: string[] = [];
    await scheduler.subscribe(topics.gone, ({ agent }) => wills.push(agent));
    const credentials = await authority.make('agent', 'pi-9');
    const revoked = await bus(world, 'pi-9', credentials, { will: { topic: topics.gone, value: gone('pi-9') }, random: () => 1 });
    const other = await bus(world, 'pi-1', pi1);
    const lost = new Promise<number>((resolve) => void revoked.onDisconnect(() => resolve(performance.now())));
    const from = performance.now();
    authority.revoke('pi-9');
    expect((await lost) - from).toBeLessThan(1_000);
    await until('the will', () => wills.includes('pi-9'));
    expect(await codeOf(connectBus({ url: world.server.url, id: 'pi-9', trust: authority.trust(credentials) }))).toBe('BROKER_REFUSED');
    await until('the refusal', () => world.trust.refusals.some(({ error }) => error.code === 'CERTIFICATE_REVOKED'));
    expect(world.trust.refusals.at(-1)?.who).toBe('agent pi-9');
    expect(other.connected).toBe(true);
  });

  it('sees two processes of one certificate, tells of them, and throws neither out', async () => {
    const world = await served();
    const one = await bus(world, 'pi-1', pi1);
    const two = await bus(world, 'pi-1', pi1);
    await until('the count', () => world.server.stats().duplicates === 1);
    expect([one.connected, two.connected, world.log.some((line) => /agent pi-1 is connected twice/.test(line))]).toEqual([
      true,
      true,
      true,
    ]);
    // Two commands of one operator are no duplicates.
    await bus(world, 'alice-00000001', alice);
    await bus(world, 'alice-00000002', alice);
    expect(world.server.stats().duplicates).toBe(1);
  });

  it('serves new connections with renewed credentials, and keeps the old ones', async () => {
    const source = new RenewedSource(await authority.make('gateway', 'gateway'));
    const world = await served(source);
    const before = await bus(world, 'pi-1', pi1);
    const mine = new RenewedSource(pi2);
    const renewing = await connectBus({ url: world.server.url, id: 'pi-2', trust: authority.trust(mine), random: () => 0 });
    onTestFinished(() => renewing.stop());
    source.current = await authority.make('gateway', 'gateway');
    mine.current = await authority.make('agent', 'pi-2');
    const shown = await new Promise<string>((resolve) => {
      const { ca, certificate, key } = pi1;
      const socket = connectTls(
        { port: world.server.port, host: '127.0.0.1', ca, cert: certificate, key, rejectUnauthorized: false },
        () => {
          resolve(socket.getPeerX509Certificate()?.serialNumber ?? '');
          socket.destroy();
        },
      );
    });
    expect(shown).toBe(source.current.serial);
    let reconnected = 0;
    renewing.onConnect(() => reconnected++);
    renewing.reconnect('to show the new one');
    await until('the new connection', () => reconnected >= 1);
    expect([before.connected, renewing.connected, world.server.stats().untrusted]).toEqual([true, true, 0]);
  });

  it('resumes the TLS session when a client reconnects, and looks at its certificate again', async () => {
    const world = await served();
    const { ca, certificate, key } = pi1;
    const open = (session?: Buffer) =>
      new Promise<{ session: Buffer; reused: boolean; closed: boolean }>((resolve) => {
        const options = { port: world.server.port, host: '127.0.0.1', ca, cert: certificate, key, rejectUnauthorized: false };
        const socket = connectTls({ ...options, ...(session === undefined ? {} : { session }) });
        socket.on('error', () => undefined);
        let ticket: Buffer | undefined;
        socket.on('session', (made: Buffer) => {
          ticket = made;
        });
        socket.write(Buffer.from([0x10, 18, 0, 4, 0x4d, 0x51, 0x54, 0x54, 4, 2, 0, 0, 0, 6, ...Buffer.from('pi-1~x')]));
        // The tickets come before the first answer.
        socket.once('data', (connack: Buffer) => {
          resolve({ session: ticket ?? Buffer.alloc(0), reused: socket.isSessionReused(), closed: connack[3] !== 0 });
          socket.destroy();
        });
      });
    const first = await open();
    const second = await open(first.session);
    expect([first.reused, first.closed, second.reused, second.closed]).toEqual([false, false, true, false]);
  });

  it('asks the source to look at the clock when a certificate is out of its time, and connects once it is right', async () => {
    const world = await served();
    const source = new RenewedSource(pi1, () => 0);
    const late = await connectBus({ url: world.server.url, id: 'pi-1', trust: authority.trust(source), retryFirst: true, random: () => 0 });
    onTestFinished(() => late.stop());
    await until('the look', () => source.looked > 0);
    expect(late.connected).toBe(false);
    source.nowMs = Date.now;
    await until('the connection', () => late.connected);
  });

  it.skipIf(NO_CROWD !== '')(
    'lets an agent in, and keeps those who are, while twenty addresses hold all the connections they may',
    async () => {
      const world = await served(gateway, { maxConnections: 40 });
      const first = await bus(world, 'pi-1', pi1);
      const others = await crowd(world.server.port, 20, 5);
      onTestFinished(() => others.stop());
      expect(others.open).toBeGreaterThan(0);
      const second = await bus(world, 'pi-2', pi2);
      expect([first.connected, second.connected]).toEqual([true, true]);
      expect(world.log.join('\n')).toMatch(/a connection of 127\.1\.0\.\d+ was ended: too many wait/);
      // Nobody waits for those who say nothing.
      const from = performance.now();
      await world.server.stop();
      expect(performance.now() - from).toBeLessThan(5_000);
    },
  );

  it('writes one line of printable text for whatever a client calls itself and its topics, and counts what comes again', async () => {
    const world = await served();
    const client = await stock(world, 'pi-1~\u001b]0;owned\u0007\nFAKE LINE', pi1);
    const closed = new Promise<void>((resolve) => void client.once('close', () => resolve()));
    client.publish(`${topics.gone.name.replace('+', 'pi-2')}/\u001b[2J\nFAKE LINE`, 'x', { qos: 1 });
    await closed;
    await until('the line', () => world.log.length > 0);
    await expect(stock(world, 'pi-2~\r\nFAKE LINE', pi1)).rejects.toThrow();
    for (let i = 0; i < 20; i++) {
      const bare = connectTls({ port: world.server.port, host: '127.0.0.1', rejectUnauthorized: false });
      bare.on('error', () => undefined);
      bare.resume();
      await until('the end', () => bare.destroyed);
    }
    await until('the counts', () => world.server.stats().untrusted === 20);
    expect(world.log.filter((line) => !/^broker: [ -~]+$/.test(line))).toEqual([]);
    expect(world.log.filter((line) => line.includes('FAKE LINE')).length).toBeGreaterThan(0);
    expect(world.log.filter((line) => line.includes('CERTIFICATE_FOREIGN'))).toEqual([expect.stringContaining('(from 127.0.0.1)')]);
  });

  it('stops with clients connected and leaves nothing behind', async () => {
    const before = resources();
    const server = await startBroker({ host: '127.0.0.1', port: 0, trust: authority.trust(gateway) });
    const agent = await connectBus({ url: server.url, id: 'pi-1', trust: authority.trust(pi1), random: () => 1 });
    await Promise.all([server.stop(), server.stop()]);
    await agent.stop();
    await until('the end of all sockets and timers', () => resources().length <= before.length);
  });
});
