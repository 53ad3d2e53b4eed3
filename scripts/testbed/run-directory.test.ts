import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { cleanRun, RunDirectory, startOf, sweepDeadRuns } from './run-directory.js';

const bases: string[] = [];
const base = (): string => {
  const directory = mkdtempSync(path.join(tmpdir(), 'testbed-runs-'));
  bases.push(directory);
  return directory;
};
afterEach(() => {
  for (const directory of bases.splice(0)) rmSync(directory, { recursive: true, force: true });
});

describe('the run directory of a testbed', () => {
  it('is not swept while its owner lives', async () => {
    const runs = base();
    const run = new RunDirectory(runs);
    expect(await sweepDeadRuns(runs)).toEqual([]);
    expect(existsSync(run.path)).toBe(true);
  });

  it('is swept with its processes and folders when the owner is another process under the same pid', async () => {
    const runs = base();
    const run = new RunDirectory(runs);
    const state = run.stateDirectory();
    const child = spawn('sleep', ['60']);
    const gone = new Promise((resolve) => child.once('close', (_, signal) => resolve(signal)));
    run.record({ kind: 'process', pid: child.pid ?? 0, started: startOf(child.pid ?? 0) });
    writeFileSync(path.join(run.path, 'owner.json'), JSON.stringify({ pid: process.pid, started: '1' }));
    expect(await sweepDeadRuns(runs)).toEqual([path.basename(run.path)]);
    expect(await gone).toBe('SIGKILL');
    expect([existsSync(run.path), existsSync(state)]).toEqual([false, false]);
  });

  it('does not kill a process that got the pid of an old one', async () => {
    const run = new RunDirectory(base());
    const child = spawn('sleep', ['60']);
    run.record({ kind: 'process', pid: child.pid ?? 0, started: '1' });
    await cleanRun(run.path);
    expect(startOf(child.pid ?? 0)).not.toBe('');
    child.kill('SIGKILL');
  });

  it('is cleaned although its last line is torn and some things are gone already', async () => {
    const run = new RunDirectory(base());
    run.record({ kind: 'namespace', name: 'musical-chair-no-such-namespace' });
    run.record({ kind: 'group', path: '/sys/fs/cgroup/musical-chair-no-such-group' });
    writeFileSync(path.join(run.path, 'manifest.jsonl'), '{"kind":"proc', { flag: 'a' });
    await cleanRun(run.path);
    expect(existsSync(run.path)).toBe(false);
  });
});
