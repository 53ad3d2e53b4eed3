import { appendFile, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Problems } from '../problems.js';
import { ProfileCache } from './cache.js';

const DEVICE = { fingerprint: 'aaa', engine: 'e', engineVersion: '1' };

let directory: string;
let file: string;
let problems: Problems;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-profiles-'));
  file = join(directory, 'aaa.json');
  problems = new Problems();
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const opened = (): Promise<ProfileCache> => ProfileCache.open({ directory, problems, log: () => undefined });

function keyOf(block: number) {
  const sizes = { macs: 1, weightBytes: 1, inBytes: 1, outBytes: 1 };
  const need = { what: 'block', nodes: [block, block + 1], cut: 'rows', parts: 1, part: 0, ...sizes, label: 'x', check: false } as const;
  return { model: 'm', need, threads: 1 };
}

async function measure(cache: ProfileCache, block: number, ms: number): Promise<void> {
  const measured = { agent: 'a', samplesMs: [ms], loadMs: 1, loadPeakBytes: 1, runPeakBytes: 1, busy: false };
  cache.set(DEVICE, keyOf(block), `slice ${block}`, measured);
  await cache.flush();
}

/** What is known of the first so many blocks to whoever reads the folder now. */
async function onDisk(blocks: number): Promise<readonly (number | undefined)[]> {
  const cache = await opened();
  return Array.from({ length: blocks }, (_, block) => cache.get(DEVICE, keyOf(block))?.samplesMs[0]);
}

const lines = async (): Promise<number> => (await readFile(file, 'utf8')).split('\n').length - 1;

describe('profiles on disk', () => {
  it('are added to, a line each time, and the last word of each counts', async () => {
    const cache = await opened();
    await measure(cache, 0, 10);
    const { ino, size } = await stat(file);
    for (let block = 1; block < 20; block++) await measure(cache, block, 10 + block);
    await measure(cache, 3, 7);
    const after = await stat(file);
    expect(after.ino).toBe(ino);
    // One entry each time, not all of them.
    expect(after.size).toBeLessThan(22 * size);
    expect(await lines()).toBe(21);
    expect(await onDisk(20)).toEqual(Array.from({ length: 20 }, (_, block) => (block === 3 ? 7 : 10 + block)));
    // Whoever goes on adds to it, too.
    await measure(await opened(), 1, 5);
    expect(await lines()).toBe(22);
    expect((await onDisk(2))[1]).toBe(5);
  });

  it('are written whole again when what was added is as much', async () => {
    const cache = await opened();
    let most = 0;
    for (let block = 0; block < 1500; block++) {
      // As many as are measured within the time that is waited for more.
      cache.set(DEVICE, keyOf(block % 300), 'slice', {
        ...{ agent: 'a', samplesMs: Array.from({ length: 30 }, (_, i) => block + i / 1000), busy: false },
        ...{ loadMs: 1, loadPeakBytes: 1, runPeakBytes: 1 },
      });
      if (block % 5 !== 0) continue;
      await cache.flush();
      most = Math.max(most, (await stat(file)).size);
    }
    await cache.close();
    const whole = Buffer.byteLength((await readFile(file, 'utf8')).split('\n')[0] ?? '');
    expect(most).toBeLessThan(whole + Math.max(whole, 256 * 1024));
    // In as many additions as there were it would be five times as long.
    expect(await lines()).toBeLessThan(300);
    expect(await onDisk(300)).toEqual(Array.from({ length: 300 }, (_, block) => 1200 + block));
  });

  it('lack only what was being added when the gateway was killed', async () => {
    const cache = await opened();
    for (let block = 0; block < 3; block++) await measure(cache, block, 10 + block);
    const { size } = await stat(file);
    await truncate(file, size - 20);
    const again = await opened();
    expect([0, 1, 2].map((block) => again.get(DEVICE, keyOf(block))?.samplesMs[0])).toEqual([10, 11, undefined]);
    expect(problems.all()).toEqual([]);
    // Not behind half a line.
    await measure(again, 2, 13);
    expect(await onDisk(3)).toEqual([10, 11, 13]);
    expect(await lines()).toBe(1);
  });

  it.each([
    ['a figure that was changed', (text: string) => text.replace('"samplesMs":[11]', '"samplesMs":[12]')],
    ['another seal', (text: string) => `${text}{"sha256":"0","added":{}}\n`],
    ['nothing in it', (text: string) => `${text}\n`],
  ])('are put aside when an added line has %s', async (_what, change) => {
    const cache = await opened();
    for (let block = 0; block < 2; block++) await measure(cache, block, 10 + block);
    const good = await readFile(file, 'utf8');
    expect(change(good)).not.toBe(good);
    await writeFile(file, change(good));
    expect(await onDisk(2)).toEqual([undefined, undefined]);
    expect(problems.all().join()).toContain('put aside');
    expect(await readdir(directory)).toEqual(['aaa.json.unusable']);
  });

  it('are written whole when the file was taken away meanwhile, or cannot be added to', async () => {
    const cache = await opened();
    await measure(cache, 0, 10);
    await rm(file);
    await measure(cache, 1, 11);
    expect(await onDisk(2)).toEqual([10, 11]);
  });

  it('are read as they were kept before anything was added', async () => {
    const cache = await opened();
    await measure(cache, 0, 10);
    const [first = ''] = (await readFile(file, 'utf8')).split('\n');
    for (const end of ['', '\n']) {
      await writeFile(file, first);
      await appendFile(file, end);
      expect(await onDisk(1)).toEqual([10]);
      await measure(await opened(), 1, 11);
      expect(await onDisk(2)).toEqual([10, 11]);
    }
  });
});
