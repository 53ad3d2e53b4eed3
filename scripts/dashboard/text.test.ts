import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { anyText } from '../../broker/test-text.js';
import { printable, printableJson, printableLines } from '../printable.js';
import { glyphsFor, showsUnicode, sparkline } from './glyphs.js';
import { ansi, fitLine, inColumns, line, lineWidth, plainText, selected, span, widthOf } from './text.js';

const ESCAPE = '\u001b';

describe('text from the network', () => {
  it('cannot move the cursor, set a title, hide, or turn itself round', () => {
    const hostile = [
      `${ESCAPE}[2J${ESCAPE}]0;owned\u0007`,
      '\u009b31mred',
      'a\rb\nc\td',
      'pi\u202e1-ip',
      'zero\u200bwidth\u2060',
      'a\u0301\u0301\u0301\u0301\u0301',
      '\ud800',
      '\ue000\uffff',
    ];
    for (const text of hostile) expect(printable(text)).toMatch(/^[\x20-\x7e\u00a0-\uffff]*$/);
    expect(printable(hostile[0] ?? '')).toBe('?[2J?]0;owned?');
    expect(printable('a\rb\nc\td')).toBe('a b c d');
    expect(printable('pi\u202e1-ip')).toBe('pi?1-ip');
    expect(printable('a\u0301')).toBe('\u00e1');
    expect(printable('Zürich \u6771\u4eac')).toBe('Zürich \u6771\u4eac');
    expect(plainText([line('Zürich \u6771\u4eac')], false)).toBe('Z?rich ????');
    expect(ansi(line('Zürich'), false, false)).toBe('Z?rich');
    expect(span(`${ESCAPE}[2J`).text).toBe('?[2J');
  });

  it('of any kind never leaves a control character in a row, whatever its tone', () => {
    fc.assert(
      fc.property(anyText(), fc.boolean(), (text, colours) => {
        const row = ansi(line(text, 'warn'), colours);
        const codes = row.replaceAll(new RegExp(`${ESCAPE}\\[[0-9;]*m`, 'g'), '');
        expect(/[\p{Cc}\p{Cf}]/u.test(codes)).toBe(false);
      }),
    );
  });

  it('keeps its lines where there may be several, and means the same as JSON', () => {
    expect(printableLines(`a\n\tb${ESCAPE}[2J\r\u009b\u202e`)).toBe('a\n\tb?[2J???');
    const value = { text: `${ESCAPE}]0;x\u0007 \u009b31m \u202eabc\u{e0041}`, more: ['Zürich'] };
    const json = printableJson(JSON.stringify(value, null, 2));
    expect(JSON.parse(json)).toEqual(value);
    expect(json.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });
});

describe('widths', () => {
  it('count columns, not characters', () => {
    expect(widthOf('pi-1')).toBe(4);
    expect(widthOf('\u6771\u4eac')).toBe(4);
    expect(widthOf('\u{1f600}')).toBe(2);
    expect(widthOf('é')).toBe(1);
  });

  it('fit exactly, and lose the middle of what is too long', () => {
    expect(inColumns('pi-1', 6)).toBe('pi-1  ');
    expect(inColumns('7', 3, 'right')).toBe('  7');
    expect(inColumns('living-room-board-1', 10)).toBe('living…d-1');
    const words = fc.string({ unit: fc.constantFrom('a', '-', '\u6771', 'é', '1') });
    fc.assert(fc.property(words, fc.integer({ min: 1, max: 30 }), (text, width) => widthOf(inColumns(text, width)) === width));
    fc.assert(
      fc.property(fc.array(words), fc.integer({ min: 1, max: 30 }), (texts, width) => {
        expect(
          lineWidth(
            fitLine(
              texts.map((text) => span(text)),
              width,
            ),
          ),
        ).toBe(width);
      }),
    );
  });
});

describe('rows', () => {
  it('have colours only where they are wanted; without them what is bad is bold, and the selected one reversed', () => {
    expect(ansi(line('lost', 'bad'), true)).toBe(`${ESCAPE}[31;1mlost${ESCAPE}[0m`);
    expect(ansi(line('lost', 'bad'), false)).toBe(`${ESCAPE}[1mlost${ESCAPE}[0m`);
    expect(ansi(line('ready', 'good'), false)).toBe('ready');
    expect(ansi(selected(line('pi-1')), false)).toBe(`${ESCAPE}[7mpi-1${ESCAPE}[0m`);
    expect(plainText([line('a  ', 'bad'), line('b')])).toBe('a\nb');
  });
});

describe('signs', () => {
  it('are chosen by the locale', () => {
    expect(showsUnicode({ LANG: 'en_GB.UTF-8', TERM: 'xterm' })).toBe(true);
    expect(showsUnicode({ LANG: 'en_GB.UTF-8', LC_ALL: 'C', TERM: 'xterm' })).toBe(false);
    expect(showsUnicode({ TERM: 'xterm' })).toBe(false);
    expect(showsUnicode({ LANG: 'de_DE.utf8', TERM: 'linux' })).toBe(false);
  });

  it('draw a row of values, the largest highest, nothing lowest', () => {
    expect(sparkline([0, 1, 2, 4], 6, glyphsFor(true))).toBe('  ▁▃▅█');
    expect(sparkline([0, 0.5, 1], 3, glyphsFor(false), 1)).toBe('_=#');
    expect(sparkline([0, 0], 2, glyphsFor(true))).toBe('▁▁');
    expect(sparkline([], 3, glyphsFor(true))).toBe('   ');
    expect(sparkline([1, 1, 3, 5], 2, glyphsFor(true))).toBe('▃█');
    expect(sparkline(new Array(120).fill(7), 20, glyphsFor(true))).toBe('█'.repeat(20));
    expect(sparkline([0, 0, 0, 8, 8], 2, glyphsFor(true))).toBe('▁█');
    expect(sparkline([1], 0, glyphsFor(true))).toBe('');
  });
});
