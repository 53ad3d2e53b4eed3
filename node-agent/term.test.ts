import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TermFile } from './term.js';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'chair-term-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const STALE = { code: 'TERM_STALE' };

describe('the term', () => {
  it('only grows, also over restarts', async () => {
    const first = await TermFile.open(directory);
    expect(first).toMatchObject({ value: 0, scheduler: '', damage: undefined });
    await first.obey(3, 'a');
    await first.obey(7, 'b');
    await expect(first.obey(3, 'a')).rejects.toMatchObject(STALE);
    const second = await TermFile.open(directory);
    expect(second).toMatchObject({ value: 7, scheduler: 'b' });
    await expect(second.obey(6, 'b')).rejects.toMatchObject(STALE);
    await second.obey(7, 'b');
  });

  it('belongs to the scheduler that was there first: another one that counted to it is refused, also after a restart', async () => {
    const first = await TermFile.open(directory);
    await first.obey(1, 'a');
    await expect(first.obey(1, 'b')).rejects.toMatchObject(STALE);
    const second = await TermFile.open(directory);
    await expect(second.obey(1, 'b')).rejects.toMatchObject(STALE);
    await second.obey(2, 'b');
    await expect(second.obey(1, 'a')).rejects.toMatchObject(STALE);
  });

  it('fences from the call on, and resolves only when it is on the disk', async () => {
    const term = await TermFile.open(directory);
    const under = [term.obey(4, 'a'), term.obey(5, 'b'), term.obey(5, 'b')];
    await expect(term.obey(4, 'a')).rejects.toMatchObject(STALE);
    await Promise.all(under);
    expect((await TermFile.open(directory)).value).toBe(5);
  });

  it('that no scheduler can have reached is refused, as it would lock out all others', async () => {
    const term = await TermFile.open(directory);
    for (const wrong of [2 ** 41, Number.MAX_SAFE_INTEGER, -1, Number.NaN]) {
      await expect(term.obey(wrong, 'a')).rejects.toMatchObject({ code: 'CODEC_LIMIT' });
    }
    await term.obey(1, 'a');
  });

  it('is not obeyed while it cannot be written, and is once it can', async () => {
    const gone = path.join(directory, 'gone');
    await mkdir(gone);
    const term = await TermFile.open(gone);
    await rm(gone, { recursive: true });
    await expect(term.obey(2, 'a')).rejects.toThrow();
    await expect(term.obey(2, 'a')).rejects.toThrow();
    await expect(term.obey(1, 'a')).rejects.toMatchObject(STALE);
    await mkdir(gone);
    await term.obey(2, 'a');
    expect((await TermFile.open(gone)).value).toBe(2);
  });

  it('in a file with a flipped byte is not believed: it is put aside, and said', async () => {
    await (await TermFile.open(directory)).obey(41, 'a');
    const file = path.join(directory, 'term');
    const bytes = await readFile(file);
    bytes[0] = (bytes[0] ?? 0) ^ 1;
    await writeFile(file, bytes);
    const term = await TermFile.open(directory);
    expect(term).toMatchObject({ value: 0, damage: { code: 'STATE_DAMAGED' } });
    expect(await readdir(directory)).toEqual(['term.damaged']);
    await term.obey(1, 'b');
    expect(await TermFile.open(directory)).toMatchObject({ value: 1, damage: undefined });
  });
});
