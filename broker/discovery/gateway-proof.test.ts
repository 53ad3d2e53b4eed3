import { createServer } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Credentials } from '../credentials/credentials.js';
import { fixedSource } from '../credentials/source.js';
import { listen } from '../listen.js';
import { connectBus } from '../mqtt-bus.js';
import { type BrokerServer, startBroker } from '../server.js';
import { until } from '../test-brokers.js';
import { type TestAuthority, type TestTrust, testAuthority } from '../test-credentials.js';
import { seekBroker, trackBroker } from './finder.js';
import { type FoundGateway, type GatewayNotice, HeardRecords, recordsOf } from './gateway-notice.js';
import { gatewayProof } from './gateway-proof.js';
import { announce, freePort, interfaces } from './test-announce.js';

const notice = (id: string, extra: Partial<GatewayNotice>): GatewayNotice => ({
  id,
  cluster: 'test',
  host: 'pi-1',
  port: 0,
  encrypted: true,
  softwareVersion: '1.2.3',
  ...extra,
});

async function broker(authority: TestAuthority, credentials: Credentials): Promise<{ server: BrokerServer; trust: TestTrust }> {
  const trust = authority.trust(credentials);
  const server = await startBroker({ host: '127.0.0.1', port: 0, trust });
  onTestFinished(() => server.stop());
  return { server, trust };
}

/** Takes connections and never says a word. */
async function mute(): Promise<number> {
  const server = createServer((socket) => void socket.on('error', () => undefined));
  const port = await listen(server, '127.0.0.1', 0);
  onTestFinished(() => void server.close());
  return port;
}

describe('the gateway that was found', () => {
  it('is the one with the certificate of our CA, however many say that they are it', { timeout: 30_000 }, async () => {
    const [ours, foreign] = await Promise.all([testAuthority(), testAuthority()]);
    const [gateway, pi1, pi2, stranger] = await Promise.all([
      ours.make('gateway', 'gateway'),
      ours.make('agent', 'pi-1'),
      ours.make('agent', 'pi-2'),
      foreign.make('gateway', 'gateway'),
    ]);
    const [real, byStranger, byAgent] = await Promise.all([broker(ours, gateway), broker(foreign, stranger), broker(ours, pi2)]);
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa', { port: byStranger.server.port }));
    await announce(groupPort, notice('bbbbbb', { port: byAgent.server.port }));
    await announce(groupPort, notice('cccccc', { port: await mute() }));
    // Plain MQTT, and where the finder has no business.
    await announce(groupPort, notice('dddddd', { port: 1, encrypted: false }));
    await announce(groupPort, notice('eeeeee', { brokerUrl: 'mqtts://[' }));
    // Another name of the true one is no second one.
    await announce(groupPort, notice('ffffff', { brokerUrl: `mqtts://localhost:${real.server.port}` }));
    await announce(groupPort, notice('abcdef', { port: real.server.port }));

    await expect(seekBroker({ cluster: 'test', interfaces, groupPort })).rejects.toMatchObject({ code: 'GATEWAY_AMBIGUOUS' });
    const lines: string[] = [];
    const track = trackBroker({
      ...{ cluster: 'test', interfaces, groupPort, random: () => 0, log: (line: string) => lines.push(line) },
      // A board whose clock was never set can find it, too.
      proof: gatewayProof(ours.trust(fixedSource(pi1, () => 0))),
    });
    const url = await track(new AbortController().signal);
    expect(new URL(url).port).toBe(`${real.server.port}`);
    expect(lines.join()).toContain('passed over');
    const bus = await connectBus({ url, id: 'pi-1', trust: ours.trust(pi1) });
    onTestFinished(() => bus.stop());
    // Looking whether it is the gateway is nothing that it would have to note.
    expect(real.trust.refusals).toEqual([]);
    expect(real.server.stats()).toMatchObject({ otherErrors: 0, untrusted: 0 });
  });

  it('is waited for while others speak in its place, and it is said who does', { timeout: 30_000 }, async () => {
    const [ours, foreign] = await Promise.all([testAuthority(), testAuthority()]);
    const [gateway, pi1, stranger] = await Promise.all([
      ours.make('gateway', 'gateway'),
      ours.make('agent', 'pi-1'),
      foreign.make('gateway', 'gateway'),
    ]);
    const { server: liar } = await broker(foreign, stranger);
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa', { port: liar.port }));
    const proof = gatewayProof(ours.trust(pi1));
    const options = { cluster: 'test', interfaces, groupPort, proof };
    await expect(seekBroker({ ...options, waitMs: 700 })).rejects.toThrow(
      new RegExp(`nobody who says .* certificate.*mqtts://127.0.0.1:${liar.port} \\(.*not signed by the CA.*--broker`),
    );
    await expect(seekBroker({ ...options, cluster: 'attic', waitMs: 300 })).rejects.toThrow(/no gateway of cluster 'attic'/);
    const { server: real } = await broker(ours, gateway);
    const found = seekBroker({ ...options, waitMs: 20_000 });
    await announce(groupPort, notice('bbbbbb', { port: real.port }));
    expect(await found).toBe(`mqtts://127.0.0.1:${real.port}`);
  });

  it('is where it was said to be at joining, when nobody is heard; and is heard of, when it is there no more', {
    timeout: 30_000,
  }, async () => {
    const [ours, foreign] = await Promise.all([testAuthority(), testAuthority()]);
    const pi1 = await ours.make('agent', 'pi-1');
    const [real, liar] = await Promise.all([
      broker(ours, await ours.make('gateway', 'gateway')),
      broker(foreign, await foreign.make('gateway', 'gateway')),
    ]);
    const groupPort = await freePort();
    const url = `mqtts://127.0.0.1:${real.server.port}`;
    const elsewhere = `mqtts://127.0.0.1:${liar.server.port}`;
    const lines: string[] = [];
    const options = { cluster: 'test', interfaces, groupPort, random: () => 0, log: (line: string) => lines.push(line) };
    const proof = gatewayProof(ours.trust(pi1));
    const { signal } = new AbortController();
    expect(await trackBroker({ ...options, proof, known: [elsewhere, url] })(signal)).toBe(url);
    expect(lines).toEqual([`found the gateway of cluster 'test' at ${url}`]);
    await expect(seekBroker({ cluster: 'test', interfaces, groupPort, proof, known: [elsewhere], waitMs: 300 })).rejects.toThrow(
      /no gateway of cluster 'test'.*--broker mqtts:\/\/HOST:8883/,
    );
    await announce(groupPort, notice('aaaaaa', { port: real.server.port }));
    expect(await seekBroker({ cluster: 'test', interfaces, groupPort, proof, known: [elsewhere] })).toBe(url);
  });

  it('is ambiguous when two of our CA are there: nothing tells which is meant', { timeout: 30_000 }, async () => {
    const ours = await testAuthority();
    const pi1 = await ours.make('agent', 'pi-1');
    const groupPort = await freePort();
    for (const id of ['aaaaaa', 'bbbbbb']) {
      const { server } = await broker(ours, await ours.make('gateway', 'gateway'));
      await announce(groupPort, notice(id, { port: server.port }));
    }
    const found = seekBroker({ cluster: 'test', interfaces, groupPort, proof: gatewayProof(ours.trust(pi1)) });
    await expect(found).rejects.toMatchObject({ code: 'GATEWAY_AMBIGUOUS' });
  });

  it('is let go while it is tried, when the search is given up', async () => {
    const ours = await testAuthority();
    const groupPort = await freePort();
    await announce(groupPort, notice('aaaaaa', { port: await mute() }));
    const abort = new AbortController();
    let tried = 0;
    const proof = async (_url: string, signal: AbortSignal): Promise<string> => {
      tried++;
      return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('let go'))));
    };
    const found = seekBroker({ cluster: ours.cluster, interfaces, groupPort, proof, waitMs: 20_000, signal: abort.signal });
    await until('it is tried', () => tried > 0);
    abort.abort();
    await expect(found).rejects.toMatchObject({ code: 'STOPPED' });
  });
});

describe('what one machine says of gateways', () => {
  const hear = (heard: HeardRecords, gateway: GatewayNotice, source: string, ttlSeconds?: number): void => {
    const answers = recordsOf(gateway, [source], ttlSeconds);
    heard.add({ id: 0, response: true, questions: [], answers, additionals: [] }, source);
  };
  const urls = (found: readonly FoundGateway[]): string[] =>
    found.flatMap(({ url, also = [] }) => [url, ...also.map((place) => place.url)]);
  const real = notice('aaaaaa', { port: 8883, enrolmentPort: 8884 });

  it('does not crowd out what another says', () => {
    const heard = new HeardRecords();
    for (let i = 0; i < 500; i++) hear(heard, notice(`b${i}`.padEnd(6, '0'), { port: 1 }), '10.0.0.66');
    hear(heard, real, '10.0.0.1');
    for (let i = 0; i < 500; i++) hear(heard, notice(`c${i}`.padEnd(6, '0'), { port: 1 }), '10.0.0.66');
    expect(urls(heard.gateways())).toContain('mqtts://10.0.0.1:8883');
    expect(heard.gateways().length).toBeLessThan(150);
  });

  it('neither replaces nor takes away what another says, also in its name', () => {
    const heard = new HeardRecords();
    // First the liar, with the name of the true one.
    hear(heard, notice('aaaaaa', { port: 1, enrolmentPort: 2 }), '10.0.0.66');
    hear(heard, real, '10.0.0.1');
    hear(heard, real, '10.0.0.66', 0);
    const found = heard.gateways();
    expect(urls(found)).toContain('mqtts://10.0.0.1:8883');
    const enrolments = found.flatMap((gateway) => [gateway, ...(gateway.also ?? [])].map(({ enrolment }) => enrolment));
    expect(enrolments).toContainEqual({ host: '10.0.0.1', port: 8884 });
  });
});
