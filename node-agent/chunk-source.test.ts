/** Which way chunks come: a fetcher with real lanes, a gateway behind a wire that can be cut, and a broker in memory that answers, too. */
import { randomBytes } from 'node:crypto';
import { symlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeBlobChunk } from '../broker/activation.js';
import { decode } from '../broker/codec.js';
import { createFakeBroker, type FakeBus } from '../broker/fake-bus.js';
import type { Lanes, Segments, SideLane } from '../broker/lanes/lane.js';
import { createLanes } from '../broker/lanes/lanes.js';
import { listen } from '../broker/listen.js';
import type { BlobRequest } from '../broker/messages.js';
import { joinSegments } from '../broker/segments.js';
import { startProxy } from '../broker/test-brokers.js';
import { DISPATCHER, topicsOf } from '../broker/topics.js';
import { ChunkSource } from './chunk-source.js';
import { BlobFetcher, type FetchOptions } from './fetch.js';
import { Pace } from './pace.js';
import { BlobStore } from './store.js';
import { blob, eventually, folder, type ToyBlob } from './test-world.js';

const topics = topicsOf('c');
const undo: (() => unknown)[] = [];
let bus: FakeBus;
let store: BlobStore;
/** What was asked through the broker. */
let requests: BlobRequest[];
const LARGE = 2_000_000;
const PART = 65_536;
const large = blob(randomBytes(LARGE));
/** Asked for on the connection, and what is said there (undefined = nothing). */
let asked: BlobRequest[];
let say: (request: BlobRequest, chunk: Segments) => Segments | undefined;
let [open, mostOpen] = [0, 0];

beforeEach(async () => {
  [asked, requests] = [[], []];
  [open, mostOpen] = [0, 0];
  say = (_, chunk) => chunk;
  const broker = createFakeBroker();
  const through = broker.bus('gateway');
  await through.subscribe(topics.blobRequest, (request) => {
    requests.push(request);
    const { id, sha256, offset, length } = request;
    const data = large.bytes.subarray(offset, offset + length);
    setImmediate(() => void through.publish(topics.blobChunk('a'), { id, sha256, offset, totalBytes: LARGE, code: '', data }));
  });
  bus = broker.bus('a');
  undo.push(() => bus.stop());
  store = await BlobStore.open({ directory: await folder(undo), limitBytes: 1e7, diskFreeBytes: async () => 1e9 });
  undo.push(() => store.close());
});
afterEach(async () => {
  for (const u of undo.splice(0).reverse()) await u();
});

/** A gateway with lanes, and the way to it, which can be cut. */
async function gateway() {
  const lanes = createLanes({ id: DISPATCHER, cluster: 'c', host: '127.0.0.1' });
  undo.push(() => lanes.stop());
  lanes.on(topics.blobRequest.name, ({ from, payload, answer }) => {
    const request = decode('BlobRequest', joinSegments(payload)) as BlobRequest;
    asked.push(request);
    mostOpen = Math.max(mostOpen, ++open);
    const { id, sha256, offset, length } = request;
    const data = large.bytes.subarray(offset, offset + length);
    const chunk = say(request, encodeBlobChunk({ id, sha256, offset, totalBytes: LARGE, code: '' }, data));
    if (chunk === undefined) return;
    setImmediate(() => {
      open--;
      answer?.(topics.blobChunk(from).name, chunk).catch(() => undefined);
    });
  });
  await lanes.start();
  const proxy = await startProxy(lanes.port);
  undo.push(() => proxy.stop());
  return proxy;
}

function lanesTo(lanePort: number): Lanes {
  const lanes = createLanes({ id: 'a', cluster: 'c', host: '127.0.0.1', listen: false, random: () => 0.05, onRefused: () => undefined });
  undo.push(() => lanes.stop());
  lanes.setPeers([{ agent: DISPATCHER, addresses: ['127.0.0.1'], lanePort }]);
  return lanes;
}

async function started(lanePort: number, options: Partial<FetchOptions> = {}): Promise<BlobFetcher> {
  const patient = { chunkBytes: PART, requestTimeoutMs: 10_000, graceMs: 10_000, random: () => 0 };
  const made = new BlobFetcher({ bus, lanes: lanesTo(lanePort), topics: () => topics, agent: 'a', store, ...patient, ...options });
  await made.start();
  undo.push(() => made.stop());
  return made;
}

async function fetched(f: BlobFetcher, { ref }: ToyBlob): Promise<number> {
  let bytes = 0;
  await f.fetch(ref, { signal: new AbortController().signal, onBytes: (n) => (bytes += n) });
  expect(await store.has(ref)).toBe(true);
  return bytes;
}

describe('the way that chunks come', () => {
  it('is waited for once where the connection cannot be made: the next time the broker is asked at once, and the connection as soon as it is up', async () => {
    const asks: string[] = [];
    let state: SideLane['state'] = 'trying';
    let tell: () => void = () => undefined;
    let closed = 0;
    const lanes: Pick<Lanes, 'beside'> = {
      beside: (_, { onChange }) => {
        tell = onChange;
        return {
          get state() {
            return state;
          },
          send: async () => asks.push('beside') > 0,
          close: () => void closed++,
        };
      },
    };
    let ready = 0;
    const source = new ChunkSource({
      ...{ bus, lanes, topics: () => topics, agent: 'a', graceMs: 10, idleMs: 1 },
      onChunk: () => undefined,
      onReady: () => void ready++,
    });
    await source.start();
    undo.push(() => source.stop());
    await eventually(() => ready === 1, 'the broker');
    const letGo = source.hold();
    expect(source.isReady).toBe(false);
    await eventually(() => ready === 2, 'the broker to be asked instead');
    expect(source.isReady).toBe(true);
    letGo();
    await eventually(() => closed === 1, 'the end');
    const before = ready;
    const again = source.hold();
    expect(source.isReady).toBe(true);
    source.ask({ sha256: large.ref.sha256, offset: 0, length: 1 });
    state = 'up';
    tell();
    // What was asked through the broker is on its way, and nothing is asked twice.
    expect(ready).toBe(before);
    source.ask({ sha256: large.ref.sha256, offset: 1, length: 1 });
    expect(asks).toEqual(['beside']);
    await eventually(() => requests.length === 1, 'the other request');
    again();
    await eventually(() => closed === 2, 'the end');
    state = 'trying';
    source.hold();
    expect(source.isReady).toBe(false);
  });
});

describe('fetching beside the lane', () => {
  it('takes a connection of its own, which it keeps for a while, and leaves the broker alone', async () => {
    const proxy = await gateway();
    const f = await started(proxy.port);
    expect(await fetched(f, large)).toBe(LARGE);
    expect(asked).toHaveLength(Math.ceil(LARGE / PART));
    expect(mostOpen).toBeGreaterThan(1);
    expect(mostOpen).toBeLessThanOrEqual(4);
    await store.remove(large.ref.sha256);
    expect(await fetched(f, large)).toBe(LARGE);
    expect(requests).toEqual([]);
    // With the lane.
    expect(proxy.connections).toBe(2);
  });

  it('gives the connection up when nothing was fetched for a while, and makes another one for the next blob', async () => {
    const proxy = await gateway();
    const f = await started(proxy.port, { idleMs: 1 });
    for (let i = 1; i <= 2; i++) {
      await fetched(f, large);
      await store.remove(large.ref.sha256);
      // One is the lane.
      expect(proxy.connections).toBe(1 + i);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(requests).toEqual([]);
  });

  it('asks for one small chunk at a time, too, when nobody waits for it', async () => {
    const { port } = await gateway();
    const f = await started(port, { chunkBytes: 1_000_000 });
    const pace = new Pace(
      () => 1,
      () => performance.now(),
    );
    await f.fetchAll([large.ref], { signal: new AbortController().signal, onBytes: () => undefined, pace });
    expect(mostOpen).toBe(1);
    expect(Math.max(...asked.map(({ length }) => length))).toBe(128 * 1024);
  });

  it('goes on through the broker where it was when the connection breaks in the middle', async () => {
    const proxy = await gateway();
    say = (_, chunk) => {
      if (asked.length === 12) proxy.cut(true);
      return asked.length < 12 ? chunk : undefined;
    };
    const f = await started(proxy.port);
    expect(await fetched(f, large)).toBe(LARGE);
    const offsets = requests.map(({ offset }) => offset);
    expect(offsets.length).toBeGreaterThan(10);
    // What had come is not asked for again, and nothing twice.
    expect(Math.min(...offsets)).toBeGreaterThanOrEqual(4 * PART);
    expect(new Set(offsets).size).toBe(offsets.length);
  });

  it('waits where there is no broker either, and goes on when the connection is back', async () => {
    const proxy = await gateway();
    bus.lose();
    say = (_, chunk) => {
      if (asked.length === 12) proxy.cut(true);
      return asked.length === 12 ? undefined : chunk;
    };
    const f = await started(proxy.port);
    const done = fetched(f, large);
    await eventually(() => asked.length >= 12, 'the break');
    await new Promise((resolve) => setTimeout(resolve, 50));
    proxy.mend();
    expect(await done).toBe(LARGE);
    expect(requests).toEqual([]);
  });

  it('asks through the broker at once where nobody listens, and after a while where nobody answers', async () => {
    const f = await started(1);
    expect(await fetched(f, large)).toBe(LARGE);
    await store.remove(large.ref.sha256);
    const server = createServer((socket) => void socket.on('error', () => undefined).resume());
    undo.push(() => void server.close());
    const g = await started(await listen(server, '127.0.0.1', 0), { graceMs: 30 });
    expect(await fetched(g, large)).toBe(LARGE);
    expect(asked).toEqual([]);
  });

  it.each([
    ['nothing', (): Segments | undefined => undefined],
    ['what nobody understands', () => [Buffer.from('nonsense')]],
    ['more than was asked for', () => [Buffer.alloc(5_000_000)]],
  ])('asks through the broker a gateway that says %s on the connection', async (_, said) => {
    say = said;
    const { port } = await gateway();
    const f = await started(port, { requestTimeoutMs: 30, maxTries: 50 });
    expect(await fetched(f, large)).toBe(LARGE);
    expect(requests.length).toBeGreaterThan(0);
  });

  it('believes no byte: what does not hash to its name is fetched once more, and then refused', async () => {
    const { port } = await gateway();
    let wrong = 1;
    say = (request, chunk) => {
      if (request.offset !== 10 * PART || wrong-- <= 0) return chunk;
      const bytes = Buffer.from(joinSegments(chunk));
      bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1;
      return [bytes];
    };
    const f = await started(port);
    expect(await fetched(f, large)).toBe(LARGE);
    expect(asked).toHaveLength(2 * Math.ceil(LARGE / PART));
    await store.remove(large.ref.sha256);
    wrong = Number.POSITIVE_INFINITY;
    await expect(fetched(f, large)).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    expect(store.usedBytes).toBe(0);
  });

  it('ends when the disk is full, and leaves no request under way', async () => {
    const { port } = await gateway();
    await symlink('/dev/full', `${store.path(large.ref.sha256)}.part`);
    const f = await started(port);
    await expect(fetched(f, large)).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
    const before = asked.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(asked.length).toBe(before);
  });
});
