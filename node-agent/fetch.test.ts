import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createFakeBroker, type FakeBroker, type FakeBus } from '../broker/fake-bus.js';
import type { BlobChunk, BlobRequest } from '../broker/messages.js';
import { topicsOf } from '../broker/topics.js';
import { BlobFetcher, type FetchOptions } from './fetch.js';
import { Pace } from './pace.js';
import { BlobStore } from './store.js';
import { blob, eventually, folder, type ToyBlob } from './test-world.js';

const topics = topicsOf('c');
const SIZE = 10_000;
const CHUNK = 1000;
const big = blob(Buffer.from(Array.from({ length: SIZE }, (_, i) => (i * 7 + (i >> 8)) & 255)));

const undo: (() => unknown)[] = [];
let broker: FakeBroker;
let bus: FakeBus;
let store: BlobStore;
/** What the gateway was asked, and how it answers (undefined = not at all). */
let requests: BlobRequest[];
let respond: (request: BlobRequest) => Partial<BlobChunk> | undefined;
let most = 0;
let outstanding = 0;

beforeEach(async () => {
  broker = createFakeBroker();
  const gateway = broker.bus('gateway');
  requests = [];
  most = outstanding = 0;
  respond = () => ({});
  await gateway.subscribe(topics.blobRequest, (request) => {
    requests.push(request);
    most = Math.max(most, ++outstanding);
    const answer = respond(request);
    if (answer === undefined) return;
    const { id, sha256, offset, length } = request;
    const data = big.bytes.subarray(offset, offset + length);
    setImmediate(() => {
      outstanding--;
      void gateway
        .publish(topics.blobChunk('a'), { id, sha256, offset, totalBytes: SIZE, code: '', data, ...answer })
        .catch(() => undefined);
    });
  });
  bus = broker.bus('a');
  store = await BlobStore.open({ directory: await folder(undo), limitBytes: 1e6, diskFreeBytes: async () => 1e9 });
  undo.push(() => store.close());
});
afterEach(async () => {
  for (const u of undo.splice(0).reverse()) await u();
  await bus.stop();
});

async function fetcher(options: Partial<FetchOptions> = {}): Promise<BlobFetcher> {
  const made = new BlobFetcher({
    bus,
    topics: () => topics,
    agent: 'a',
    store,
    chunkBytes: CHUNK,
    // The machine may be busy; what depends on time says so itself.
    requestTimeoutMs: 10_000,
    maxTries: 4,
    random: () => 0,
    ...options,
  });
  await made.start();
  undo.push(() => made.stop());
  return made;
}

async function fetched(f: BlobFetcher, b: ToyBlob = big, signal = new AbortController().signal): Promise<number> {
  let bytes = 0;
  await f.fetch(b.ref, { signal, onBytes: (n) => (bytes += n) });
  expect(await store.has(b.ref)).toBe(true);
  return bytes;
}

describe('fetching a blob', () => {
  it('asks for one chunk at a time when nobody waits for it, and pauses between them for as long as its pace says', async () => {
    const f = await fetcher();
    const steps: number[] = [];
    const pace = new Pace(
      () => 0.5,
      () => performance.now(),
    );
    const took = pace.took.bind(pace);
    pace.took = (ms) => {
      steps.push(ms);
      took(ms);
    };
    const from = performance.now();
    await f.fetchAll([big.ref], { signal: new AbortController().signal, onBytes: () => undefined, pace });
    const passed = performance.now() - from;
    expect(await store.has(big.ref)).toBe(true);
    expect(most).toBe(1);
    expect(steps).toHaveLength(SIZE / CHUNK);
    // Half of the time at most, but for the last step, after which nothing more is to come.
    expect(steps.slice(0, -1).reduce((sum, ms) => sum + ms, 0)).toBeLessThan(0.55 * passed);
  });

  it('does not begin another chunk after it was given up in a pause', async () => {
    const f = await fetcher();
    const giveUp = new AbortController();
    const pace = new Pace(
      () => 0.001,
      () => performance.now(),
    );
    const going = f.fetchAll([big.ref], { signal: giveUp.signal, onBytes: () => undefined, pace });
    await vi.waitFor(() => expect(requests.length).toBe(1));
    await vi.waitFor(() => expect(pace.waitMs).toBeGreaterThan(0));
    giveUp.abort(new Error('somebody waits for it'));
    await expect(going).rejects.toThrow('somebody waits for it');
    expect(requests.length).toBe(1);
    expect(await fetched(f)).toBe(SIZE);
  });

  it('fetches a blob once for two who want it at the same time, and again for the second when the first gives up', async () => {
    const f = await fetcher();
    expect(await Promise.all([fetched(f), fetched(f)])).toEqual([SIZE, SIZE]);
    expect(requests).toHaveLength(10);
    await store.remove(big.ref.sha256);
    const abort = new AbortController();
    const first = fetched(f, big, abort.signal).catch((error: unknown) => error);
    const second = fetched(f);
    abort.abort(new Error('given up'));
    expect(await first).toMatchObject({ message: 'given up' });
    expect(await second).toBe(SIZE);
  });

  it('asks for chunks with a window and puts them together', async () => {
    expect(await fetched(await fetcher())).toBe(SIZE);
    expect(requests).toHaveLength(10);
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(4);
  });

  it('takes an empty blob without asking', async () => {
    await fetched(await fetcher(), blob(''));
    expect(requests).toHaveLength(0);
  });

  it('asks again for what was lost, and is not confused by what comes twice', async () => {
    let n = 0;
    respond = () => (n++ % 3 === 0 ? undefined : {});
    expect(await fetched(await fetcher({ requestTimeoutMs: 20 }))).toBe(SIZE);
    expect(requests.length).toBeGreaterThan(10);
  });

  it('gives up with a time-out that says what was waited for', async () => {
    respond = (r) => (r.offset === 3000 ? undefined : {});
    const f = await fetcher({ requestTimeoutMs: 5 });
    await expect(fetched(f)).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT', message: expect.stringContaining('1000 bytes at 3000') });
    expect(requests.filter((r) => r.offset === 3000)).toHaveLength(4);
    // What came is kept for the next time.
    expect(store.partBytes(big.ref.sha256)).toBe(3000);
    respond = () => ({});
    requests.length = 0;
    expect(await fetched(f)).toBe(SIZE);
    expect(requests.map((r) => r.offset).sort((a, b) => a - b)[0]).toBe(3000);
  });

  it('fetches once more what does not hash to its name, then says so', async () => {
    let wrong = true;
    respond = (r) => {
      if (r.offset !== 5000 || !wrong) return {};
      wrong = false;
      return { data: Buffer.alloc(CHUNK) };
    };
    expect(await fetched(await fetcher())).toBe(SIZE);
    expect(requests).toHaveLength(20);
    await store.remove(big.ref.sha256);
    respond = (r) => (r.offset === 5000 ? { data: Buffer.alloc(CHUNK) } : {});
    await expect(fetched(await fetcher())).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    expect(store.usedBytes).toBe(0);
  });

  it.each([
    ['BLOB_NOT_FOUND', { code: 'BLOB_NOT_FOUND', data: Buffer.alloc(0) }, 'BLOB_NOT_FOUND'],
    ['a code from the future', { code: 'WHATEVER', data: Buffer.alloc(0) }, 'BLOB_NOT_FOUND'],
    ['a chunk of the wrong length', { data: Buffer.alloc(7) }, 'BLOB_CORRUPT'],
    ['another total', { totalBytes: 5 }, 'BLOB_CORRUPT'],
  ])('fails on %s', async (_, answer, code) => {
    respond = () => answer;
    await expect(fetched(await fetcher())).rejects.toMatchObject({ code });
  });

  it('waits when the gateway is busy', async () => {
    let busy = 3;
    respond = () => (busy-- > 0 ? { code: 'QUEUE_FULL', data: Buffer.alloc(0) } : {});
    expect(await fetched(await fetcher({ requestTimeoutMs: 20 }))).toBe(SIZE);
  });

  it('goes on where it was when the broker comes back, without using up its tries', async () => {
    let n = 0;
    respond = () => {
      // The sixth request leaves after the first answers are in: four go at once.
      if (++n === 6) setImmediate(() => bus.lose());
      return n > 5 && !bus.connected ? undefined : {};
    };
    const f = await fetcher({ requestTimeoutMs: 20 });
    let held = 0;
    const done = f.fetch(big.ref, { signal: new AbortController().signal, onBytes: (bytes) => (held += bytes) });
    await eventually(() => !bus.connected, 'the connection to break');
    await new Promise((resolve) => setTimeout(resolve, 20 * 4 * 4));
    respond = () => ({});
    const [before, heldBefore] = [requests.length, held];
    expect(heldBefore).toBeGreaterThan(0);
    bus.restore();
    await done;
    expect(held).toBe(SIZE);
    expect(await store.has(big.ref)).toBe(true);
    // On a slow machine a chunk may be asked for twice; none that was there already is.
    expect(new Set(requests.slice(before).map(({ offset }) => offset)).size).toBe((SIZE - heldBefore) / CHUNK);
  });

  it('does not ask again, on a slow link, for what takes no longer than what came before', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    undo.push(() => vi.useRealTimers());
    respond = () => undefined;
    const gateway = broker.bus('slow');
    const f = await fetcher({ requestTimeoutMs: 3000, chunkBytes: 250 });
    let isDone = false;
    const done = fetched(f).finally(() => {
      isDone = true;
    });
    const turnsUntil = async (condition: () => boolean) => {
      while (!isDone && !condition()) await new Promise((resolve) => setImmediate(resolve));
    };
    // Four seconds for each chunk, in the order in which they were asked for. Files are written in a time of their own.
    for (let sent = 0; !isDone; sent++) {
      await turnsUntil(() => requests.length > sent);
      const request = requests[sent];
      if (request === undefined) break;
      vi.advanceTimersByTime(4000);
      const { id, sha256, offset, length } = request;
      const data = big.bytes.subarray(offset, offset + length);
      await gateway.publish(topics.blobChunk('a'), { id, sha256, offset, totalBytes: SIZE, code: '', data });
      await turnsUntil(() => store.partBytes(sha256) >= offset + length);
    }
    expect(await done).toBe(SIZE);
    // Until it is known how slow the link is, some is asked for twice.
    const late = requests.map(({ offset }) => offset).filter((offset) => offset >= (3 / 4) * SIZE);
    expect(late).toHaveLength(10);
  });

  it('fetches small blobs side by side, as many bytes as a window holds, and a large one alone', async () => {
    const small = Array.from({ length: 30 }, (_, i) => blob(Buffer.alloc(CHUNK / 2, i)));
    const bytesOf = new Map([...small, big].map((b) => [b.ref.sha256, b]));
    respond = ({ sha256, offset, length }) => {
      const of = bytesOf.get(sha256);
      return { totalBytes: of?.ref.sizeBytes ?? 0, data: of?.bytes.subarray(offset, offset + length) ?? Buffer.alloc(0) };
    };
    const answer = respond;
    const f = await fetcher({ window: 7, requestTimeoutMs: 100, maxTries: 20 });
    let bytes = 0;
    const call = { signal: new AbortController().signal, onBytes: (n: number) => (bytes += n) };
    const asked = () => new Set(requests.map(({ sha256, offset }) => `${sha256} ${offset}`)).size;
    /** How much is asked for while nothing comes. */
    const fetchAll = async (blobs: readonly ToyBlob[]): Promise<number> => {
      requests = [];
      respond = () => undefined;
      const done = f.fetchAll(
        blobs.map((b) => b.ref),
        call,
      );
      await eventually(() => asked() > 3, 'requests');
      await new Promise((resolve) => setTimeout(resolve, 50));
      const most = asked();
      respond = answer;
      await done;
      return most;
    };
    const warnings: Error[] = [];
    const warned = (warning: Error) => warnings.push(warning);
    process.on('warning', warned);
    undo.push(() => process.off('warning', warned));
    expect(await fetchAll(small)).toBe(14);
    expect(bytes).toBe(15 * CHUNK);
    expect(await fetchAll([big, ...small.slice(0, 1)])).toBe(7);
    expect(warnings).toEqual([]);
    for (const b of [...small, big]) expect(await store.has(b.ref)).toBe(true);
  });

  it('ends the others when one of several fails, keeps what they have, and says why', async () => {
    const [lost, found] = [blob('lost'), blob('found')];
    respond = ({ sha256 }) => (sha256 === lost.ref.sha256 ? { code: 'BLOB_NOT_FOUND', data: Buffer.alloc(0) } : undefined);
    const f = await fetcher({ requestTimeoutMs: 60_000 });
    const call = { signal: new AbortController().signal, onBytes: () => undefined };
    await expect(f.fetchAll([found.ref, lost.ref], call)).rejects.toMatchObject({ code: 'BLOB_NOT_FOUND' });
    // No file is open any more: the same blobs can be fetched at once.
    respond = ({ sha256 }) => {
      const { bytes } = sha256 === lost.ref.sha256 ? lost : found;
      return { totalBytes: bytes.length, data: bytes };
    };
    await f.fetchAll([found.ref, lost.ref], call);
    expect(await store.has(lost.ref)).toBe(true);
  });

  it('ends at once when it is aborted or stopped, and keeps what it has', async () => {
    respond = (r) => (r.offset < 2000 ? {} : undefined);
    const abort = new AbortController();
    const f = await fetcher({ requestTimeoutMs: 10_000 });
    const done = fetched(f, big, abort.signal);
    await eventually(() => store.partBytes(big.ref.sha256) === 2000, 'two chunks');
    abort.abort(new Error('enough'));
    await expect(done).rejects.toThrow('enough');
    const again = fetched(f);
    await eventually(() => requests.length > 8, 'requests');
    await f.stop();
    await expect(again).rejects.toMatchObject({ code: 'STOPPED' });
    expect(store.partBytes(big.ref.sha256)).toBe(2000);
  });
});
