/** Tables that choose their columns by the width there is. Pure. */
import { printable } from '../printable.js';
import { inColumns, type Line, lineWidth, type Span, span, type Tone, widthOf } from './text.js';

export interface Cell {
  readonly text: string;
  readonly tone?: Tone;
}

export interface Column<T> {
  readonly title: string;
  readonly align?: 'left' | 'right';
  /** Columns of a low rank are kept when there is no room for all. */
  readonly rank: number;
  /** Gives way when it is long, but not below this. Others are as wide as their widest cell. */
  readonly least?: number;
  readonly cell: (row: T) => Cell;
  /** Left out when no row has anything to say. */
  readonly only?: (rows: readonly T[]) => boolean;
}

export interface TableStyle {
  readonly width: number;
  readonly gap: number;
  readonly dots: string;
}

/** The title line first. Each line is at most `width` columns. */
export function tableLines<T>(columns: readonly Column<T>[], rows: readonly T[], { width, gap, dots }: TableStyle): Line[] {
  const able = columns.filter(({ only }) => only === undefined || only(rows));
  // Widths are those of what will be shown.
  const shown = ({ text, tone }: Cell): Cell => ({ text: printable(text), ...(tone === undefined ? {} : { tone }) });
  const cells = able.map((column) => rows.map((row) => shown(column.cell(row))));
  const natural = able.map((column, i) => Math.max(widthOf(column.title), ...(cells[i] ?? []).map(({ text }) => widthOf(text))));
  const least = (i: number): number => Math.min(natural[i] ?? 0, able[i]?.least ?? natural[i] ?? 0);
  const kept: number[] = [];
  let used = -gap;
  for (const i of [...able.keys()].sort((a, b) => (able[a]?.rank ?? 0) - (able[b]?.rank ?? 0) || a - b)) {
    if (used + gap + least(i) > width && kept.length > 0) continue;
    used += gap + least(i);
    kept.push(i);
  }
  kept.sort((a, b) => a - b);
  let spare = Math.max(0, width - used);
  const widths = new Map(
    kept.map((i) => {
      const more = Math.min(spare, (natural[i] ?? 0) - least(i));
      spare -= more;
      return [i, least(i) + more];
    }),
  );
  const between = span(' '.repeat(gap));
  const joined = (spans: readonly Span[]): Line => spans.flatMap((one, i) => (i === 0 ? [one] : [between, one]));
  const put = (i: number, { text, tone }: Cell): Span => span(inColumns(text, widths.get(i) ?? 0, able[i]?.align, dots), tone);
  return [
    joined(kept.map((i) => put(i, { text: able[i]?.title ?? '', tone: 'dim' }))),
    ...rows.map((_, r) => joined(kept.map((i) => put(i, cells[i]?.[r] ?? { text: '' })))),
  ];
}

/** Words on as many lines as they need, later ones indented. */
export function wrapSpans(words: readonly Line[], width: number, indent: number, gap = 2): Line[] {
  const lines: Span[][] = [];
  let used = 0;
  for (const word of words) {
    const wide = lineWidth(word);
    const last = lines.at(-1);
    if (last === undefined || used + gap + wide > width) {
      lines.push(lines.length === 0 ? [...word] : [span(' '.repeat(indent)), ...word]);
      used = (lines.length === 1 ? 0 : indent) + wide;
    } else {
      last.push(span(' '.repeat(gap)), ...word);
      used += gap + wide;
    }
  }
  return lines;
}
