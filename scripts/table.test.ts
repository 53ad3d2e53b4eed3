import { describe, expect, it } from 'vitest';
import { type Column, formatTable } from './table.js';

const COLUMNS: readonly Column[] = [
  { title: 'agent', whole: true },
  { title: 'listens at', whole: true, drop: 2 },
  { title: 'why', least: 8 },
  { title: 'rss', align: 'right', drop: 4 },
  { title: 'runs/s', align: 'right' },
];
const ROWS = [['kitchen-window-7', '192.168.178.21:40213', 'its connection to the broker broke', '265 MB', '11.0']];

describe('a table', () => {
  it('is whole where there is room', () => {
    expect(formatTable(COLUMNS, ROWS, 100).split('\n')[0]).toMatch(/^agent +listens at +why +rss +runs\/s$/);
  });

  it('first cuts what may be cut, and leaves columns out when that is not enough: those of least use first', () => {
    const titles = (width: number) => formatTable(COLUMNS, ROWS, width).split('\n')[0]?.split(/ {2,}/).filter(Boolean);
    expect(titles(80)).toEqual(['agent', 'listens at', 'why', 'rss', 'runs/s']);
    expect(titles(60)).toEqual(['agent', 'listens at', 'why', 'runs/s']);
    expect(titles(40)).toEqual(['agent', 'why', 'runs/s']);
    expect(formatTable(COLUMNS, ROWS, 60)).toContain('192.168.178.21:40213');
    expect(formatTable(COLUMNS, ROWS, 40)).toMatch(/^kitchen-window-7 {2}its con/m);
  });

  it('is never wider than it is told to, as long as its columns may give way', () => {
    for (let width = 36; width < 120; width++)
      for (const line of formatTable(COLUMNS, ROWS, width).split('\n')) expect(line.length).toBeLessThanOrEqual(width);
  });
});
