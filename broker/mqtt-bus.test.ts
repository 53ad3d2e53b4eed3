import { createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Bus } from './bus.js';
import { ChairError, isChairError } from './errors.js';
import { listen } from './listen.js';
import type { Gone, Reign } from './messages.js';
import { type BusOptions, connectBus } from './mqtt-bus.js';
import { publicUrl } from './public-url.js';
import { EMBEDDED, MOSQUITTO, resources, startProxy, type TestBroker, until } from './test-brokers.js';
import { topicsOf } from './topics.js';

const topics = topicsOf('test');
const REIGN: Reign = { term: 4, scheduler: 's', schemaFingerprint: 'f', schemaVersion: 1000 };
const GONE: Gone = { agent: 'a', nonce: 'n', why: 'will', connection: 0 };

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (isChairError(error)) return error.code;
    throw error;
  }
  return 'none';
}

async function started(kind: typeof EMBEDDED, port?: number): Promise<TestBroker> {
  const broker = await kind.start(port);
  onTestFinished(() => broker.stop());
  return broker;
}

async function connected<T>(options: BusOptions<T>): Promise<Bus> {
  const bus = await connectBus({ random: () => 0.05, ...options });
  onTestFinished(() => bus.stop());
  return bus;
}

for (const kind of [EMBEDDED, MOSQUITTO]) {
  describe.skipIf(kind.missing !== '')(`bus on ${kind.name}${kind.missing === '' ? '' : ` (${kind.missing})`}`, () => {
    it('delivers what is published, decoded, to every subscriber', async () => {
      const { url } = await started(kind);
      const [a, b] = [await connected({ url, id: 'a' }), await connected({ url, id: 'b' })];
      const got: Reign[] = [];
      await a.subscribe(topics.reign, (value) => got.push(value));
      await b.subscribe(topics.reign, (value) => got.push(value));
      await a.publish(topics.reign, REIGN);
      await until('two deliveries', () => got.length === 2);
      expect({ ...got[0] }).toEqual(REIGN);
    });

    it('no longer delivers after unsubscribing, and keeps what others of the same bus subscribed', async () => {
      const { url } = await started(kind);
      const bus = await connected({ url, id: 'a' });
      const got: string[] = [];
      const off = await bus.subscribe(topics.reign, () => got.push('first'));
      const offToo = await bus.subscribe(topics.reign, () => got.push('second'));
      await off();
      await bus.publish(topics.reign, REIGN);
      await until('one delivery', () => got.length === 1);
      await offToo();
      await bus.subscribe(topics.gone, () => got.push('gone'));
      await bus.publish(topics.reign, REIGN);
      await bus.publish(topics.gone, GONE);
      await until('the later one', () => got.includes('gone'));
      expect(got).toEqual(['second', 'gone']);
    });

    it('carries 8 MB', async () => {
      const { url } = await started(kind);
      const [a, b] = [await connected({ url, id: 'a' }), await connected({ url, id: 'b' })];
      let got = Buffer.alloc(0);
      await b.subscribeBytes('mc/test/lane/b', (payload) => {
        got = Buffer.from(payload);
      });
      const payload = Buffer.from(Uint32Array.from({ length: 2_000_000 }, (_, i) => i * 7).buffer);
      await a.publishBytes('mc/test/lane/b', payload);
      await until('the large message', () => got.length > 0);
      expect(got.equals(payload)).toBe(true);
    });

    it('has its will published when the connection breaks, and not when it stops', async () => {
      const { url, port } = await started(kind);
      const proxy = await startProxy(port);
      onTestFinished(() => proxy.stop());
      const watcher = await connected({ url, id: 'watcher' });
      const wills: string[] = [];
      await watcher.subscribe(topics.gone, (value) => wills.push(value.agent));
      const orderly = await connected({ url, id: 'b', will: { topic: topics.gone, value: { ...GONE, agent: 'b' } } });
      await connected({ url: `mqtt://127.0.0.1:${proxy.port}`, id: 'a', will: { topic: topics.gone, value: GONE } });
      await orderly.stop();
      proxy.cut(true);
      await until('the will', () => wills.length > 0);
      expect(wills).toEqual(['a']);
    });

    it('reconnects as another client when it is told to: same subscriptions, no will, and another one from then on', async () => {
      const { url, port } = await started(kind);
      const proxy = await startProxy(port);
      onTestFinished(() => proxy.stop());
      const watcher = await connected({ url, id: 'watcher' });
      const wills: number[] = [];
      await watcher.subscribe(topics.gone, ({ connection }) => wills.push(connection));
      const bus = await connected({ url: `mqtt://127.0.0.1:${proxy.port}`, id: 'a', will: { topic: topics.gone, value: GONE } });
      const events: string[] = [];
      await bus.subscribe(topics.reign, () => events.push('reign'));
      bus.onDisconnect((why) => events.push(why));
      expect(bus.localAddress).toBe('127.0.0.1');
      bus.reconnect('it has moved', { topic: topics.gone, value: { ...GONE, connection: 1 } });
      expect([bus.connected, bus.localAddress]).toEqual([false, '']);
      await until('the new connection', () => bus.connected);
      await watcher.publish(topics.reign, REIGN);
      await until('what is published then', () => events.includes('reign'));
      expect(events).toEqual(['it has moved', 'reign']);
      proxy.cut(true);
      await until('the will', () => wills.length > 0);
      expect(wills).toEqual([1]);
    });

    it('restores subscriptions before it tells of the new connection, and then sends what waited', async () => {
      const { port, url } = await started(kind);
      const proxy = await startProxy(port);
      onTestFinished(() => proxy.stop());
      const bus = await connected({ url: `mqtt://127.0.0.1:${proxy.port}`, id: 'a' });
      const events: string[] = [];
      await bus.subscribe(topics.reign, () => events.push('reign'));
      bus.onDisconnect(() => events.push('lost'));
      bus.onConnect(() => {
        events.push('connected');
        void bus.publish(topics.reign, REIGN);
      });
      await until('the first echo', () => events.includes('reign'));
      const watcher = await connected({ url, id: 'watcher' });
      const heard: string[] = [];
      await watcher.subscribe(topics.gone, (value) => heard.push(value.agent));
      events.length = 0;
      proxy.cut(true);
      await until('the loss', () => events.includes('lost'));
      expect(bus.connected).toBe(false);
      const waiting = bus.publish(topics.gone, GONE);
      expect(await codeOf(bus.publishBytes('mc/test/x', new Uint8Array(1), 0))).toBe('BROKER_LOST');
      proxy.mend();
      await waiting;
      await until('the echo on the new connection', () => events.includes('reign'));
      await until('what waited', () => heard.length === 1);
      expect(events).toEqual(['lost', 'connected', 'reign']);
    });

    it('comes back when the broker itself restarts', async () => {
      const first = await kind.start();
      const bus = await connected({ url: first.url, id: 'a' });
      const got: number[] = [];
      await bus.subscribe(topics.reign, (value) => got.push(value.term));
      await first.stop();
      await until('the loss', () => !bus.connected);
      await started(kind, first.port);
      await until('the connection', () => bus.connected, 10_000);
      await bus.publish(topics.reign, REIGN);
      await until('the echo', () => got.length === 1);
    });
  });
}

describe('bus', () => {
  it('reports messages that do not decode and handlers that throw, and lives on', async () => {
    const { url } = await started(EMBEDDED);
    const bus = await connected({ url, id: 'a' });
    const refused: string[] = [];
    bus.onRefused((name, error) => refused.push(`${name} ${isChairError(error) ? error.code : error.message}`));
    let throwing = true;
    await bus.subscribe(topics.reign, () => {
      if (throwing) throw new Error('a defect');
      refused.push('fine');
    });
    await bus.publishBytes(topics.reign.name, Buffer.from('what is this'));
    await bus.publish(topics.reign, REIGN);
    await until('both', () => refused.length === 2);
    throwing = false;
    await bus.publish(topics.reign, REIGN);
    await until('the third', () => refused.length === 3);
    expect(refused).toEqual(['mc/test/reign CODEC_INVALID', 'mc/test/reign INTERNAL', 'fine']);
  });

  it('says that a broker is not there', async () => {
    const gone = await EMBEDDED.start();
    await gone.stop();
    const { url } = gone;
    await expect(connectBus({ url, id: 'a' })).rejects.toThrow(/cannot connect to the broker at mqtt:.*ECONNREFUSED.*Check the address/);
    expect(await codeOf(connectBus({ url, id: 'a' }))).toBe('BROKER_UNREACHABLE');
  });

  it('asks where the broker is before each attempt, and names it without its password', async () => {
    const first = await EMBEDDED.start();
    const { port } = first;
    const asked: string[] = [];
    const url = async (): Promise<string> => {
      asked.push('where');
      if (asked.length === 1) throw new ChairError('GATEWAY_NOT_FOUND', 'not yet');
      // A name and a password that every broker has or does not ask for.
      return `mqtt://guest:guest@127.0.0.1:${port}`;
    };
    expect(await codeOf(connectBus({ url, id: 'a' }))).toBe('GATEWAY_NOT_FOUND');
    const bus = await connected({ url, id: 'a' });
    await first.stop();
    await until('the loss', () => !bus.connected);
    await expect(bus.publishBytes('mc/test/x', new Uint8Array(1))).rejects.toThrow(/not connected to mqtt:\/\/guest:\*\*\*@127.0.0.1:/);
    await started(EMBEDDED, port);
    await until('the connection', () => bus.connected, 10_000);
    expect(asked.length).toBeGreaterThanOrEqual(3);
    // Told to stop while it looks: the search ends.
    let ended = false;
    const searching = await connected({
      id: 'b',
      retryFirst: true,
      url: (signal) =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            ended = true;
            reject(signal.reason);
          });
        }),
    });
    await searching.stop();
    expect(ended).toBe(true);
  });

  it('does not wait for ever on a server that accepts and says nothing', async () => {
    const sockets = new Set<Socket>();
    const silent = createServer((socket) => sockets.add(socket));
    const port = await listen(silent, '127.0.0.1', 0);
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      silent.close();
    });
    expect(await codeOf(connectBus({ url: `mqtt://127.0.0.1:${port}`, id: 'a', connectTimeoutMs: 200 }))).toBe('BROKER_UNREACHABLE');
  });

  it('does not wait for ever on a broker that lets it in and then answers nothing, and says what became of a subscription', async () => {
    const sockets = new Set<Socket>();
    const mute = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('data', () => socket.write(Buffer.of(0x20, 2, 0, 0)));
    });
    const port = await listen(mute, '127.0.0.1', 0);
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      mute.close();
    });
    const bus = await connected({ url: `mqtt://127.0.0.1:${port}`, id: 'a', keepaliveSeconds: 1 });
    const lost: string[] = [];
    bus.onDisconnect((why) => lost.push(why));
    // Not confirmed, but kept: it will be restored with the next connection.
    await bus.subscribe(topics.reign, () => undefined);
    await until('the loss', () => lost.length === 1);
    expect(lost[0]).toMatch(/keepalive/i);
    await bus.stop();
  });

  it('keeps trying from the start when told to, and can be told to give up', async () => {
    const first = await EMBEDDED.start();
    await first.stop();
    const bus = await connected({ url: first.url, id: 'a', retryFirst: true });
    const got: number[] = [];
    await bus.subscribe(topics.reign, (value) => got.push(value.term));
    let connects = 0;
    bus.onConnect(() => connects++);
    await started(EMBEDDED, first.port);
    await until('the connection', () => bus.connected);
    await bus.publish(topics.reign, REIGN);
    await until('the echo', () => got.length === 1);
    expect(connects).toBe(1);
    const abort = new AbortController();
    abort.abort();
    expect(await codeOf(connectBus({ url: first.url, id: 'b', signal: abort.signal }))).toBe('STOPPED');
  });

  it('refuses what would cost the connection or the memory', async () => {
    const { url } = await started(EMBEDDED);
    const bus = await connected({ url, id: 'a', maxPacketBytes: 1000, maxQueuedBytes: 1500 });
    expect(await codeOf(bus.publishBytes('mc/test/x', new Uint8Array(1000)))).toBe('PACKET_TOO_LARGE');
    const results = await Promise.all([1, 2, 3].map(() => codeOf(bus.publishBytes('mc/test/x', new Uint8Array(700), 1))));
    expect(results).toEqual(['none', 'none', 'QUEUE_FULL']);
    expect(await codeOf(bus.publishBytes('mc/test/x', new Uint8Array(700)))).toBe('none');
    expect(await codeOf(connectBus({ url, id: 'no/slash' }))).toBe('AGENT_NAME_INVALID');
  });

  it.each(['stops', 'connects anew'])('leaves no socket behind to a broker that is gone without a word, when it %s', async (how) => {
    const others: Socket[] = [];
    // Takes the CONNECT, and the end of the connection, and never answers it: as from an address that is not ours any more.
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      others.push(socket);
      socket.once('data', () => socket.write(Buffer.of(0x20, 2, 0, 0)));
      socket.on('error', () => undefined);
    });
    const port = await listen(server, '127.0.0.1', 0);
    onTestFinished(() => {
      for (const socket of others) socket.destroy();
      server.close();
    });
    const bus = await connected({ url: `mqtt://127.0.0.1:${port}`, id: 'a' });
    const [first] = others;
    if (how === 'stops') await bus.stop();
    else bus.reconnect('it moved');
    // What is written to a socket that is closed is answered with a reset.
    await until('the reset', () => {
      first?.write('x');
      return first?.destroyed === true;
    });
    if (how === 'connects anew') await until('another connection', () => others.length === 2 && bus.connected);
  });

  it('rejects what is on its way when it stops, and leaves nothing behind', async () => {
    const before = resources();
    const broker = await EMBEDDED.start();
    const proxy = await startProxy(broker.port);
    const bus = await connectBus({ url: `mqtt://127.0.0.1:${proxy.port}`, id: 'a' });
    await bus.subscribe(topics.reign, () => undefined);
    proxy.cut(true);
    await until('the loss', () => !bus.connected);
    const waiting = codeOf(bus.publish(topics.reign, REIGN));
    await bus.stop();
    await bus.stop();
    expect(await waiting).toBe('STOPPED');
    expect(await codeOf(bus.publish(topics.reign, REIGN))).toBe('STOPPED');
    await proxy.stop();
    await broker.stop();
    await until('the end of all sockets and timers', () => resources().length <= before.length);
  });
});

describe('a URL for logs', () => {
  it.each([
    ['mqtt://user:secret@host:1883', 'mqtt://user:***@host:1883'],
    ['mqtts://vhost%3Auser:p%40ss:word@host', 'mqtts://vhost%3Auser:***@host'],
    ['mqtt://:secret@host:1883', 'mqtt://:***@host:1883'],
    ['mqtt://host:1883', 'mqtt://host:1883'],
    ['mqtt://user@host:1883', 'mqtt://user@host:1883'],
    ['auto', 'auto'],
  ])('%s is %s', (url, shown) => {
    expect(publicUrl(url)).toBe(shown);
  });
});
