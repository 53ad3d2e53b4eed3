import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { KeptRows } from './kept-rows.js';
import { Problems } from './problems.js';

it('rows that could not be written are a problem that is shown, and are written as soon as they can be', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'chair-rows-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const problems = new Problems();
  const options = { file: join(directory, 'not there yet', 'rows'), format: 1, what: 'rows', lost: 'lost', unsaved: 'not kept' };
  const kept = new KeptRows<number>({ ...options, soonMs: 0, laterMs: 20, problems, log: () => undefined });
  let rows = [1];
  kept.changed(() => rows, true);
  await kept.flush();
  expect(problems.all()[0]).toMatch(/^not kept: /);
  rows = [1, 2];
  await mkdir(join(directory, 'not there yet'));
  await expect.poll(() => problems.all(), { timeout: 10_000 }).toEqual([]);
  // As they are then.
  expect(await kept.load()).toEqual([1, 2]);
});
