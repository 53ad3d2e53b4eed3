import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { putAside, readSealed, writeSealed } from './sealed-file.js';

/** A full disk needs a disk of our own: root can make one. */
function canMount(): boolean {
  const place = mkdtempSync(path.join(tmpdir(), 'chair-mount-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', place], { stdio: 'ignore' });
    execFileSync('umount', [place], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

let directory: string;
let file: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'chair-sealed-'));
  file = path.join(directory, 'state');
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe('a sealed file', () => {
  it('gives back what was written last, and leaves nothing beside it', async () => {
    expect(await readSealed(file)).toBeUndefined();
    for (const text of ['one', 'two\nlines with sha256 in them\n', '', '{"ü": "😀"}']) {
      await writeSealed(file, text, 'INTERNAL');
      expect(await readSealed(file)).toBe(text.endsWith('\n') ? text : `${text}\n`);
    }
    expect(await readdir(directory)).toEqual(['state']);
  });

  it('is refused after any one bit of it was flipped, and wherever it was cut off', async () => {
    await writeSealed(file, 'term 7', 'INTERNAL');
    const good = await readFile(file);
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Buffer.from(good);
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      await writeFile(file, bad);
      await expect(readSealed(file), `bit ${bit}`).rejects.toMatchObject({ code: 'STATE_DAMAGED' });
    }
    for (let length = 0; length < good.length; length++) {
      await writeFile(file, good.subarray(0, length));
      await expect(readSealed(file), `cut at ${length}`).rejects.toMatchObject({ code: 'STATE_DAMAGED' });
    }
    await putAside(file);
    expect(await readdir(directory)).toEqual(['state.damaged']);
    expect(await readSealed(file)).toBeUndefined();
  });

  it.skipIf(!canMount())(
    'stays as it was on a full disk, says so by the code that is asked for, and is written when there is room again',
    async () => {
      const disk = path.join(directory, 'disk');
      await mkdir(disk);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk]);
      try {
        const small = path.join(disk, 'state');
        await writeSealed(small, 'old', 'AGENT_STORE_FULL');
        await writeFile(path.join(disk, 'filler'), Buffer.alloc(2 ** 20)).catch(() => undefined);
        await expect(writeSealed(small, 'new', 'AGENT_STORE_FULL')).rejects.toMatchObject({ code: 'AGENT_STORE_FULL' });
        expect(await readSealed(small)).toBe('old\n');
        expect((await readdir(disk)).sort()).toEqual(['filler', 'state']);
        await rm(path.join(disk, 'filler'));
        await writeSealed(small, 'new', 'AGENT_STORE_FULL');
        expect(await readSealed(small)).toBe('new\n');
      } finally {
        execFileSync('umount', [disk]);
      }
    },
  );

  it('is one of those that were written at the same time, whole', async () => {
    const texts = Array.from({ length: 20 }, (_, i) => `${i}`.repeat(5000));
    await Promise.all(texts.map((text) => writeSealed(file, text, 'INTERNAL')));
    expect(texts.map((text) => `${text}\n`)).toContain(await readSealed(file));
    expect(await readdir(directory)).toEqual(['state']);
  });

  it('says each time the same of the same trouble, which names the file', async () => {
    await mkdir(file);
    const said = [];
    for (let i = 0; i < 2; i++) said.push(await writeSealed(file, 'x', 'INTERNAL').catch(String));
    expect(said[0]).toContain(`'${file}'`);
    expect(said[1]).toBe(said[0]);
  });
});
