/** The state folder of a process that is killed while it writes, again and again. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const WRITER = fileURLToPath(new URL('./test-state-writer.ts', import.meta.url));
const ROUNDS = 4;
const KINDS = ['term', 'deployment', 'links', 'corrections', 'profiles'] as const;
type Counts = Readonly<Record<(typeof KINDS)[number], number>>;

interface Start {
  readonly found: Counts;
  readonly problems: readonly string[];
  readonly leftovers: readonly string[];
  readonly there: readonly string[];
}

interface Round {
  readonly start: Start;
  /** What it said last to be on the disk. */
  readonly acknowledged: Readonly<Record<string, number>>;
  /** Of the deployment that comes and goes: the word said last. */
  readonly lastWord: string;
  readonly lines: number;
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-killed-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** Starts the writer and kills it `afterMs` after it has said so many lines. */
async function round({ lines: most, afterMs }: { readonly lines: number; readonly afterMs: number }): Promise<Round> {
  const child = spawn(process.execPath, ['--import', TSX, WRITER, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', () => text.split('\n').length > most + 1 && resolve());
    void ended.then((code) => reject(new Error(`the writer ended with ${code}`)));
  });
  await delay(afterMs);
  child.kill('SIGKILL');
  await ended;
  // The last line may be cut off.
  const lines = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const [start, ...acknowledged] = lines;
  const lastWord = Object.keys(acknowledged.filter((line) => 'comes' in line || 'gone' in line).at(-1) ?? {})[0] ?? '';
  return { start: start as unknown as Start, acknowledged: Object.assign({}, ...acknowledged), lastWord, lines: acknowledged.length };
}

describe('the state of a gateway that is killed while it writes', { timeout: 120_000 }, () => {
  it('is whole, with all that was said to be on the disk, each time', async () => {
    const whole = (most: number): number => Math.floor(Math.random() * most);
    const moments = Array.from({ length: ROUNDS }, () => ({ lines: 1 + whole(15), afterMs: whole(40) }));
    let before: Round | undefined;
    let written = 0;
    for (const moment of [...moments, { lines: 0, afterMs: 0 }]) {
      const now = await round(moment);
      const said = `killed after ${JSON.stringify(moments)}`;
      expect(now.start.problems, said).toEqual([]);
      expect(now.start.leftovers, said).toEqual([]);
      for (const kind of KINDS) {
        const known = before?.acknowledged[kind] ?? 0;
        expect(now.start.found[kind], `${kind}: ${said}`).toBeGreaterThanOrEqual(known);
        // At most the write that was under way came on top.
        expect(now.start.found[kind], `${kind}: ${said}`).toBeLessThanOrEqual(
          Math.max(known, ...Object.values(before?.start.found ?? {})) + 2,
        );
      }
      // Gone, and the next round of writes had not come to it: then it stays away.
      if (before?.lastWord === 'comes') expect(now.start.there.length, said).toBeGreaterThanOrEqual(1);
      written += now.lines;
      before = now;
    }
    // Else nothing was tried.
    expect(written).toBeGreaterThanOrEqual(ROUNDS);
  });
});
