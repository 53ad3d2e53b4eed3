/** Lines of a terminal: pieces of text with a tone, widths in columns. What the tones mean to a terminal is said here alone, and only printable text gets past `ansi`. */
import { printable } from '../printable.js';

export type Tone = 'plain' | 'dim' | 'good' | 'warn' | 'bad' | 'accent';

export interface Span {
  readonly text: string;
  readonly tone: Tone;
  readonly bold?: boolean;
  readonly reverse?: boolean;
}

/** One row of the screen. */
export type Line = readonly Span[];

const PLAIN_ASCII = /^[\x20-\x7e]*$/;
/** Characters that take two columns: East Asian wide ones and pictures (Unicode Standard Annex 11). */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;

/** Columns of printable text. */
export function widthOf(text: string): number {
  if (PLAIN_ASCII.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += WIDE.test(character) ? 2 : 1;
  return width;
}

/** At most `width` columns of it. */
export function take(text: string, width: number): string {
  if (PLAIN_ASCII.test(text)) return text.slice(0, Math.max(0, width));
  let taken = '';
  let left = width;
  for (const character of text) {
    left -= WIDE.test(character) ? 2 : 1;
    if (left < 0) break;
    taken += character;
  }
  return taken;
}

/** Exactly `width` columns. What is too long loses its middle: names often differ at their ends. */
export function inColumns(text: string, width: number, align: 'left' | 'right' = 'left', dots = '…'): string {
  const wide = widthOf(text);
  if (wide <= width) return align === 'left' ? text + ' '.repeat(width - wide) : ' '.repeat(width - wide) + text;
  if (width <= dots.length) return take(text, width).padEnd(Math.max(0, width));
  const tail = Math.floor((width - dots.length) / 3);
  const head = take(text, width - dots.length - tail);
  const end = [...text].reverse().join('');
  const cut = `${head}${dots}${[...take(end, tail)].reverse().join('')}`;
  return cut + ' '.repeat(width - widthOf(cut));
}

/** Whatever the text is, the span's is printable: there is no other way to one. */
export function span(text: string, tone: Tone = 'plain', more: Pick<Span, 'bold' | 'reverse'> = {}): Span {
  return { text: printable(text), tone, ...more };
}

/** A line of one span. */
export function line(text: string, tone: Tone = 'plain', more: Pick<Span, 'bold' | 'reverse'> = {}): Line {
  return [span(text, tone, more)];
}

export function lineWidth(spans: Line): number {
  return spans.reduce((sum, { text }) => sum + widthOf(text), 0);
}

/** Exactly `width` columns: cut with dots, or filled up. */
export function fitLine(spans: Line, width: number, dots = '…'): Line {
  const over = lineWidth(spans) > width;
  let left = over ? width - dots.length : width;
  const kept: Span[] = [];
  for (const one of spans) {
    if (left <= 0) break;
    const text = take(one.text, left);
    left -= widthOf(text);
    kept.push({ ...one, text });
    if (text !== one.text) break;
  }
  const last = kept.at(-1);
  if (over) kept.push(span(dots, last?.tone ?? 'plain', last?.reverse === true ? { reverse: true } : {}));
  const missing = width - lineWidth(kept);
  return missing > 0 ? [...kept, span(' '.repeat(missing), 'plain', last?.reverse === true ? { reverse: true } : {})] : kept;
}

/** The whole line in reverse: the one that is selected. */
export function selected(spans: Line): Line {
  return spans.map((one) => ({ ...one, reverse: true }));
}

/** What a terminal shows that knows only ASCII: as many columns. */
function ascii(text: string): string {
  return PLAIN_ASCII.test(text) ? text : [...text].map((one) => (PLAIN_ASCII.test(one) ? one : '?'.repeat(widthOf(one)))).join('');
}

/** Without tones, for tests, files and `--once` without colours; no blanks at the end. */
export function plainText(lines: readonly Line[], unicode = true): string {
  const text = lines
    .map((spans) =>
      spans
        .map((one) => one.text)
        .join('')
        .trimEnd(),
    )
    .join('\n');
  return unicode ? text : text.split('\n').map(ascii).join('\n');
}

/** Select Graphic Rendition codes (ECMA-48, 8.3.117). Colours of the terminal's own palette: readable on light and dark. */
const CODES: Readonly<Record<Tone, string>> = { plain: '', dim: '2', good: '32', warn: '33', bad: '31;1', accent: '36' };

/** One row as the terminal takes it. Without colours bold and reverse remain: words say the rest. */
export function ansi(spans: Line, colours: boolean, unicode = true): string {
  return spans
    .map(({ text, tone, bold, reverse }) => {
      const codes = [colours ? CODES[tone] : tone === 'bad' ? '1' : '', bold === true ? '1' : '', reverse === true ? '7' : ''].filter(
        Boolean,
      );
      const safe = unicode ? printable(text) : ascii(printable(text));
      return codes.length === 0 ? safe : `\u001b[${codes.join(';')}m${safe}\u001b[0m`;
    })
    .join('');
}
