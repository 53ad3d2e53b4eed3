import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ChairError } from '../broker/errors.js';
import { nextTerm } from './term.js';

let directory: string;
let damage: ChairError[];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-term-'));
  damage = [];
});
afterEach(() => rm(directory, { recursive: true, force: true }));
const next = (atLeast = 0): Promise<number> => nextTerm(directory, atLeast, (error) => damage.push(error));

describe('the next term', () => {
  it('is one more than the last, and more than any that agents have obeyed', async () => {
    expect([await next(), await next(), await next(40), await next(7)]).toEqual([1, 2, 41, 42]);
    expect(damage).toEqual([]);
  });

  it('is taken anew when the file is damaged, which is said; the file is kept for people', async () => {
    for (const wrong of ['', '7', '\0\0', `1e300\nsha256 ${'0'.repeat(64)}\n`]) {
      await writeFile(join(directory, 'term'), wrong);
      expect(await next(3)).toBe(4);
    }
    expect(damage.map(({ code }) => code)).toEqual(new Array(4).fill('STATE_DAMAGED'));
    expect((await readdir(directory)).sort()).toEqual(['term', 'term.damaged']);
  });

  it('is none when it cannot be written: a scheduler must not reign in a term that it may forget', async () => {
    await rm(directory, { recursive: true });
    await expect(next()).rejects.toThrow();
  });
});
