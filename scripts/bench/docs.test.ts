import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { publish, withResults } from './docs.js';
import { atLeast, figure } from './figures.js';
import { plotSpec } from './plots.js';
import type { Report } from './report.js';

const MACHINE = {
  ...{ processor: 'CPU', cores: 2, memoryBytes: 2 ** 31, kernel: '6.1', architecture: 'x64', node: 'v20' },
  ...{ loadBefore: 0.1, busyBefore: 0.02, quiet: true },
};
const report = (name: string, figures: Report['figures'], over: Partial<Report> = {}): Report => ({
  ...{ name, commit: 'abc', date: '2026-01-01', machine: MACHINE, conditions: {}, figures, seconds: 3 },
  ...over,
});
const SCALING = report('scaling', [
  figure('alexnet, 2 agents: throughput over 2 x the bare engine', 'x', [0.9, 0.95, 1], atLeast(0.92), {
    limit: 'compute (quota of agent-1), 99 %',
  }),
  figure('alexnet, 4 agents: throughput over 4 x the bare engine', 'x', [0.5], atLeast(0.92)),
]);
const PAGE = 'before\n<!-- results: written by npm run bench -- docs DIRECTORY -->\nold\n<!-- end of results -->\nafter\n';

describe('the page of results', () => {
  it('is exchanged between its marks and nowhere else', () => {
    const page = withResults(PAGE, { reports: [SCALING], plots: new Set(['scaling']) });
    expect(page.startsWith('before\n')).toBe(true);
    expect(page.endsWith('<!-- end of results -->\nafter\n')).toBe(true);
    expect(page).not.toContain('old');
    expect(page).toContain('| [scaling](#scaling) | 1 of 2 |');
    expect(page).toContain('(plots/bench-scaling.svg)');
    expect(page).toContain('| limited by |');
    expect(withResults(page, { reports: [SCALING], plots: new Set(['scaling']) })).toBe(page);
  });

  it('says what was not measured and that a busy machine does not count', () => {
    const busy = { ...SCALING, troubles: ['vgg16, 8 agents: the time was over'], machine: { ...MACHINE, quiet: false } };
    const page = withResults(PAGE, { reports: [busy], plots: new Set() });
    expect(page).toContain('**Not measured:** vgg16, 8 agents: the time was over');
    expect(page).toContain('these figures do not count');
  });

  it('is refused without its marks', () => {
    expect(() => withResults('no marks', { reports: [], plots: new Set() })).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
  });
});

describe('publishing', () => {
  const folders: string[] = [];
  afterEach(async () => {
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
  });
  const folder = async (): Promise<string> => {
    const made = await mkdtemp(path.join(tmpdir(), 'bench-docs-'));
    folders.push(made);
    return made;
  };

  it('writes the page, the raw samples and a plot of what can be drawn', async () => {
    const [results, docs] = [await folder(), await folder()];
    await writeFile(path.join(results, 'scaling.json'), JSON.stringify(SCALING));
    await writeFile(path.join(docs, 'benchmarks.md'), PAGE);
    await publish(results, docs);
    const svg = await readFile(path.join(docs, 'plots', 'bench-scaling.svg'), 'utf8');
    expect(svg).toMatch(/^<svg /);
    expect(svg).toContain('alexnet');
    const kept = JSON.parse(await readFile(path.join(docs, 'benchmarks', 'scaling.json'), 'utf8')) as Report;
    expect(kept.figures[0]?.samples).toEqual([0.9, 0.95, 1]);
    expect(await readFile(path.join(docs, 'benchmarks.md'), 'utf8')).toContain('1 of 2');
  });

  it('refuses a folder without results', async () => {
    await expect(publish(await folder(), await folder())).rejects.toMatchObject({ code: 'USAGE' });
  });
});

describe('plots', () => {
  it('show throughput in bare engines: N times the ratio, with its spread', () => {
    const points = plotSpec(SCALING)?.panels[0]?.series.find(({ name }) => name === 'alexnet')?.points;
    expect(points?.[0]).toMatchObject({ x: 2, y: 1.9 });
    expect(points?.[0]?.low).toBeCloseTo(1.85);
    expect(points?.[1]).toMatchObject({ x: 4, y: 2 });
  });

  it('show what was aimed at beside what was reached', () => {
    const lone = figure('vgg16, 2 agents at 1 Gbit/s: latency over one device', 'x', [1.7], atLeast(1.8));
    const latency = plotSpec(report('latency', [lone]))?.panels[0]?.series.find(({ name }) => name.startsWith('target'));
    expect(latency?.points).toEqual([{ x: 2, y: 1.8 }]);
    const many = figure('a, 4 agents: throughput over 4 x the bare engine', 'x', [0.8], atLeast(0.92));
    const scaling = plotSpec(report('scaling', [many]))?.panels[0]?.series.find(({ name }) => name === 'target: 0.92 of that');
    expect(scaling?.points).toEqual([
      { x: 1, y: 0.92 },
      { x: 4, y: 3.68 },
    ]);
  });

  it('show speed-up and ceiling of the latency, by setting', () => {
    const name = 'vgg16, 2 agents at 1 Gbit/s';
    const figures = [
      figure(`${name}: latency over one device`, 'x', [1.7]),
      figure(`${name}: compute ceiling over one device`, 'x', [1.9]),
    ];
    const series = plotSpec(report('latency', figures))?.panels[0]?.series.map((s) => [s.name, s.points[0]?.y]);
    expect(series).toEqual([
      ['at 1 Gbit/s', 1.7],
      ['compute ceiling at 1 Gbit/s', 1.9],
    ]);
  });

  it('show predictions over what was measured, plan by plan, and leave out plans without a prediction', () => {
    const figures = [figure('a: latency', 'ms', [100], undefined, { beside: { predicted: 90 } }), figure('b: latency', 'ms', [50])];
    const predicted = plotSpec(report('prediction', figures))?.panels[0]?.series.find((s) => s.name === 'predicted');
    expect(predicted?.points).toEqual([{ x: 0.92, y: 0.9 }]);
  });

  it('show throughput against one engine alone and against as many at once in panels of their own', () => {
    const figures = [
      figure('a, 2 agents: throughput over 2 x the bare engine', 'x', [0.8]),
      figure('a, 2 agents: throughput over 2 bare engines at once', 'x', [0.9]),
      figure('a, 4 agents: throughput over 4 x the bare engine', 'x', [0.7]),
    ];
    const panels = plotSpec(report('scaling', figures))?.panels ?? [];
    expect(
      panels.map(({ series }) => series.filter(({ name }) => name === 'a').map(({ points }) => points.map(({ x, y }) => [x, y]))),
    ).toEqual([
      [
        [
          [2, 1.6],
          [4, 2.8],
        ],
      ],
      [[[2, 1.8]]],
    ]);
  });

  it('are not drawn where there is nothing to draw', () => {
    expect(plotSpec(report('scaling', []))).toBeUndefined();
    expect(plotSpec(report('codec', []))).toBeUndefined();
  });
});
