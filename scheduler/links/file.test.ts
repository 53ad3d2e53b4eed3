import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Problems } from '../problems.js';
import { LinkFile } from './file.js';
import { LinkKeeper, PLAN_LIMITS } from './keeper.js';

let directory: string;
let problems: Problems;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'chair-links-'));
  problems = new Problems();
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** A gateway's start at this time of its own clock. */
async function start(now: () => number) {
  const file = new LinkFile({ file: join(directory, 'links'), problems, log: () => undefined });
  let measured = 0;
  const keeper = new LinkKeeper({
    ...{
      told: { usual: { bytesPerSecond: 110e6, latencyMs: 1 }, between: new Map() },
      isBusy: () => false,
      sameHost: () => false,
      now,
      file,
    },
    log: () => undefined,
    measure: async (_, peer) => {
      measured++;
      const speeds = { upBytesPerSecond: 5e6, upSpread: 0.02, downBytesPerSecond: 3e6, downSpread: 0.02, bytes: 1e6, tookMs: 100 };
      return { peer, lane: 'direct', roundTripMs: 4, roundTripSpreadMs: 0.1, ...speeds };
    },
  });
  await keeper.load();
  return { file, keeper, measured: () => measured };
}

describe('links on disk', () => {
  it('are known again after a restart, whatever the clock of the process says, and measured again before a plan uses them', async () => {
    const first = await start(() => 5_000_000);
    expect(first.keeper.status()).toEqual([]);
    await first.keeper.ensure([['a', 'b']]);
    await first.file.flush();
    const second = await start(() => 10);
    const known = second.keeper.status();
    expect(known.map(({ from, to, bytesPerSecond, latencyMs }) => [from, to, bytesPerSecond, latencyMs])).toEqual([
      ['a', 'b', 5e6, 2],
      ['b', 'a', 3e6, 2],
    ]);
    for (const { ageMs } of known) expect(ageMs).toBeGreaterThan(PLAN_LIMITS.maxAgeMs);
    expect(second.keeper.links().access.size).toBeGreaterThan(0);
    expect(await second.keeper.ensure([['a', 'b']])).toBe(1);
    expect(second.measured()).toBe(1);
    expect(second.keeper.status()[0]?.ageMs).toBe(0);
    expect(problems.all()).toEqual([]);
  });

  it('are forgotten, and that is said, when their file was changed by something else', async () => {
    const first = await start(() => 0);
    await first.keeper.ensure([['a', 'b']]);
    await first.file.flush();
    const bytes = await readFile(join(directory, 'links'));
    bytes[30] = (bytes[30] ?? 0) ^ 4;
    await writeFile(join(directory, 'links'), bytes);
    const second = await start(() => 0);
    expect(second.keeper.status()).toEqual([]);
    expect(problems.all().join()).toContain('measured again');
    expect(await readdir(directory)).toEqual(['links.damaged']);
  });

  it('cost nothing but a word when they cannot be written, and are written when they can be', async () => {
    await rm(directory, { recursive: true });
    const { file, keeper } = await start(() => 0);
    await keeper.ensure([['a', 'b']]);
    await file.flush();
    expect(problems.all().join()).toContain('not kept over a restart');
    expect(keeper.status()).toHaveLength(2);
    await mkdir(directory);
    await keeper.ensure([['a', 'c']]);
    await file.flush();
    expect(problems.all()).toEqual([]);
    expect((await start(() => 0)).keeper.status()).toHaveLength(4);
  });
});
