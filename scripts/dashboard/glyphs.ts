/** The few signs beyond ASCII that the screens use, and what stands for them on a terminal that cannot show them. */

export interface Glyphs {
  readonly rule: string;
  readonly down: string;
  readonly upDown: string;
  readonly right: string;
  readonly dots: string;
  readonly bar: string;
  readonly stroke: string;
  readonly live: string;
  /** From nothing to the most. */
  readonly sparks: readonly string[];
  readonly unicode: boolean;
}

const UNICODE: Glyphs = {
  rule: '─',
  down: '↓',
  upDown: '↕',
  right: '→',
  dots: '…',
  bar: '│',
  stroke: '─',
  live: '●',
  sparks: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
  unicode: true,
};

const ASCII: Glyphs = {
  rule: '-',
  down: 'v',
  upDown: 'x',
  right: '->',
  dots: '..',
  bar: '|',
  stroke: '-',
  live: '*',
  sparks: ['_', '.', ':', '-', '=', '+', '*', '#'],
  unicode: false,
};

export function glyphsFor(unicode: boolean): Glyphs {
  return unicode ? UNICODE : ASCII;
}

/** By the locale, as `locale(7)` reads it; none at all is the C locale. The Linux console's font lacks most of these signs. */
export function showsUnicode(env: Readonly<Record<string, string | undefined>>): boolean {
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || '';
  return /utf-?8/i.test(locale) && env.TERM !== 'linux';
}

/** The last `width` values as a row of signs: 0 is the lowest one, `most` (default: the largest shown) the highest. */
export function sparkline(values: readonly number[], width: number, { sparks }: Glyphs, most = 0): string {
  const shown = values.slice(-Math.max(0, width));
  const top = Math.max(most, ...shown);
  const signs = shown.map((value) => {
    if (!(value > 0) || top <= 0) return sparks[0] ?? ' ';
    const step = Math.ceil((value / top) * (sparks.length - 1));
    return sparks[Math.min(sparks.length - 1, Math.max(1, step))] ?? ' ';
  });
  return signs.join('').padStart(Math.max(0, width));
}
