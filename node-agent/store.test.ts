import { readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BlobStore, type StoreOptions } from './store.js';
import { blob, folder, type ToyBlob } from './test-world.js';

const undo: (() => unknown)[] = [];
let directory = '';
const open: BlobStore[] = [];
beforeEach(async () => {
  directory = await folder(undo);
});
afterEach(async () => {
  for (const store of open.splice(0)) await store.close();
  for (const u of undo.splice(0).reverse()) await u();
});

async function storeOf(options: Partial<StoreOptions> = {}): Promise<BlobStore> {
  const store = await BlobStore.open({ directory, limitBytes: 1e6, diskFreeBytes: async () => 1e9, ...options });
  open.push(store);
  return store;
}

async function put(store: BlobStore, { ref, bytes }: ToyBlob): Promise<void> {
  const part = await store.openPart(ref);
  await part.append(bytes.subarray(part.length));
  await part.finish();
}

/** Reopened as by a new process. */
async function restarted(store: BlobStore, options: Partial<StoreOptions> = {}): Promise<BlobStore> {
  await store.close();
  return storeOf(options);
}

const big = (fill: string, size = 1000) => blob(fill.repeat(size));

describe('the slice store', () => {
  it('keeps a blob under its hash, also after a restart', async () => {
    let store = await storeOf();
    const b = big('a');
    expect(await store.has(b.ref)).toBe(false);
    await put(store, b);
    expect(await store.has(b.ref)).toBe(true);
    store = await restarted(store);
    expect(await store.has(b.ref)).toBe(true);
    expect(await readFile(store.path(b.ref.sha256))).toEqual(b.bytes);
    expect(store.usedBytes).toBe(1000);
  });

  it('continues an unfinished blob after a restart', async () => {
    let store = await storeOf();
    const b = big('a');
    const part = await store.openPart(b.ref);
    await part.append(b.bytes.subarray(0, 400));
    await part.suspend();
    store = await restarted(store);
    expect(store.partBytes(b.ref.sha256)).toBe(400);
    const again = await store.openPart(b.ref);
    expect(again.length).toBe(400);
    await again.append(b.bytes.subarray(400));
    await again.finish();
    expect(await store.has(b.ref)).toBe(true);
  });

  it('refuses bytes that do not hash to the name and keeps nothing of them', async () => {
    const store = await storeOf();
    const b = big('a');
    const part = await store.openPart(b.ref);
    await part.append(big('b').bytes);
    await expect(part.finish()).rejects.toMatchObject({ code: 'BLOB_CORRUPT' });
    expect(store.partBytes(b.ref.sha256)).toBe(0);
    expect(store.usedBytes).toBe(0);
    await put(store, b);
    expect(await store.has(b.ref)).toBe(true);
  });

  it('finds a byte that flipped on the disk at the first use after a restart', async () => {
    let store = await storeOf();
    const b = big('a');
    await put(store, b);
    const bytes = Buffer.from(b.bytes);
    bytes[500] = 98;
    await writeFile(store.path(b.ref.sha256), bytes);
    store = await restarted(store);
    expect(store.list()).toEqual([b.ref.sha256]);
    expect(await store.has(b.ref)).toBe(false);
    expect(store.list()).toEqual([]);
  });

  it('looks again at a blob that it is told to distrust', async () => {
    const store = await storeOf();
    const b = big('a');
    await put(store, b);
    await writeFile(store.path(b.ref.sha256), big('b').bytes);
    expect(await store.has(b.ref)).toBe(true);
    store.distrust(b.ref.sha256);
    expect(await store.has(b.ref)).toBe(false);
  });

  it('evicts what was used longest ago, never what is pinned, and only as much as it must', async () => {
    let now = Date.now();
    const options = { limitBytes: 3000, nowMs: () => (now += 1000) };
    let store = await storeOf(options);
    const [a, b, c] = [big('a'), big('b'), big('c')];
    for (const x of [a, b, c]) await put(store, x);
    await store.has(a.ref);
    store = await restarted(store, options);
    store.pin(b.ref.sha256);
    await store.makeRoom(500);
    expect(store.list().sort()).toEqual([a.ref.sha256, b.ref.sha256].sort());
  });

  it('says what it needs and what it has when nothing more can go, and evicts nothing then', async () => {
    const store = await storeOf({ limitBytes: 3000 });
    const [a, b] = [big('a'), big('b')];
    await put(store, a);
    await put(store, b);
    store.pin(a.ref.sha256);
    await expect(store.makeRoom(2500)).rejects.toMatchObject({
      code: 'AGENT_STORE_FULL',
      message: expect.stringMatching(/expected 2500 bytes .* got 2000 bytes free .*limit 3000, 2000 used/),
    });
    expect(store.list()).toHaveLength(2);
  });

  it('counts the free disk as well as its own limit', async () => {
    const store = await storeOf({ limitBytes: 1e9, diskFreeBytes: async () => 16 * 2 ** 20 + 700 });
    expect(await store.freeBytes()).toBe(700);
    await expect(store.makeRoom(701)).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
  });

  it('reports a disk that fills up while writing as full', async () => {
    const store = await storeOf();
    const b = big('a');
    // A device that has no room for anything (Linux, full(4)).
    await symlink('/dev/full', `${store.path(b.ref.sha256)}.part`);
    const part = await store.openPart(b.ref);
    await expect(part.append(b.bytes)).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
    expect(part.length).toBe(0);
    await part.suspend();
  });

  it('writes pieces one after another, also where the system takes fewer bytes than it is given', async () => {
    const store = await storeOf();
    const b = blob(Buffer.from(Array.from({ length: 1000 }, (_, i) => i & 255)));
    const part = await store.openPart(b.ref);
    const { handle } = part as unknown as { handle: { writev: (pieces: readonly Uint8Array[]) => Promise<{ bytesWritten: number }> } };
    const writev = handle.writev.bind(handle);
    let writes = 0;
    handle.writev = (pieces) => writev([Buffer.concat(pieces).subarray(0, 30 + (++writes % 3) * 35)]);
    const cuts = [0, 1, 1, 100, 165, 166, 600, 999, 1000];
    await part.append(...cuts.slice(1).map((end, i) => b.bytes.subarray(cuts[i], end)));
    expect(writes).toBeGreaterThan(10);
    expect(part.length).toBe(1000);
    await part.finish();
    expect(await readFile(store.path(b.ref.sha256))).toEqual(b.bytes);
  });

  it.each(['../../etc/passwd', 'A'.repeat(64), ''])('refuses the blob name %j', async (name) => {
    const store = await storeOf();
    expect(() => store.path(name)).toThrow(expect.objectContaining({ code: 'PLAN_INVALID' }));
  });
});

describe('one process per store', () => {
  it('a second agent on a folder is refused while the first lives', async () => {
    const store = await storeOf();
    await expect(BlobStore.open({ directory, limitBytes: 1 })).rejects.toMatchObject({ code: 'AGENT_NAME_TAKEN' });
    await restarted(store);
  });

  it('another live process keeps it, a dead one does not', async () => {
    const lock = path.join(directory, 'lock');
    // The parent of this process lives; its start time is not known here, so only the pid counts.
    await writeFile(lock, `${process.ppid} \n`);
    await expect(BlobStore.open({ directory, limitBytes: 1 })).rejects.toMatchObject({
      code: 'AGENT_NAME_TAKEN',
      message: expect.stringContaining(`process ${process.ppid}`),
    });
    // The same pid with another start time is another process.
    await writeFile(lock, `${process.ppid} 1\n`);
    await (await storeOf()).close();
    await writeFile(lock, '4194304 123\n');
    await (await storeOf()).close();
    await writeFile(lock, 'torn');
    await (await storeOf()).close();
  });
});
