import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { compiled } from '../e2e/compiled.js';
import { atLeast, atMost, figure, interleaved, quantile } from './figures.js';
import { BENCHES } from './index.js';
import { markdown, numberText } from './report.js';

const MACHINE = {
  processor: 'CPU',
  cores: 2,
  memoryBytes: 2 ** 31,
  kernel: '6.1',
  architecture: 'x64',
  node: 'v20',
  loadBefore: 0.1,
  busyBefore: 0.02,
  quiet: true,
};
const REPORT = { name: 'net', commit: 'abc', date: '2026-01-01', machine: MACHINE, conditions: { agents: [1, 1, 2], why: '' } };

describe('a figure', () => {
  it('is the median of its samples with their quartiles, whatever their order', () => {
    const { value, spread, samples } = figure('x', 'ms', [5, 1, 4, 2, 3]);
    expect({ value, spread, samples }).toEqual({ value: 3, spread: [2, 4], samples: [5, 1, 4, 2, 3] });
    expect(quantile([1, 2], 0.5)).toBe(1.5);
  });

  it('is met at its bound, missed beyond it, and neither without a target', () => {
    expect(figure('x', 'x', [0.97], atLeast(0.97)).met).toBe(true);
    expect(figure('x', 'x', [0.969], atLeast(0.97)).met).toBe(false);
    expect(figure('x', 'x', [2.6], atMost(2.5)).met).toBe(false);
    expect(figure('x', 'x', [1]).met).toBeNull();
  });

  it('is missed when there was nothing to measure', () => {
    expect(figure('x', 'x', [], atMost(2)).met).toBe(false);
    expect(figure('x', 'x', [Number.NaN], atLeast(0)).met).toBe(false);
  });
});

describe('interleaved pairs', () => {
  it('begin with the other one every time, and keep the samples apart', async () => {
    const order: string[] = [];
    const say = (name: string) => async () => order.push(name);
    const pairs = await interleaved(3, say('a'), say('b'));
    expect(order.join('')).toBe('abbaab');
    expect(pairs).toEqual([
      { a: 1, b: 2 },
      { a: 4, b: 3 },
      { a: 5, b: 6 },
    ]);
  });
});

describe('the report', () => {
  it('is a Markdown table with commit, machine and conditions, misses in bold', () => {
    const text = markdown({ ...REPORT, figures: [figure('speed', 'x', [0.5, 0.6], atLeast(0.9)), figure('time', 'ms', [123.4])] });
    expect(text).toContain('| speed | 0.550x | 0.525 to 0.575 | 2 | >= 0.9 | **no** |');
    expect(text).toContain('| time | 123 ms | 123 to 123 | 1 |  |  |');
    expect(text).toContain('agents 2 x (1), 1 x (2)');
    expect(text).not.toContain('do not count');
  });

  it('says that figures of a busy machine do not count', () => {
    expect(markdown({ ...REPORT, machine: { ...MACHINE, quiet: false }, figures: [] })).toContain('these figures do not count');
  });

  it('writes numbers with three digits', () => {
    expect([1234.5, 12.345, 0.012345, Number.NaN].map(numberText)).toEqual(['1235', '12.3', '0.0123', '-']);
  });
});

describe('npm run bench', () => {
  const [node = '', main = ''] = compiled(new URL('./main.ts', import.meta.url));
  const bench = (...args: string[]) => spawnSync(node, [main, ...args], { encoding: 'utf8' });

  it('names what it can measure when it is asked for something else', () => {
    const { status, stderr } = bench('speed');
    expect(status).toBe(2);
    for (const { name } of BENCHES) expect(stderr).toContain(name);
    expect(stderr).toMatch(/^USAGE: /);
  }, 60_000);

  it('gives one JSON object with figures and raw samples', () => {
    const { status, stdout } = bench('codec', '--quick', '--json');
    expect(status).toBe(0);
    const report = JSON.parse(stdout) as { name: string; figures: { figure: string; samples: number[]; met: boolean | null }[] };
    expect(report).toMatchObject({
      name: 'codec',
      conditions: { quick: true },
      commit: expect.any(String),
      machine: { cores: expect.any(Number) },
    });
    expect(report.figures.every((f) => f.samples.length > 0)).toBe(true);
    expect(report.figures.find((f) => f.figure.includes('copied'))?.met).toBe(true);
  }, 120_000);
});
