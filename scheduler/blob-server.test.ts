import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { decodeBlobChunk } from '../broker/activation.js';
import { encode } from '../broker/codec.js';
import { createFakeBroker } from '../broker/fake-bus.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import type { BlobChunk, BlobRequest } from '../broker/messages.js';
import { topicsOf } from '../broker/topics.js';
import { BlobServer, MAX_CHUNK_BYTES } from './blob-server.js';

const topics = topicsOf('test');
let folder = '';
let server: BlobServer;
let beside: (from: string, request: Partial<BlobRequest>, answer: LaneMessage['answer'], isGone?: () => boolean) => void;
let lines: string[] = [];
let ask: (request: Partial<BlobRequest>) => Promise<BlobChunk>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chair-blobs-'));
  await mkdir(join(folder, 'store'));
  const broker = createFakeBroker();
  let handler: (message: LaneMessage) => void = () => undefined;
  const lanes: Pick<Lanes, 'on'> = {
    on: (topic, handle) => {
      expect(topic).toBe(topics.blobRequest.name);
      handler = handle;
      return () => undefined;
    },
  };
  beside = (from, request, answer, isGone = () => false) => {
    const payload = encode('BlobRequest', { agent: from, id: 'r', sha256: '', offset: 0, length: 100, ...request });
    handler({
      topic: topics.blobRequest.name,
      payload: [payload],
      payloadBytes: payload.length,
      from,
      relayed: false,
      isGone,
      ...(answer && { answer }),
    });
  };
  lines = [];
  const log = (line: string) => lines.push(line);
  const directory = join(folder, 'store');
  server = new BlobServer({ bus: broker.bus('scheduler'), lanes, topics, directory, stuckMs: 20, log, nowMs: () => 0 });
  await server.start();
  const agent = broker.bus('a');
  const waiting = new Map<string, (chunk: BlobChunk) => void>();
  await agent.subscribe(topics.blobChunk('a'), (chunk) => waiting.get(chunk.id)?.(chunk));
  let count = 0;
  ask = (request) =>
    new Promise((resolve) => {
      const id = `r${count++}`;
      waiting.set(id, resolve);
      void agent.publish(topics.blobRequest, { agent: 'a', id, sha256: '', offset: 0, length: 100, ...request });
    });
});
afterEach(async () => {
  await server.stop();
  await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function put(bytes: Uint8Array): Promise<string> {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await writeFile(join(folder, 'store', sha256), bytes);
  return sha256;
}

describe('blob server', () => {
  it('serves a blob in chunks, in any order and many at once', async () => {
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * 31) % 251);
    const sha256 = await put(bytes);
    const offsets = Array.from({ length: 50 }, (_, i) => i * 100).reverse();
    const chunks = await Promise.all(offsets.map((offset) => ask({ sha256, offset })));
    const joined = new Uint8Array(5000);
    for (const chunk of chunks) joined.set(chunk.data, chunk.offset);
    expect(chunks.every((chunk) => chunk.code === '' && chunk.totalBytes === 5000)).toBe(true);
    expect(Buffer.compare(joined, bytes)).toBe(0);
    expect(server.bytesSent).toBe(5000);
  });

  it('bounds a chunk, and gives nothing behind the end', async () => {
    const sha256 = await put(new Uint8Array(MAX_CHUNK_BYTES + 10));
    expect((await ask({ sha256, length: 100 * MAX_CHUNK_BYTES })).data.length).toBe(MAX_CHUNK_BYTES);
    expect((await ask({ sha256, offset: MAX_CHUNK_BYTES, length: 100 })).data.length).toBe(10);
    expect((await ask({ sha256, offset: 10 * MAX_CHUNK_BYTES })).data.length).toBe(0);
    expect((await ask({ sha256, offset: -1 })).code).toBe('CODEC_LIMIT');
  });

  it('answers on the connection that a request came on, without a word to the broker', async () => {
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => (i * 31) % 251);
    const sha256 = await put(bytes);
    const got: Uint8Array[] = [];
    const answer: LaneMessage['answer'] = async (topic, segments) => {
      const { header, data } = decodeBlobChunk(segments);
      expect([topic, header.totalBytes, header.code]).toEqual([topics.blobChunk('b').name, 5000, '']);
      got[header.offset] = Buffer.concat(data.rest);
      return true;
    };
    for (const offset of [4000, 0, 2000]) beside('b', { sha256, offset, length: 2000 }, answer);
    await vi.waitFor(() => expect(server.bytesSent).toBe(5000));
    expect(Buffer.concat([0, 2000, 4000].flatMap((offset) => got[offset] ?? [])).equals(bytes)).toBe(true);
  });

  it('takes a request only in the name of whoever it is from', async () => {
    const sha256 = await put(new Uint8Array(100));
    const answer = vi.fn(async () => true);
    expect(() => beside('b', { agent: 'c', sha256 }, answer)).toThrow(expect.objectContaining({ code: 'SENDER_WRONG' }));
    expect((await ask({ sha256 })).code).toBe('');
    expect(answer).not.toHaveBeenCalled();
  });

  it('keeps nobody waiting for agents that do not read, and uses no buffer again while a socket has it', async () => {
    const sha256 = await put(Buffer.alloc(300_000, 'x'));
    const held: Uint8Array[] = [];
    const hang: LaneMessage['answer'] = (_, segments) => {
      held.push(...segments.slice(1));
      return new Promise(() => undefined);
    };
    // More than are served at once.
    for (let i = 0; i < 200; i++) beside(`stuck-${i % 20}`, { sha256, length: 300_000 - i }, hang);
    for (let i = 0; i < 20; i++) expect((await ask({ sha256, offset: i * 1000, length: 10_000 })).data.length).toBe(10_000);
    // Two each, and no more in memory.
    await vi.waitFor(() => expect(held).toHaveLength(40));
    const other = await put(Buffer.alloc(300_000, 'y'));
    expect((await ask({ sha256: other, length: 300_000 })).data[0]).toBe(121);
    expect(held.every((data) => data.length > 299_900 && Buffer.alloc(data.length, 'x').equals(data))).toBe(true);
    expect(new Set(held.map(({ buffer }) => buffer)).size).toBe(40);
  });

  it('answers once what waits and is asked for again, and where it was asked for last', async () => {
    const sha256 = await put(new Uint8Array(1000));
    const order: string[] = [];
    const answer = (way: string): LaneMessage['answer'] => {
      return async (_, segments) => order.push(`${way} ${decodeBlobChunk(segments).header.offset}`) > 0;
    };
    for (const way of ['first', 'second']) for (let i = 0; i < 5; i++) beside('slow', { sha256, offset: i, length: 1 }, answer(way));
    await vi.waitFor(() => expect(order).toHaveLength(7));
    // Two were on their way already.
    expect(order.toSorted()).toEqual(['first 0', 'first 1', 'second 0', 'second 1', 'second 2', 'second 3', 'second 4']);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(order).toHaveLength(7);
  });

  it('serves agents in turn: many requests of one do not come before one of another', async () => {
    const sha256 = await put(new Uint8Array(100));
    const order: string[] = [];
    const answer = (name: string): LaneMessage['answer'] => {
      return async () => order.push(name) > 0;
    };
    for (let i = 0; i < 40; i++) beside('greedy', { sha256, offset: i, length: 1 }, answer('greedy'));
    beside('modest', { sha256 }, answer('modest'));
    await vi.waitFor(() => expect(order).toHaveLength(41), { timeout: 20_000 });
    expect(order.indexOf('modest')).toBeLessThan(10);
  });

  it('drops the requests of a connection that has ended, and says once what was not sent', async () => {
    const sha256 = await put(new Uint8Array(100));
    let gone = false;
    const broken = vi.fn(() => {
      gone = true;
      return Promise.reject(new Error('the lane broke'));
    });
    for (let i = 0; i < 64; i++) beside('flood', { sha256, offset: i, length: 1 }, broken, () => gone);
    await vi.waitFor(() => expect(lines).toEqual(['a chunk for flood was not sent: the lane broke']), { timeout: 20_000 });
    // It has come back, and is served behind what it asked for before.
    const again = vi.fn(async () => true);
    beside('flood', { sha256 }, again);
    await vi.waitFor(() => expect(again).toHaveBeenCalled(), { timeout: 20_000 });
    expect(broken.mock.calls.length).toBeLessThanOrEqual(2);
    expect(lines).toHaveLength(1);
  });

  it('names nothing but blobs: no path leads out of the store', async () => {
    await writeFile(join(folder, 'secret'), 'secret');
    for (const sha256 of ['../secret', `${'../'.repeat(20)}etc/passwd`, '', 'a'.repeat(63), 'A'.repeat(64), `${'a'.repeat(64)}\0`]) {
      const { code, data } = await ask({ sha256 });
      expect([code, data.length]).toEqual(['BLOB_NOT_FOUND', 0]);
    }
    expect((await ask({ sha256: 'a'.repeat(64) })).code).toBe('BLOB_NOT_FOUND');
  });
});
