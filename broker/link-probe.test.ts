import { connect, createServer, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { encode } from './codec.js';
import { createFakeNetwork } from './lanes/fake-lanes.js';
import type { Lanes } from './lanes/lane.js';
import { createLanes } from './lanes/lanes.js';
import { checkLink, MAX_BYTES_PER_SECOND } from './link-bounds.js';
import { LinkProbe, PROBE_BUDGET } from './link-probe.js';
import { listen } from './listen.js';
import { topicsOf } from './topics.js';

const topics = topicsOf('c');

function probeOn(lanes: Lanes): LinkProbe {
  const probe = new LinkProbe({ name: lanes.id, lanes, topics: () => topics, nowMs: () => performance.now() });
  probe.start();
  onTestFinished(() => probe.stop());
  return probe;
}

async function lanesOf(id: string): Promise<Lanes> {
  const lanes = createLanes({ id, host: '127.0.0.1', graceMs: 10_000 });
  onTestFinished(() => lanes.stop());
  await lanes.start();
  return lanes;
}

/** Forwards so many bytes a second each way, however the timers fall; the first ones of many bytes down stand still, each for its time. Gives its port. */
async function slowWire(port: number, bytesPerSecond: { up: number; down: number; stallsMs?: readonly number[] }): Promise<number> {
  const sockets = new Set<Socket>();
  // Each chunk leaves when the bytes before it have left: late timers do not add up, and idle time buys nothing.
  const pump = (from: Socket, to: Socket, speed: number, stallsMs: readonly number[] = []): void => {
    const stalls = [...stallsMs];
    const waiting: { readonly chunk: Buffer; readonly dueMs: number }[] = [];
    let freeMs = 0;
    from.on('data', (chunk: Buffer) => {
      freeMs = Math.max(freeMs, performance.now()) + (chunk.length / speed) * 1000;
      if (chunk.length > 20_000) freeMs += stalls.shift() ?? 0;
      waiting.push({ chunk, dueMs: freeMs });
    });
    const timer = setInterval(() => {
      for (let first = waiting[0]; first !== undefined && first.dueMs <= performance.now(); first = waiting[0]) {
        to.write(first.chunk);
        waiting.shift();
      }
    }, 2);
    from.on('close', () => {
      clearInterval(timer);
      to.destroy();
    });
    from.on('error', () => undefined);
  };
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port });
    for (const socket of [near, far]) sockets.add(socket);
    pump(near, far, bytesPerSecond.up);
    pump(far, near, bytesPerSecond.down, bytesPerSecond.stallsMs);
  });
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return listen(server, '127.0.0.1', 0);
}

describe('a link probe', () => {
  it('finds the speed of each direction, uneven as they are, within a third', async () => {
    const [a, b] = [await lanesOf('a'), await lanesOf('b')];
    const lanePort = await slowWire(b.port, { up: 8e6, down: 2e6 });
    a.setPeers([{ agent: 'b', addresses: ['127.0.0.1'], lanePort }]);
    probeOn(b);
    const found = await probeOn(a).measure('b', { budgetMs: 4000, budgetBytes: 8 * 2 ** 20 });
    expect(found).toMatchObject({ peer: 'b', lane: 'direct' });
    expect(found.upBytesPerSecond / 8e6).toBeGreaterThan(0.67);
    expect(found.upBytesPerSecond / 8e6).toBeLessThan(1.33);
    expect(found.downBytesPerSecond / 2e6).toBeGreaterThan(0.67);
    expect(found.downBytesPerSecond / 2e6).toBeLessThan(1.33);
    expect(found.roundTripMs).toBeGreaterThan(0);
    expect(found.bytes).toBeLessThanOrEqual(8 * 2 ** 20);
  });

  it('does not take one round that stood still for the speed of the link, however little time was left', async () => {
    const [a, b] = [await lanesOf('a'), await lanesOf('b')];
    const lanePort = await slowWire(b.port, { up: 1e6, down: 20e6, stallsMs: [500] });
    a.setPeers([{ agent: 'b', addresses: ['127.0.0.1'], lanePort }]);
    probeOn(b);
    const found = await probeOn(a).measure('b', { budgetMs: 200, budgetBytes: 8 * 2 ** 20 });
    expect(found.downBytesPerSecond).toBeGreaterThan(1e6);
  }, 20_000);

  it('goes on where rounds tell different things, as with a processor that waits for turns of a quota', async () => {
    const [a, b] = [await lanesOf('a'), await lanesOf('b')];
    const lanePort = await slowWire(b.port, { up: 1e6, down: 20e6, stallsMs: [180, 100, 140] });
    a.setPeers([{ agent: 'b', addresses: ['127.0.0.1'], lanePort }]);
    probeOn(b);
    const found = await probeOn(a).measure('b', { budgetMs: 200, budgetBytes: 8 * 2 ** 20 });
    expect(found.downBytesPerSecond).toBeGreaterThan(3e6);
  }, 20_000);

  it('keeps to its budget of bytes, and measures at least once each way', async () => {
    const [a, b] = [await lanesOf('a'), await lanesOf('b')];
    a.setPeers([{ agent: 'b', addresses: ['127.0.0.1'], lanePort: b.port }]);
    probeOn(b);
    const found = await probeOn(a).measure('b', { budgetMs: 0, budgetBytes: 0 });
    expect(found.bytes).toBe(2 * 64 * 1024);
    expect(found.upBytesPerSecond).toBeGreaterThan(0);
    expect(found.downBytesPerSecond).toBeGreaterThan(0);
  });

  it('measures one peer at a time, and says so', async () => {
    const network = createFakeNetwork();
    const [a, b] = [probeOn(network.lanes('a')), probeOn(network.lanes('b'))];
    const first = a.measure('b', PROBE_BUDGET);
    await expect(a.measure('b', PROBE_BUDGET)).rejects.toMatchObject({ code: 'AGENT_BUSY' });
    await first;
    await expect(b.measure('a', PROBE_BUDGET)).resolves.toMatchObject({ peer: 'a' });
  });

  it('fails with LANE_DOWN where there is no lane, and with STOPPED when it is stopped meanwhile', async () => {
    const network = createFakeNetwork();
    const a = probeOn(network.lanes('a'));
    await expect(a.measure('nobody', PROBE_BUDGET)).rejects.toMatchObject({ code: 'LANE_DOWN' });
    probeOn(network.lanes('b'));
    network.filter = ({ to }) => to !== 'a';
    const waiting = a.measure('b', PROBE_BUDGET);
    setTimeout(() => a.stop(), 20);
    await expect(waiting).rejects.toMatchObject({ code: 'STOPPED' });
  });

  it('does not let a peer make this end send more than a round', async () => {
    const network = createFakeNetwork();
    probeOn(network.lanes('victim'));
    const greedy = network.lanes('greedy');
    const replies: string[] = [];
    greedy.on(topics.probe('greedy'), (message) => replies.push(String(message.payloadBytes)));
    const ask = { id: '1', from: 'greedy', kind: 'drain', messages: 1e6, messageBytes: 65_536, data: new Uint8Array(0) };
    await greedy.send('victim', topics.probe('victim'), [encode('Probe', ask)]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(replies).toHaveLength(1);
    expect(Number(replies[0])).toBeLessThan(100);
  });
});

describe('a link', () => {
  it.each([
    [0, 1],
    [-5, 1],
    [1e-300, 1],
    [Number.NaN, 1],
    [Number.POSITIVE_INFINITY, 1],
    [2 * MAX_BYTES_PER_SECOND, 1],
    [1e6, -1],
    [1e6, Number.NaN],
    [1e6, 1e6],
  ])('of %s bytes/s and %s ms is refused', (bytesPerSecond, latencyMs) => {
    expect(() => checkLink('the link', { bytesPerSecond, latencyMs })).toThrow(expect.objectContaining({ code: 'LINK_IMPLAUSIBLE' }));
  });

  it('of any speed that can be is taken', () => {
    expect(() => checkLink('the link', { bytesPerSecond: 1, latencyMs: 0 })).not.toThrow();
    expect(() => checkLink('the link', { bytesPerSecond: MAX_BYTES_PER_SECOND, latencyMs: 59_000 })).not.toThrow();
  });
});
