import { execFile, spawn } from 'node:child_process';
import { connect, createServer, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { generate, parser } from 'mqtt-packet';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BufferPool } from '../buffers.js';
import type { Bus } from '../bus.js';
import { isChairError } from '../errors.js';
import { listen } from '../listen.js';
import { connectBus } from '../mqtt-bus.js';
import { joinSegments } from '../segments.js';
import { startBroker } from '../server.js';
import { EMBEDDED, installed, MOSQUITTO, resources, startProxy, type TestBroker, until } from '../test-brokers.js';
import { createLanes } from './lanes.js';
import { laneNode } from './test-node.js';

const LOCAL = ['127.0.0.1'];

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (isChairError(error)) return error.code;
    throw error;
  }
  return 'none';
}

async function broker(kind = EMBEDDED): Promise<TestBroker> {
  const started = await kind.start();
  onTestFinished(() => started.stop());
  return started;
}

async function bus(url: string, id: string): Promise<Bus> {
  const connected = await connectBus({ url, id, random: () => 0.1 });
  onTestFinished(() => connected.stop());
  return connected;
}

function numbers(bytes: number): Uint8Array {
  return new Uint8Array(Uint32Array.from({ length: bytes / 4 }, (_, i) => i * 2_654_435_761).buffer);
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.length).equals(b);
}

const entry = (agent: string, lanePort: number) => ({ agent, addresses: LOCAL, lanePort });

/** A peer that accepts lanes and then does nothing: `sockets` are its ends. */
async function lazyPeer(reads: boolean): Promise<{ port: number; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => undefined);
    socket.once('data', () => {
      socket.write(generate({ cmd: 'connack', returnCode: 0, sessionPresent: false }));
      if (reads) socket.resume();
      else socket.pause();
    });
  });
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: await listen(server, '127.0.0.1', 0), sockets };
}

describe('direct lanes', () => {
  it('carry 8 MB in the segments of the socket', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    // Before anybody dials: it takes long.
    const payload = numbers(8_000_000);
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await a.lanes.send('b', 't/b', [payload.subarray(0, 11), payload.subarray(11)]);
    await until('the message', () => b.got.length === 1);
    const [message] = b.got;
    expect(message?.from).toBe('a');
    expect(message?.payloadBytes).toBe(8_000_000);
    expect(message?.payload.length).toBeGreaterThan(1);
    expect(same(joinSegments(message?.payload ?? []), payload)).toBe(true);
    expect(a.lanes.health()).toMatchObject([{ peer: 'b', lane: 'direct', why: '', bytesSent: 8_000_000, messagesSent: 1 }]);
  });

  it('keep the order and lose nothing when many messages are sent at once', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    const sizes = Array.from({ length: 200 }, (_, i) => ((i * 7919) % 60_000) + 4);
    await Promise.all(
      sizes.map((size, i) => {
        const payload = Buffer.alloc(size, i & 0xff);
        payload.writeUInt32LE(i);
        return a.lanes.send('b', 't/b', [payload]);
      }),
    );
    await until('all', () => b.got.length === sizes.length);
    b.got.forEach(({ payload, payloadBytes }, i) => {
      const bytes = Buffer.from(joinSegments(payload));
      expect([payloadBytes, bytes.readUInt32LE(), bytes[bytes.length - 1]]).toEqual([sizes[i], i, sizes[i] === 4 ? bytes[3] : i & 0xff]);
    });
  });

  it('serve a client without a listener on the connection it dialled', async () => {
    const [server, client] = [await laneNode('dispatcher'), await laneNode('client', { listen: false })];
    expect(client.lanes.port).toBe(0);
    client.lanes.setPeers([entry('dispatcher', server.lanes.port)]);
    await client.lanes.send('dispatcher', 't/dispatcher', [Buffer.from('frame')]);
    await until('the frame', () => server.got.length === 1);
    await server.lanes.send(server.got[0]?.from ?? '', 't/client', [Buffer.from('result')]);
    await until('the result', () => client.got.length === 1);
    expect(server.told).toEqual(['client direct']);
    await client.lanes.stop();
    await until('the loss', () => server.told.length === 2);
    expect(server.told).toEqual(['client direct', 'client down']);
    expect(await codeOf(server.lanes.send('client', 't/client', [Buffer.from('late')]))).toBe('LANE_DOWN');
  });

  it('do not let two clients of one name throw each other out', async () => {
    const server = await laneNode('dispatcher');
    const peers = [entry('dispatcher', server.lanes.port)];
    const [first, second] = [await laneNode('client', { listen: false }), await laneNode('client', { listen: false })];
    first.lanes.setPeers(peers);
    await until('the first', () => first.told.length === 1);
    second.lanes.setPeers(peers);
    await until('the second', () => second.told.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([first.told, second.told]).toEqual([['dispatcher direct'], ['dispatcher direct']]);
  });

  it('deliver to the own process without a socket, and not within the call', async () => {
    const a = await laneNode('a');
    const sent = a.lanes.send('a', 't/a', [Buffer.from('x')]);
    expect(a.got).toHaveLength(0);
    await sent;
    expect(a.got).toHaveLength(1);
    expect(a.lanes.health()).toMatchObject([{ peer: 'a', lane: 'local', messagesSent: 1 }]);
  });

  it('try the addresses of a peer in order', async () => {
    // Where the first one does not refuse, it is given up first.
    const [a, b] = [await laneNode('a', { graceMs: 20_000 }), await laneNode('b')];
    a.lanes.setPeers([{ agent: 'b', addresses: ['127.0.0.99', '127.0.0.1'], lanePort: b.lanes.port }]);
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    await until('the message', () => b.got.length === 1);
  });

  it('pass by a stranger who listens at an address of the peer', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b', { host: '127.0.0.2' })];
    const stranger = await laneNode('c', { host: '127.0.0.1', port: b.lanes.port });
    const elsewhere = await laneNode('b', { host: '127.0.0.3', port: b.lanes.port, cluster: 'other' });
    a.lanes.setPeers([{ agent: 'b', addresses: ['127.0.0.1', '127.0.0.3', '127.0.0.2'], lanePort: b.lanes.port }]);
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    await until('the message', () => b.got.length === 1);
    expect(stranger.refused).toEqual(['(listener) LANE_DOWN']);
    expect(elsewhere.refused).toEqual(['(listener) CLUSTER_WRONG']);
    expect(elsewhere.got).toHaveLength(0);
  });

  it('reject what is on its way when the connection breaks', async () => {
    const peer = await lazyPeer(false);
    const a = await laneNode('a');
    a.lanes.setPeers([entry('b', peer.port)]);
    const sending = codeOf(a.lanes.send('b', 't/b', [new Uint8Array(40_000_000)]));
    await until('the lane', () => a.told.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    for (const socket of peer.sockets) socket.destroy();
    expect(await sending).toBe('LANE_DOWN');
  });

  it('hold a bounded number of bytes for a peer that does not read', async () => {
    const peer = await lazyPeer(false);
    const a = await laneNode('a', { maxQueuedBytes: 30_000_000 });
    a.lanes.setPeers([entry('b', peer.port)]);
    await until('the lane', () => a.told.length === 1);
    const results = [1, 2, 3].map(() => codeOf(a.lanes.send('b', 't/b', [new Uint8Array(14_000_000)])));
    expect(await results[2]).toBe('QUEUE_FULL');
    await a.lanes.stop();
    expect(await Promise.all(results)).toEqual(['STOPPED', 'STOPPED', 'QUEUE_FULL']);
  });

  it('find out that a peer is silent', async () => {
    const peer = await lazyPeer(true);
    const a = await laneNode('a', { keepaliveMs: 30 });
    a.lanes.setPeers([entry('b', peer.port)]);
    await until('the lane', () => a.told.length === 1);
    await until('the loss', () => a.told.includes('b down'), 2_000);
    expect(a.lanes.health()[0]?.why).toMatch(/nothing heard for \d+ ms|connecting/);
  });

  it('stay up while nothing is sent', async () => {
    const [a, b] = [await laneNode('a', { keepaliveMs: 60 }), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(a.told).toEqual(['b direct']);
  });

  it('follow the peer table', async () => {
    const [a, b, c] = [await laneNode('a'), await laneNode('b'), await laneNode('c')];
    const moved = await laneNode('b');
    a.lanes.setPeers([entry('b', b.lanes.port), entry('c', c.lanes.port), entry('a', a.lanes.port)]);
    await until('both', () => a.told.length === 2);
    a.lanes.setPeers([entry('b', moved.lanes.port)]);
    await until('the new place of b', () => a.lanes.health().find((row) => row.peer === 'b')?.lane === 'direct');
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    await until('the message', () => moved.got.length === 1);
    expect(b.got).toHaveLength(0);
    expect(await codeOf(a.lanes.send('c', 't/c', [Buffer.from('x')]))).toBe('LANE_DOWN');
  });

  it('refuse what no lane can carry, naming the limit', async () => {
    const [a, b] = [await laneNode('a', { maxPacketBytes: 1000 }), await laneNode('b')];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await until('the lane', () => a.told.length === 1);
    await expect(a.lanes.send('b', 't/b', [new Uint8Array(1000)])).rejects.toThrow(/at most 1000 bytes/);
    expect(await codeOf(a.lanes.send('b', 't/b', [new Uint8Array(1000)]))).toBe('PACKET_TOO_LARGE');
    expect(await codeOf(a.lanes.send('b', 't/b', [new Uint8Array(900)]))).toBe('none');
  });

  it('use the memory again of what nobody handles', async () => {
    const buffers = new BufferPool(8 * 2 ** 20);
    const [a, b] = [await laneNode('a'), await laneNode('b', { buffers })];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    const large = new Uint8Array(400_000);
    const send = async (count: number) => {
      const want = b.refused.length + count;
      for (let i = 0; i < count; i++) await a.lanes.send('b', 't/nobody', [large]);
      await until('all of them', () => b.refused.length === want);
    };
    await send(2);
    const { made } = buffers;
    await send(20);
    expect(buffers.made - made).toBeLessThan(5);
  });

  it('report handlers that throw and topics nobody handles, and go on', async () => {
    const [a, b] = [await laneNode('a'), await laneNode('b')];
    b.lanes.on('t/bad', () => {
      throw new Error('a defect');
    });
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    for (const topic of ['t/bad', 't/nobody', 't/b']) await a.lanes.send('b', topic, [Buffer.from('x')]);
    await until('the good one', () => b.got.length === 1);
    expect(b.refused).toEqual(['t/bad INTERNAL', 't/nobody CODEC_INVALID']);
  });
});

for (const kind of [EMBEDDED, MOSQUITTO]) {
  describe.skipIf(kind.missing !== '')(`relay lanes on ${kind.name}${kind.missing === '' ? '' : ` (${kind.missing})`}`, () => {
    it('carry 8 MB', async () => {
      const { url } = await broker(kind);
      const [a, b] = [await laneNode('a', { bus: await bus(url, 'a') }), await laneNode('b', { bus: await bus(url, 'b'), listen: false })];
      const payload = numbers(8_000_000);
      await a.lanes.send('b', 't/b', [payload.subarray(0, 5), payload.subarray(5)]);
      await until('the message', () => b.got.length === 1);
      expect(b.got[0]).toMatchObject({ from: 'a', relayed: true });
      expect(same(joinSegments(b.got[0]?.payload ?? []), payload)).toBe(true);
      expect(a.lanes.health()).toMatchObject([{ peer: 'b', lane: 'relay', why: expect.stringContaining('no listener') }]);
    });

    it('take over when the direct lane breaks, and give it back', async () => {
      const { url } = await broker(kind);
      const b = await laneNode('b', { bus: await bus(url, 'b') });
      const proxy = await startProxy(b.lanes.port);
      onTestFinished(() => proxy.stop());
      const a = await laneNode('a', { bus: await bus(url, 'a') });
      a.lanes.setPeers([entry('b', proxy.port)]);
      const ways: string[] = [];
      const send = async () => {
        const before = b.got.length;
        await a.lanes.send('b', 't/b', [Buffer.from('x')]);
        await until('a message', () => b.got.length > before);
        ways.push(b.got.at(-1)?.relayed === true ? 'relay' : 'direct');
      };
      await send();
      proxy.cut(true);
      await until('the loss', () => a.told.at(-1) === 'b relay');
      await send();
      expect(a.lanes.health()[0]).toMatchObject({ lane: 'relay', why: expect.stringMatching(/./) });
      proxy.mend();
      await until('the return', () => a.told.at(-1) === 'b direct');
      await send();
      await a.lanes.send('b', 't/b', [Buffer.from('x')], { forceRelay: true });
      await until('the forced one', () => b.got.length === 4);
      expect(b.got.at(-1)).toMatchObject({ from: 'a', relayed: true });
      expect(ways).toEqual(['direct', 'relay', 'direct']);
      expect(a.told).toEqual(['b direct', 'b relay', 'b direct']);
    });
  });
}

describe('relay', () => {
  it('is not used for the first message to a peer that can be dialled', async () => {
    const { url } = await broker();
    const [a, b] = [await laneNode('a', { bus: await bus(url, 'a') }), await laneNode('b', { bus: await bus(url, 'b') })];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    await until('the message', () => b.got.length === 1);
    expect(b.got[0]?.from).toBe('a');
  });

  it.skipIf(process.env.MUSICAL_CHAIR_TEST_BROKER !== undefined)('carries nothing while direct lanes are up', async () => {
    const server = await startBroker({ host: '127.0.0.1', port: 0 });
    onTestFinished(() => server.stop());
    const [a, b] = [await laneNode('a', { bus: await bus(server.url, 'a') }), await laneNode('b', { bus: await bus(server.url, 'b') })];
    a.lanes.setPeers([entry('b', b.lanes.port)]);
    await a.lanes.send('b', 't/b', [Buffer.from('first')]);
    const before = server.stats();
    for (let i = 0; i < 10; i++) await a.lanes.send('b', 't/b', [numbers(1_000_000)]);
    await until('all', () => b.got.length === 11);
    const { bytesIn, bytesOut } = server.stats();
    expect(bytesIn + bytesOut - before.bytesIn - before.bytesOut).toBe(0);
  });

  it('is used when a peer does not answer the dial in time', async () => {
    const { url } = await broker();
    const deaf = createServer();
    onTestFinished(() => void deaf.close());
    const [a, b] = [
      await laneNode('a', { bus: await bus(url, 'a'), graceMs: 50, connectTimeoutMs: 60_000 }),
      await laneNode('b', { bus: await bus(url, 'b') }),
    ];
    const port = await listen(deaf, '127.0.0.1', 0);
    // The grace is counted from the dial, and on a busy machine it may be over before the next line.
    const startedAt = performance.now();
    a.lanes.setPeers([entry('b', port)]);
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    const waitedMs = performance.now() - startedAt;
    await a.lanes.send('b', 't/b', [Buffer.from('y')]);
    await until('both', () => b.got.length === 2);
    expect(b.got.map(({ from, relayed }) => [from, relayed])).toEqual([
      ['a', true],
      ['a', true],
    ]);
    expect(waitedMs).toBeGreaterThan(40);
    expect(a.lanes.health()[0]).toMatchObject({ lane: 'relay', why: 'connecting' });
  });

  it('is used at once for a peer whose port is closed, and the reason is shown', async () => {
    const { url } = await broker();
    const [a, b] = [await laneNode('a', { bus: await bus(url, 'a') }), await laneNode('b', { bus: await bus(url, 'b') })];
    const closed = await lazyPeer(true);
    a.lanes.setPeers([entry('b', closed.port)]);
    await until('the lane', () => a.told.length === 1);
    const { port } = b.lanes;
    await b.lanes.stop();
    const again = await laneNode('b', { bus: await bus(url, 'b') });
    a.lanes.setPeers([entry('b', port)]);
    await a.lanes.send('b', 't/b', [Buffer.from('x')]);
    await until('the message', () => again.got.length === 1);
    expect(again.got[0]).toMatchObject({ from: 'a', relayed: true });
    expect(a.lanes.health()[0]?.why).toContain(`127.0.0.1:${port} connect ECONNREFUSED`);
  });

  it('has a limit that is named, and fails clearly without a broker', async () => {
    const { url } = await broker();
    const limited = await connectBus({ url, id: 'a', maxPacketBytes: 1000 });
    onTestFinished(() => limited.stop());
    const a = await laneNode('a', { bus: limited });
    await expect(a.lanes.send('b', 't/b', [new Uint8Array(1000)])).rejects.toThrow(/at most 1000 bytes/);
    await limited.stop();
    await expect(a.lanes.send('b', 't/b', [new Uint8Array(10)])).rejects.toThrow(
      /no lane to b.*not direct \(.*\) and no relay \(the broker is not connected\)/,
    );
    expect(await codeOf(a.lanes.send('b', 't/b', [new Uint8Array(10)]))).toBe('LANE_DOWN');
  });
});

describe('a listener under attack', () => {
  /** Writes bytes and resolves with the ms until the listener closed the connection. */
  async function attack(port: number, bytes: Uint8Array, drip = false): Promise<number> {
    const startedAt = performance.now();
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.resume();
    let at = 0;
    const timer = drip ? setInterval(() => socket.write(bytes.subarray(at, ++at)), 5) : undefined;
    if (!drip) socket.write(bytes);
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    clearInterval(timer);
    return performance.now() - startedAt;
  }

  it('ends a connection that is no MQTT, announces too much, never finishes CONNECT or is silent; and serves the others', async () => {
    const b = await laneNode('b', { connectTimeoutMs: 200, maxPacketBytes: 5_000_000 });
    const a = await laneNode('a');
    const { port } = b.lanes;
    a.lanes.setPeers([entry('b', port)]);
    await a.lanes.send('b', 't/b', [Buffer.from('before')]);
    const hello = generate({ cmd: 'connect', clientId: 'x', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 0 });
    const rssBefore = process.memoryUsage().rss;
    const oversize = Buffer.concat([hello, Buffer.of(0x30, 0xff, 0xff, 0xff, 0x7f), Buffer.alloc(100_000)]);
    await Promise.all([
      attack(port, Buffer.from('GET / HTTP/1.1\r\n\r\n')),
      attack(port, Buffer.alloc(10_000, 0xff)),
      ...Array.from({ length: 20 }, () => attack(port, oversize)),
      attack(port, Buffer.alloc(10_000, 0x10), true),
      attack(port, new Uint8Array(0)),
      attack(port, Buffer.concat([hello, hello])),
    ]);
    expect(process.memoryUsage().rss - rssBefore).toBeLessThan(100_000_000);
    await a.lanes.send('b', 't/b', [Buffer.from('after')]);
    await until('both', () => b.got.length === 2);
    expect(a.told).toEqual(['b direct']);
    expect(new Set(b.refused)).toEqual(new Set(['(listener) CODEC_INVALID', '(listener) PACKET_TOO_LARGE']));
  });

  describe('with a client that does not read', () => {
    /** Connected and subscribed, and paused. */
    const paused = async (port: number): Promise<Socket> => {
      const socket = connect(port, '127.0.0.1').on('error', () => undefined);
      onTestFinished(() => void socket.destroy());
      let came = 0;
      socket.on('data', (chunk) => {
        came += chunk.length;
      });
      socket.write(generate({ cmd: 'connect', clientId: 'c', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 0 }));
      socket.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 't/c', qos: 0 }] }));
      // CONNACK and SUBACK.
      await until('it has subscribed', () => came === 4 + 5);
      return socket.pause();
    };

    it('end it when it asks on and on, for few answers that wait', async () => {
      const b = await laneNode('b');
      const socket = await paused(b.lanes.port);
      const pings = Buffer.alloc(2 * 10_000, Buffer.of(0xc0, 0));
      // More than what the kernel holds of answers; they are as long as the questions. A write to a connection that was ended fails in the same turn of the loop, and the
      // listener could never say why.
      let failed: Error | null | undefined;
      for (let sent = 0; sent < 1000 && !failed; sent++) failed = await new Promise((resolve) => void socket.write(pings, resolve));
      await until('the word of it', () => b.refused.length > 0);
      expect(b.refused).toEqual(['(listener) QUEUE_FULL']);
    });

    it('answer all pings of one that reads', async () => {
      const b = await laneNode('b');
      const socket = await paused(b.lanes.port);
      let read = 0;
      socket.on('data', (chunk) => {
        read += chunk.length;
      });
      socket.resume();
      const pings = Buffer.alloc(2 * 10_000, Buffer.of(0xc0, 0));
      for (let i = 1; i <= 20; i++) {
        socket.write(pings);
        await until('the answers', () => read === i * pings.length, 20_000);
      }
      expect(b.refused).toEqual([]);
    });

    it('end it when something waits for too long, though it is heard of', async () => {
      const b = await laneNode('b', { stalledMs: 300 });
      const socket = await paused(b.lanes.port);
      const alive = setInterval(() => socket.write(Buffer.of(0xc0, 0)), 50);
      onTestFinished(() => clearInterval(alive));
      await until('the lane', () => b.told.includes('c direct'));
      // Until the kernel takes no more.
      let code = 'none';
      while (code === 'none') code = await codeOf(b.lanes.send('c', 't/c', [new Uint8Array(20_000)]));
      expect(code).toBe('LANE_DOWN');
      await until('the word of it', () => b.refused.length > 0, 10_000);
      expect(b.refused).toEqual(['(listener) QUEUE_FULL']);
    });
  });

  it('says no to MQTT 5 and to wildcards', async () => {
    const b = await laneNode('b');
    const answers = await new Promise<string[]>((resolve) => {
      const seen: string[] = [];
      const dial = (first: Parameters<typeof generate>[0], then?: Buffer) => {
        const socket = connect(b.lanes.port, '127.0.0.1');
        const reading = parser();
        reading.on('packet', (packet) => {
          seen.push(
            packet.cmd === 'connack' ? `connack ${packet.returnCode}` : packet.cmd === 'suback' ? `suback ${packet.granted}` : packet.cmd,
          );
          if (packet.cmd === 'suback') socket.destroy();
          if (seen.length === 3) resolve(seen.sort());
        });
        socket.on('data', (chunk) => reading.parse(chunk));
        socket.write(generate(first));
        if (then !== undefined) socket.write(then);
      };
      dial({ cmd: 'connect', clientId: 'five', protocolId: 'MQTT', protocolVersion: 5, clean: true, keepalive: 0 });
      const filters = generate({
        cmd: 'subscribe',
        messageId: 1,
        subscriptions: [
          { topic: 'a/#', qos: 0 },
          { topic: 'a/b', qos: 1 },
        ],
      });
      dial({ cmd: 'connect', clientId: 'four', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 0 }, filters);
    });
    expect(answers).toEqual(['connack 0', 'connack 1', 'suback 128,0']);
  });
});

describe('stock MQTT clients on a listener', () => {
  it('mqtt.js publishes with QoS 0 and 1, subscribes and receives', async () => {
    const b = await laneNode('b');
    const client = await bus(`mqtt://127.0.0.1:${b.lanes.port}`, 'stock');
    const results: string[] = [];
    await client.subscribeBytes('t/stock', (payload) => results.push(Buffer.from(payload).toString()));
    await client.publishBytes('t/b', Buffer.from('zero'), 0);
    await client.publishBytes('t/b', Buffer.from('one'), 1);
    await until('both', () => b.got.length === 2);
    expect(b.got.map(({ from, payload }) => `${from} ${Buffer.from(joinSegments(payload))}`)).toEqual(['stock zero', 'stock one']);
    await b.lanes.send('stock', 't/stock', [Buffer.from('for '), Buffer.from('you')]);
    await until('the answer', () => results.length === 1);
    expect(results).toEqual(['for you']);
  });

  it.skipIf(!installed('mosquitto_pub'))('mosquitto_pub and mosquitto_sub work', async () => {
    const b = await laneNode('b');
    const where = ['-h', '127.0.0.1', '-p', `${b.lanes.port}`, '-V', 'mqttv311'];
    const run = promisify(execFile);
    await run('mosquitto_pub', [...where, '-i', 'pub', '-t', 't/b', '-q', '1', '-m', 'hello']);
    await until('the message', () => b.got.length === 1);
    expect(Buffer.from(joinSegments(b.got[0]?.payload ?? [])).toString()).toBe('hello');
    const sub = spawn('mosquitto_sub', [...where, '-i', 'sub', '-t', 't/sub', '-C', '1']);
    onTestFinished(() => void sub.kill());
    let output = '';
    sub.stdout.on('data', (chunk) => {
      output += chunk;
    });
    await until('the subscriber', () => b.told.includes('sub direct'));
    await b.lanes.send('sub', 't/sub', [Buffer.from('result')]);
    await until('the output', () => output === 'result\n');
  });
});

describe('stop', () => {
  it('is idempotent, rejects later sends and leaves no socket or timer', async () => {
    const before = resources();
    const server = await EMBEDDED.start();
    const connected = await connectBus({ url: server.url, id: 'a' });
    const closed = await lazyPeer(true);
    const [a, b] = [createLanes({ id: 'a', host: '127.0.0.1', bus: connected }), createLanes({ id: 'b', host: '127.0.0.1' })];
    await Promise.all([a.start(), b.start()]);
    a.setPeers([entry('b', b.port), { agent: 'nowhere', addresses: ['127.0.0.99'], lanePort: closed.port }]);
    b.setPeers([entry('a', a.port)]);
    await until('the lanes', () => [a, b].every((lanes) => lanes.health()[0]?.lane === 'direct'));
    await Promise.all([a.stop(), a.stop(), b.stop()]);
    expect(await codeOf(a.send('b', 't/b', [new Uint8Array(1)]))).toBe('STOPPED');
    await connected.stop();
    await server.stop();
    for (const socket of closed.sockets) socket.destroy();
    await until('the end of all sockets and timers', () => resources().length <= before.length + 1);
  });

  it('frees the port, and a taken port is named', async () => {
    const a = await laneNode('a');
    const { port } = a.lanes;
    const second = createLanes({ id: 'b', host: '127.0.0.1', port });
    expect(await codeOf(second.start())).toBe('PORT_IN_USE');
    await second.stop();
    await a.lanes.stop();
    await laneNode('b', { port });
  });
});
