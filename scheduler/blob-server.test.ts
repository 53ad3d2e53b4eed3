import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeBroker } from '../broker/fake-bus.js';
import type { BlobChunk, BlobRequest } from '../broker/messages.js';
import { topicsOf } from '../broker/topics.js';
import { BlobServer, MAX_CHUNK_BYTES } from './blob-server.js';

const topics = topicsOf('test');
let folder = '';
let server: BlobServer;
let ask: (request: Partial<BlobRequest>) => Promise<BlobChunk>;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'chair-blobs-'));
  await mkdir(join(folder, 'store'));
  const broker = createFakeBroker();
  server = new BlobServer({ bus: broker.bus('scheduler'), topics, directory: join(folder, 'store') });
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

  it('names nothing but blobs: no path leads out of the store', async () => {
    await writeFile(join(folder, 'secret'), 'secret');
    for (const sha256 of ['../secret', `${'../'.repeat(20)}etc/passwd`, '', 'a'.repeat(63), 'A'.repeat(64), `${'a'.repeat(64)}\0`]) {
      const { code, data } = await ask({ sha256 });
      expect([code, data.length]).toEqual(['BLOB_NOT_FOUND', 0]);
    }
    expect((await ask({ sha256: 'a'.repeat(64) })).code).toBe('BLOB_NOT_FOUND');
  });
});
