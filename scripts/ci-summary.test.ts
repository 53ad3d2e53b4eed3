/** What .ci/run says at its end, of vitest's reports: failures, tests that passed only by themselves, the last line. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const CI = path.join(import.meta.dirname, '..', '.ci');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ci-summary-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** `tests`: name: what it failed with, '' = it passed. */
function report(name: string, files: Record<string, Record<string, string>>): string {
  const testResults = Object.entries(files).map(([file, tests]) => {
    const assertionResults = Object.entries(tests).map(([fullName, why]) => ({
      ...{ fullName, status: why === '' ? 'passed' : 'failed', failureMessages: why === '' ? [] : [why] },
    }));
    const status = assertionResults.some((one) => one.status === 'failed') ? 'failed' : 'passed';
    return { name: path.join(process.cwd(), file), status, message: '', assertionResults };
  });
  return write(name, testResults);
}

function write(name: string, testResults: readonly object[]): string {
  const file = path.join(folder, name);
  writeFileSync(file, JSON.stringify({ testResults }));
  return file;
}

function run(script: string, ...args: string[]): { readonly lines: string[]; readonly status: number | null } {
  const { stdout, stderr, status } = spawnSync(process.execPath, [path.join(CI, script), ...args], { encoding: 'utf8' });
  expect(stderr).toBe('');
  return { lines: stdout.trimEnd().split('\n'), status };
}

describe('the end of CI', () => {
  it('adds up the reports, and holds when all passed', () => {
    const reports = [report('a.json', { 'a.test.ts': { one: '', two: '' } }), report('b.json', { 'b.test.ts': { three: '' } })];
    expect(run('summary.mjs', '0', ...reports)).toEqual({ lines: ['3 passed, 0 failed'], status: 0 });
  });

  it('names what failed, with what it said', () => {
    const { lines, status } = run(
      'summary.mjs',
      '1',
      report('c.json', {
        'a.test.ts': {
          one: 'expected 1 to be 2\n    at /project/a.test.ts:3:1\n    at file:///project/node_modules/runner.js:1:1',
          two: '',
        },
      }),
    );
    expect(lines).toEqual(['failed: a.test.ts > one', '    expected 1 to be 2', '        at /project/a.test.ts:3:1', '1 passed, 1 failed']);
    expect(status).toBe(1);
  });

  it('fails by a part that failed, a report that is missing, a file that did not load, and without a test', () => {
    const good = report('d.json', { 'a.test.ts': { one: '' } });
    expect(run('summary.mjs', '2', good)).toEqual({ lines: ['1 passed, 2 failed'], status: 1 });
    expect(run('summary.mjs', '0', good, path.join(folder, 'none.json'))).toEqual({
      lines: ['the test runner left no report (none.json)', '1 passed, 1 failed'],
      status: 1,
    });
    const broken = write('e.json', [
      { name: path.join(process.cwd(), 'b.test.ts'), status: 'failed', message: 'no such module', assertionResults: [] },
    ]);
    expect(run('summary.mjs', '0', good, broken).status).toBe(1);
    expect(run('summary.mjs', '0', good, broken).lines.at(-1)).toBe('1 passed, 1 failed');
    expect(run('summary.mjs', '0', write('f.json', []))).toEqual({ lines: ['0 passed, 0 failed'], status: 1 });
  });

  it('counts what passed when it ran again by itself, and says so; what fails twice has failed', () => {
    const first = report('g.json', { 'a.test.ts': { one: 'late', two: '' }, 'b.test.ts': { three: 'late', four: '' } });
    const again = report('h.json', { 'a.test.ts': { one: '', two: '' }, 'b.test.ts': { three: 'wrong', four: '' } });
    expect(run('summary.mjs', '1', first, again)).toEqual({
      lines: [
        'failed: b.test.ts > three',
        '    wrong',
        'UNSTEADY: failed beside the other tests, passed by itself: a.test.ts > one',
        '    late',
        '3 passed, 1 failed',
      ],
      status: 1,
    });
  });

  it('lists a few files that failed, to run them again; none when they are many, or when a report is missing', () => {
    const failed = report('i.json', { 'a.test.ts': { one: 'late' }, 'b.test.ts': { two: '' }, 'c.test.ts': { three: 'late' } });
    expect(run('failed.mjs', '2', failed).lines).toEqual(['a.test.ts', 'c.test.ts']);
    expect(run('failed.mjs', '1', failed).lines).toEqual(['']);
    expect(run('failed.mjs', '2', failed, path.join(folder, 'none.json')).lines).toEqual(['']);
  });
});
