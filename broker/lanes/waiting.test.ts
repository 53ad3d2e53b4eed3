/** What waits on a lane that carries little: it can be dropped, little of it is out of reach, and how fast it goes is seen meanwhile. */
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { generate, parser } from 'mqtt-packet';
import { describe, expect, it, onTestFinished } from 'vitest';
import { listen } from '../listen.js';
import { joinSegments } from '../segments.js';
import { until as untilWithin } from '../test-brokers.js';
import { readKernelQueues } from './kernel-queues.js';
import type { LaneMessage } from './lane.js';
import type { LanesOptions } from './lanes.js';
import { type LaneNode, laneNode } from './test-node.js';

/** The machine may be busy. */
const until = (what: string, check: () => boolean) => untilWithin(what, check, 20_000);
const entry = (agent: string, lanePort: number) => ({ agent, addresses: ['127.0.0.1'], lanePort });

const node = (id: string, options: Partial<LanesOptions> = {}): Promise<LaneNode> => laneNode(id, { connectTimeoutMs: 20_000, ...options });

/** A wire to `target` that carries so many bytes per second towards it, and as many as come back. */
async function slowWire(target: number, bytesPerSecond: number) {
  const sockets: Socket[] = [];
  const wire = { port: 0, carried: 0, bytesPerSecond };
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ port: target, host: '127.0.0.1', noDelay: true });
    sockets.push(near, far);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on('error', () => undefined).on('close', () => void other.destroy());
    }
    far.on('data', (chunk) => near.write(chunk));
    let sinceMs = performance.now();
    let due = 0;
    const timer = setInterval(() => {
      const now = performance.now();
      due = Math.min(due + ((now - sinceMs) * wire.bytesPerSecond) / 1000, wire.bytesPerSecond / 10);
      sinceMs = now;
      const chunk: Buffer | null = due < 1 ? null : (near.read(Math.min(Math.floor(due), near.readableLength)) as Buffer | null);
      if (chunk === null) return;
      due -= chunk.length;
      wire.carried += chunk.length;
      far.write(chunk);
    }, 5);
    near.on('readable', () => undefined).on('close', () => clearInterval(timer));
  });
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  wire.port = await listen(server, '127.0.0.1', 0);
  return wire;
}

const payload = (bytes: number, value: number): Uint8Array[] => [new Uint8Array(bytes).fill(value)];
const values = (got: readonly LaneMessage[]) => got.map(({ payload: segments }) => joinSegments(segments)[0]);

describe('what waits on a slow lane', () => {
  it('is dropped when nobody wants it any more, and what is wanted goes next', async () => {
    const b = await node('b');
    const wire = await slowWire(b.lanes.port, 4_000_000);
    const a = await node('a');
    a.lanes.setPeers([entry('b', wire.port)]);
    await a.lanes.send('b', 't/b', payload(10, 0));
    let wanted = true;
    const sends = Array.from({ length: 160 }, () => a.lanes.send('b', 't/b', payload(100_000, 1), { wanted: () => wanted }));
    await until('some', () => b.got.length > 3);
    expect(a.lanes.health()[0]?.waitingBytes).toBeGreaterThan(5_000_000);
    wanted = false;
    a.lanes.purge();
    await a.lanes.send('b', 't/b', payload(10, 2));
    const sent = await Promise.all(sends);
    const left = sent.filter(Boolean).length;
    // What arrived meanwhile, and a window of 4 MB: the rest never left.
    expect(left).toBeLessThan(100);
    await until('the wanted one', () => values(b.got).includes(2));
    expect(b.got).toHaveLength(1 + left + 1);
    expect(a.lanes.health()[0]).toMatchObject({ messagesDropped: 160 - left, lane: 'direct' });
    await until('all answered', () => a.lanes.health()[0]?.waitingBytes === 0);
  }, 60_000);

  it('is dropped in the middle of a message, of which nothing is left at the receiver', async () => {
    const b = await node('b');
    const wire = await slowWire(b.lanes.port, 2_000_000);
    const a = await node('a');
    a.lanes.setPeers([entry('b', wire.port)]);
    await a.lanes.send('b', 't/b', payload(10, 0));
    let wanted = true;
    const large = a.lanes.send('b', 't/b', payload(20_000_000, 1), { wanted: () => wanted });
    await until('a part of it', () => wire.carried > 300_000);
    wanted = false;
    a.lanes.purge();
    expect(await large).toBe(false);
    await a.lanes.send('b', 't/b', payload(1_000_000, 2));
    await until('the next one', () => b.got.length === 2);
    expect(values(b.got)).toEqual([0, 2]);
    expect(b.got[1]?.payloadBytes).toBe(1_000_000);
    expect([a.refused, b.refused]).toEqual([[], []]);
  }, 60_000);

  it('lets an urgent message by, also between the parts of one that is on its way', async () => {
    const b = await node('b');
    const wire = await slowWire(b.lanes.port, 4_000_000);
    const a = await node('a');
    a.lanes.setPeers([entry('b', wire.port)]);
    const large = new Uint8Array(8_000_000).map((_, i) => (i * 31) & 0xff).fill(7, 0, 1);
    const sending = a.lanes.send('b', 't/b', [large.subarray(0, 100), large.subarray(100)]);
    await until('a part of it', () => wire.carried > 300_000);
    await a.lanes.send('b', 't/b', payload(10, 9), { urgent: true });
    await until('both', () => b.got.length === 2);
    expect(values(b.got)).toEqual([9, 7]);
    expect(await sending).toBe(true);
    expect(Buffer.from(joinSegments(b.got[1]?.payload ?? [])).equals(large)).toBe(true);
  }, 60_000);

  it('is seen in the middle of a transfer: for how long, and how fast it goes; not while the other machine has it all', async () => {
    const b = await node('b');
    const wire = await slowWire(b.lanes.port, 400_000);
    // As the kernel of a link without buffers would say it.
    let seen = true;
    const kernelQueues = async () => (socket: Socket) =>
      seen ? Math.max(0, socket.bytesWritten - socket.writableLength - wire.carried) : 0;
    const a = await node('a', { kernelQueues });
    a.lanes.setPeers([entry('b', wire.port)]);
    const health = () => a.lanes.health()[0] ?? { busyMs: 0, busyBytesPerSecond: 0, messagesSent: 0 };
    await a.lanes.send('b', 't/b', payload(10, 0));
    let wanted = true;
    const large = a.lanes.send('b', 't/b', payload(8_000_000, 1), { wanted: () => wanted });
    await until('it was busy for a second', () => health().busyMs >= 1000);
    expect(health().messagesSent).toBe(1);
    expect(health().busyBytesPerSecond).toBeGreaterThan(100_000);
    expect(health().busyBytesPerSecond).toBeLessThan(800_000);
    seen = false;
    await until('it is not the link', () => health().busyMs === 0);
    wanted = false;
    a.lanes.purge();
    expect(await large).toBe(false);
  }, 60_000);

  it('is seen of messages that are short, too, each of which is over before long', async () => {
    const b = await node('b');
    const wire = await slowWire(b.lanes.port, 60_000);
    const kernelQueues = async () => (socket: Socket) => Math.max(0, socket.bytesWritten - socket.writableLength - wire.carried);
    const a = await node('a', { kernelQueues, keepaliveMs: 1000 });
    a.lanes.setPeers([entry('b', wire.port)]);
    await a.lanes.send('b', 't/b', payload(10, 0));
    // A round trip is known.
    await delay(1200);
    // 0.4 of each 0.55 s.
    for (let i = 1; i <= 8; i++) {
      await a.lanes.send('b', 't/b', payload(30_000, i));
      await delay(550);
    }
    const { busyMs, busyBytesPerSecond } = a.lanes.health()[0] ?? { busyMs: 0, busyBytesPerSecond: 0 };
    expect(busyMs).toBeGreaterThanOrEqual(1000);
    expect(busyBytesPerSecond).toBeLessThan(120_000);
    await until('all', () => b.got.length === 9);
  }, 60_000);

  it('goes whole to a client that is not one of ours', async () => {
    const a = await node('a');
    const socket = connect({ port: a.lanes.port, host: '127.0.0.1' });
    onTestFinished(() => void socket.destroy());
    const stream = parser({ protocolVersion: 4 });
    const seen: { cmd: string; dup?: boolean; retain?: boolean; bytes: number }[] = [];
    stream.on('packet', (packet) => {
      const bytes = packet.cmd === 'publish' ? packet.payload.length : 0;
      seen.push({ cmd: packet.cmd, ...(packet.cmd === 'publish' ? { dup: packet.dup, retain: packet.retain } : {}), bytes });
      if (packet.cmd === 'connack') socket.write(generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: 't/c', qos: 0 }] }));
    });
    socket.on('data', (chunk) => stream.parse(chunk));
    socket.write(generate({ cmd: 'connect', clientId: 'c', protocolId: 'MQTT', protocolVersion: 4, clean: true, keepalive: 5 }));
    await until('it listens', () => seen.length === 2);
    await a.lanes.send('c', 't/c', payload(1_000_000, 1));
    await until('the message', () => seen.length === 3);
    expect(seen[2]).toEqual({ cmd: 'publish', dup: false, retain: false, bytes: 1_000_000 });
    // Nor is it asked what has arrived: servers do not.
    expect(seen.map(({ cmd }) => cmd)).toEqual(['connack', 'suback', 'publish']);
  });
});

describe.skipIf(process.platform !== 'linux')("the kernel's word", () => {
  it('tells what a machine has not acknowledged, by connection', async () => {
    const ends: Socket[] = [];
    const server = createServer((socket) => void ends.push(socket.pause()));
    const port = await listen(server, '127.0.0.1', 0);
    const [full, idle] = [connect({ port, host: '127.0.0.1' }), connect({ port, host: '127.0.0.1' })];
    onTestFinished(() => {
      for (const socket of [full, idle, ...ends]) socket.destroy();
      server.close();
    });
    await until('both', () => ends.length === 2 && full.localPort !== undefined && idle.localPort !== undefined);
    full.write(Buffer.alloc(64 * 2 ** 20));
    const queued = async (socket: Socket) => (await readKernelQueues())(socket);
    for (const end = performance.now() + 5000; ((await queued(full)) ?? 0) === 0 && performance.now() < end; );
    expect(await queued(full)).toBeGreaterThan(0);
    expect(await queued(idle)).toBe(0);
    full.destroy();
    expect(await queued(full)).toBeUndefined();
  });
});
