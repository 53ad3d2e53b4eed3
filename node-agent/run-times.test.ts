import { describe, expect, it } from 'vitest';
import { RunTimes } from './run-times.js';

describe('run times', () => {
  it('are quantiles of what finished within ten seconds', () => {
    const times = new RunTimes();
    expect(times.read([0.5, 0.95], 0)).toEqual([0, 0]);
    for (let i = 1; i <= 100; i++) times.add(i, 1000);
    expect(times.read([0.5, 0.95, 1], 1000)).toEqual([50, 95, 100]);
    times.add(7, 10_500);
    expect(times.read([0.5, 0.95], 11_500)).toEqual([7, 7]);
    expect(times.read([0.5], 30_000)).toEqual([0]);
  });

  it('forget the oldest of more than they keep', () => {
    const times = new RunTimes();
    for (let i = 0; i < 512; i++) times.add(1, 0);
    for (let i = 0; i < 512; i++) times.add(2, 0);
    expect(times.read([0, 1], 0)).toEqual([2, 2]);
  });
});
