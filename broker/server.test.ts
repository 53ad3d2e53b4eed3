import { connect, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { isChairError } from './errors.js';
import { lengthBytes, publishHeader } from './lanes/framing.js';
import { connectBus } from './mqtt-bus.js';
import { PacketMeter } from './packet-guard.js';
import { type BrokerOptions, type BrokerServer, startBroker } from './server.js';
import { resources, until } from './test-brokers.js';
import { topicsOf } from './topics.js';

async function broker(options: Partial<BrokerOptions> = {}): Promise<BrokerServer> {
  const started = await startBroker({ host: '127.0.0.1', port: 0, ...options });
  onTestFinished(() => started.stop());
  return started;
}

/** A CONNECT packet for a client id of one letter, written out as the spec has it (MQTT 3.1.1, 3.1). */
function connectPacket(letter: string, keepaliveSeconds = 0): Buffer {
  return Buffer.concat([
    Buffer.from([0x10, 13, 0, 4]),
    Buffer.from('MQTT'),
    Buffer.from([4, 2, 0, keepaliveSeconds, 0, 1]),
    Buffer.from(letter),
  ]);
}

function raw(port: number): { socket: Socket; closed: Promise<void>; received: () => Buffer } {
  const socket = connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => undefined);
  onTestFinished(() => void socket.destroy());
  return { socket, received: () => Buffer.concat(chunks), closed: new Promise((resolve) => socket.once('close', () => resolve())) };
}

describe('embedded broker', () => {
  it('names a port that is in use', async () => {
    const first = await broker();
    await expect(startBroker({ host: '127.0.0.1', port: first.port })).rejects.toThrow(
      /cannot listen on 127.0.0.1:\d+.*in use.*choose another port/,
    );
    await startBroker({ host: '127.0.0.1', port: first.port }).catch((error) => expect(isChairError(error, 'PORT_IN_USE')).toBe(true));
  });

  it('refuses a 300 MB message on its announcement, counts it, and serves the others', async () => {
    const server = await broker({ maxPacketBytes: 1_000_000 });
    const other = await connectBus({ url: server.url, id: 'other' });
    onTestFinished(() => other.stop());
    const { socket, closed } = raw(server.port);
    socket.write(Buffer.concat([connectPacket('a'), Buffer.of(0x30), lengthBytes(250_000_000), Buffer.alloc(50_000)]));
    await closed;
    expect(server.stats()).toMatchObject({ tooLarge: 1, clients: 1 });
    expect(server.stats().bytesIn).toBeLessThan(500_000);
    expect(other.connected).toBe(true);
  });

  it('holds back what comes behind CONNECT until the client is let in, and then passes it on', async () => {
    const server = await broker();
    const watcher = await connectBus({ url: server.url, id: 'w' });
    onTestFinished(() => watcher.stop());
    const got: string[] = [];
    await watcher.subscribeBytes('t', (payload) => got.push(Buffer.from(payload).toString()));
    const { socket } = raw(server.port);
    const packets = ['one', 'two'].map((text) => Buffer.concat([publishHeader('t', 3, 100), Buffer.from(text)]));
    socket.write(Buffer.concat([connectPacket('a'), ...packets]));
    await until('both', () => got.length === 2);
    expect(got).toEqual(['one', 'two']);
  });

  it('ends connections that are no MQTT, or never finish CONNECT, or are silent', async () => {
    const server = await broker({ connectTimeoutMs: 150 });
    const web = raw(server.port);
    web.socket.write('GET / HTTP/1.1\r\n\r\n');
    const slow = raw(server.port);
    slow.socket.write(connectPacket('a').subarray(0, 6));
    const silent = raw(server.port);
    const large = raw(server.port);
    large.socket.write(Buffer.concat([Buffer.of(0x10), lengthBytes(100_000)]));
    await Promise.all([web, slow, silent, large].map(({ closed }) => closed));
    await until('the count', () => server.stats().otherErrors === 3 && server.stats().tooLarge === 1);
    await until('the end of all connections', () => server.stats().connections === 0);
  });

  it('asks the same rule for publishing, wills and subscriptions, and never admits reserved topics', async () => {
    const asked: string[] = [];
    const server = await broker({
      authorize: ({ clientId, action, topic }) => {
        asked.push(`${clientId.replace(/~.*/, '')} ${action} ${topic}`);
        return !topic.includes('gone');
      },
    });
    const topics = topicsOf('x');
    const will = { topic: topics.gone, value: { agent: 'a', nonce: '', why: 'will', connection: 0 } };
    await expect(connectBus({ url: server.url, id: 'a', will })).rejects.toThrow(/cannot connect/);
    const bus = await connectBus({ url: server.url, id: 'b' });
    onTestFinished(() => bus.stop());
    await bus.subscribe(topics.reign, () => undefined);
    await expect(bus.subscribe(topics.gone, () => undefined)).rejects.toMatchObject({ code: 'BROKER_REFUSED' });
    expect(asked).toEqual(['a will mc/x/gone/by/a', 'b subscribe mc/x/reign', 'b subscribe mc/x/gone/by/+']);
    const lost = new Promise<void>((resolve) => void bus.onDisconnect(() => resolve()));
    await bus.publishBytes('$SYS/x', new Uint8Array(1)).catch(() => undefined);
    await lost;
  });

  describe('with a client that does not read', () => {
    const SUBSCRIBE = Buffer.of(0x82, 6, 0, 1, 0, 1, 't'.charCodeAt(0), 0);
    const subscribed = async (server: BrokerServer): Promise<Socket> => {
      const { socket, received } = raw(server.port);
      socket.write(Buffer.concat([connectPacket('h'), SUBSCRIBE]));
      // CONNACK and SUBACK.
      await until('it has subscribed', () => received().length === 4 + 5);
      socket.pause();
      return socket;
    };
    const bus = async (server: BrokerServer, id: string) => {
      const made = await connectBus({ url: server.url, id });
      onTestFinished(() => made.stop());
      return made;
    };

    it('keeps nobody waiting who writes to it and to others, and disconnects it when too much waits', async () => {
      const server = await broker({ maxWaitingBytes: 4_000_000 });
      const hung = await subscribed(server);
      const [writer, reader] = [await bus(server, 'writer'), await bus(server, 'reader')];
      const got: number[] = [];
      await reader.subscribeBytes('u', (payload) => got.push(payload[0] ?? -1));
      // Beyond the bound, and what the kernel's buffers of both ends may hold.
      const [messages, bytes] = [200, 250_000];
      let longestMs = 0;
      for (let i = 0; i < messages; i++) {
        const sentMs = performance.now();
        await writer.publishBytes('t', new Uint8Array(bytes));
        await writer.publishBytes('u', Uint8Array.of(i));
        await until('the other has it', () => got.length === i + 1, 10_000);
        longestMs = Math.max(longestMs, performance.now() - sentMs);
      }
      // Half of what the broker is patient for: nobody waited for that to end.
      expect(longestMs).toBeLessThan(10_000);
      await until('the broker gives it up', () => server.stats().notReading === 1 && server.stats().clients === 2);
      expect(server.stats().otherErrors).toBe(0);
      expect(got).toEqual(Array.from({ length: messages }, (_, i) => i));
      hung.destroy();
    });

    it('disconnects it when little waits, but for long; not one that reads slowly', async () => {
      const server = await broker({ drainTimeoutMs: 1500 });
      const hung = await subscribed(server);
      const writer = await bus(server, 'writer');
      const slow = setInterval(() => hung.read(), 20);
      onTestFinished(() => clearInterval(slow));
      // More than the kernel holds between them.
      for (let i = 0; i < 60; i++) await writer.publishBytes('t', new Uint8Array(400_000));
      const fromMs = performance.now();
      await until('it has read for longer than it might have stood still', () => performance.now() - fromMs > 2500, 10_000);
      expect(server.stats()).toMatchObject({ clients: 2, notReading: 0 });
      clearInterval(slow);
      await until('the broker gives it up', () => server.stats().notReading === 1 && server.stats().clients === 1, 10_000);
    });
  });

  it('stops at once with clients connected, twice, and leaves nothing behind', async () => {
    const before = resources();
    const server = await startBroker({ host: '127.0.0.1', port: 0 });
    const bus = await connectBus({ url: server.url, id: 'a', random: () => 1 });
    const half = raw(server.port);
    await until('both', () => server.stats().connections === 2);
    await Promise.all([server.stop(), server.stop()]);
    await half.closed;
    await bus.stop();
    await until('the end of all sockets and timers', () => resources().length <= before.length);
    const again = await startBroker({ host: '127.0.0.1', port: server.port });
    await again.stop();
  });
});

describe('packet meter', () => {
  it('finds the end of the first packet wherever the bytes are cut', () => {
    const stream = Buffer.concat([
      connectPacket('a'),
      Buffer.concat([publishHeader('t', 300, 1000), Buffer.alloc(300)]),
      Buffer.of(0xc0, 0),
    ]);
    const ends: number[] = [];
    for (const size of [1, 2, 7, stream.length]) {
      const meter = new PacketMeter(1000);
      for (let at = 0; at < stream.length; at += size) {
        const chunk = stream.subarray(at, at + size);
        for (let end = 0; end >= 0 && end < chunk.length; ) {
          end = meter.packetEnd(chunk, end);
          if (end >= 0) ends.push(at + end);
        }
      }
    }
    const once = [15, 15 + 3 + 3 + 300, stream.length];
    expect(ends).toEqual([...once, ...once, ...once, ...once]);
  });
});
