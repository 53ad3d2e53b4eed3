import { describe, expect, it } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import { shareOf } from './all.js';
import type { Case } from './bench.js';
import { collect, isWanted } from './context.js';
import { figure } from './figures.js';

const one = (name: string, value: number): Case => ({ name, run: async () => [figure(name, 'ms', [value])] });
const options = (over: { only?: string[]; withinMs?: number; now?: () => number } = {}) => ({
  quick: false,
  profile: false,
  note: () => undefined,
  cli: async () => '',
  models: '',
  only: [],
  withinMs: 1000,
  now: () => 0,
  ...over,
});

describe('--only', () => {
  it('wants the cases that have all of its words, as whole words, whatever stands between them', () => {
    expect(isWanted('vgg16, 4 agents at 1 Gbit/s', ['vgg16 4'])).toBe(true);
    expect(isWanted('vgg16, 4 agents at 1 Gbit/s', ['vgg16, 4 agents'])).toBe(true);
    expect(isWanted('vgg16-features, 4 agents', ['vgg16 4'])).toBe(false);
    expect(isWanted('vgg16, 8 agents', ['vgg16 4'])).toBe(false);
    expect(isWanted('vgg16, 8 agents', ['vgg16 4', 'VGG16 8'])).toBe(true);
    expect(isWanted('vgg16, 8 agents', [])).toBe(true);
  });
});

describe('the cases of a benchmark', () => {
  it('go on when one of them fails, and the failure stands in the report', async () => {
    const { context, figures, troubles } = collect(options());
    const fails: Case = {
      name: 'b',
      run: async () => {
        throw new ChairError('FRAME_FAILED', 'it was lost');
      },
    };
    await context.cases([one('a', 1), fails, one('c', 3)]);
    expect(figures.map((f) => f.value)).toEqual([1, 3]);
    expect(troubles).toHaveLength(1);
    expect(troubles[0]).toMatch(/^b: FRAME_FAILED: it was lost/);
  });

  it('do not begin after their time, and say so; what runs is finished', async () => {
    let clock = 0;
    const { context, figures, troubles } = collect(options({ withinMs: 10, now: () => clock }));
    const slow: Case = {
      name: 'slow',
      run: async () => {
        clock = 11;
        return [figure('slow', 'ms', [1])];
      },
    };
    await context.cases([slow, one('late', 2)]);
    expect(figures.map((f) => f.figure)).toEqual(['slow']);
    expect(troubles).toEqual(['late: the time was over']);
  });

  it('are summarised as far as they got, whenever the report is made', async () => {
    let clock = 0;
    const { context, figures, summary } = collect(options({ withinMs: 10, now: () => clock }));
    context.summary((cases) => [figure(`sum of ${cases.length}`, 'ms', [cases.reduce((sum, { value }) => sum + value, 0)])]);
    const seen: string[] = [];
    const stoppedHere: Case = {
      name: 'b',
      run: async () => {
        seen.push(...summary().map((f) => f.figure));
        clock = 11;
        return [figure('b', 'ms', [2])];
      },
    };
    await context.cases([one('a', 1), stoppedHere, one('late', 4)]);
    expect(seen).toEqual(['sum of 1']);
    expect(summary().map((f) => [f.figure, f.value])).toEqual([['sum of 2', 3]]);
    expect(figures.map((f) => f.figure)).toEqual(['a', 'b']);
  });

  it('are only those asked for, and the names of all are known for the error about a name that is none', async () => {
    const { context, figures, troubles, names } = collect(options({ only: ['b'] }));
    await context.cases([one('a', 1), one('b', 2)]);
    expect(figures.map((f) => f.figure)).toEqual(['b']);
    expect(troubles).toEqual([]);
    expect(names).toEqual(['a', 'b']);
  });
});

describe('the time of one benchmark among all', () => {
  it('is a little more than usual while there is time, and its part of what is left when there is not', () => {
    expect(shareOf(100, 900, Number.POSITIVE_INFINITY)).toBe(120);
    expect(shareOf(100, 900, 1000)).toBe(100);
    expect(shareOf(100, 900, 500)).toBe(50);
    expect(shareOf(100, 0, -20)).toBe(1);
  });
});
