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
  upDown: '=',
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

/** `values` as a row of signs, oldest first, several of them in one when there are more than `width`: 0 is the lowest sign, `most` (default: the largest) the highest. */
export function sparkline(values: readonly number[], width: number, { sparks }: Glyphs, most = 0): string {
  if (width <= 0) return '';
  const each = Math.max(1, Math.ceil(values.length / width));
  // Counted from the newest: the last sign is always now.
  const shown: number[] = [];
  for (let end = values.length; end > 0; end -= each) {
    const some = values.slice(Math.max(0, end - each), end);
    shown.unshift(some.reduce((sum, value) => sum + value, 0) / some.length);
  }
  const top = Math.max(most, ...shown);
  const signs = shown.map((value) => {
    if (!(value > 0) || top <= 0) return sparks[0] ?? ' ';
    const step = Math.ceil((value / top) * (sparks.length - 1));
    return sparks[Math.min(sparks.length - 1, Math.max(1, step))] ?? ' ';
  });
  return signs.join('').padStart(width);
}
