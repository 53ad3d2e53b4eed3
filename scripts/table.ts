/** Plain text tables and units for people. */
import { printable } from './printable.js';

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** Of no use when it is cut: a date, or a name that is to be typed. */
  readonly whole?: boolean;
  /** Not cut to less. */
  readonly least?: number;
  /** The column may be left out where there is no room for all: those with the highest number first. */
  readonly drop?: number;
}

/** What a left column keeps at least. */
const LEAST = 6;

/** The columns that find room when all that may be cut is cut. */
function keptColumns(columns: readonly Column[], natural: readonly number[], width: number): number[] {
  const least = (i: number): number => {
    const { align, whole, title = '', least: wanted = LEAST } = columns[i] ?? {};
    const most = natural[i] ?? 0;
    return align === 'right' || whole === true ? most : Math.min(most, Math.max(wanted, title.length));
  };
  let kept = columns.map((_, i) => i);
  for (;;) {
    if (kept.reduce((sum, i) => sum + least(i) + 2, -2) <= width) return kept;
    const last = kept.reduce<number | undefined>((found, i) => {
      const drop = columns[i]?.drop;
      return drop !== undefined && (found === undefined || drop > (columns[found]?.drop ?? 0)) ? i : found;
    }, undefined);
    if (last === undefined) return kept;
    kept = kept.filter((i) => i !== last);
  }
}

/**
 * Columns two spaces apart. When the table would be wider than `width`, columns that may be left out are, as far as it is needed, and then the widest left columns are
 * cut. A row is one line, whoever filled its cells.
 */
export function formatTable(all: readonly Column[], cells: readonly (readonly string[])[], width = 80): string {
  const texts = cells.map((row) => row.map((cell) => printable(cell)));
  const natural = all.map((c, i) => Math.max(c.title.length, ...texts.map((r) => (r[i] ?? '').length)));
  const kept = keptColumns(all, natural, width);
  const columns = kept.flatMap((i) => all[i] ?? []);
  const rows = texts.map((row) => kept.map((i) => row[i] ?? ''));
  const widths = kept.map((i) => natural[i] ?? 0);
  let over = widths.reduce((sum, w) => sum + w + 2, -2) - width;
  // The widest left-aligned columns give way first; numbers are never cut, nor what has to be whole.
  const roomOf = (i: number): number => (widths[i] ?? 0) - Math.max(columns[i]?.least ?? LEAST, columns[i]?.title.length ?? 0);
  const gives = (i: number): boolean => columns[i]?.align !== 'right' && columns[i]?.whole !== true && roomOf(i) > 0;
  while (over > 0) {
    const widest = widths.reduce(
      (best, w, i) => (gives(i) && w > (widths[best] ?? 0) ? i : best),
      columns.findIndex((_, i) => gives(i)),
    );
    if (widest < 0) break;
    widths[widest] = (widths[widest] ?? 0) - 1;
    over--;
  }
  const line = (cells: readonly string[]): string =>
    columns
      .map((c, i) => {
        const cell = cells[i] ?? '';
        const w = widths[i] ?? 0;
        const fit = cell.length > w ? `${cell.slice(0, Math.max(0, w - 1))}…` : cell;
        return c.align === 'right' ? fit.padStart(w) : fit.padEnd(w);
      })
      .join('  ')
      .trimEnd();
  return [line(columns.map((c) => c.title)), widths.map((w) => '-'.repeat(w)).join('  '), ...rows.map(line)].join('\n');
}

/** Lines of at most `width` columns, broken at spaces; all begin with `indent`, those after the first two deeper. */
export function wrapText(text: string, width: number, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(/\s+/)) {
    const start = line.trim() === '';
    if (!start && line.length + 1 + word.length > width) {
      lines.push(line);
      line = `${indent}  ${word}`;
    } else line += start ? word : ` ${word}`;
  }
  return [...lines, line];
}

/** 1,234 -> `1.2 kB` (decimal units, as links are measured). */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** 153_000_000 -> `153 M`. */
export function countText(count: number): string {
  const units = ['', ' k', ' M', ' G', ' T'];
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)}${units[unit]}`;
}

export function msText(ms: number): string {
  if (!Number.isFinite(ms)) return '-';
  return ms >= 9_950 ? `${(ms / 1_000).toFixed(1)} s` : ms >= 99.5 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

/** `[1,3,640,640]` */
export function dimsText(dims: readonly number[]): string {
  return `[${dims.join(',')}]`;
}
