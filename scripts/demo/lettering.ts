/** Text as vector paths, from fonts that stand beside this file: what is drawn looks the same on every machine, with no font installed. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import opentype, { type Font, type Glyph, type PathCommand } from 'opentype.js';
import type { Point } from './geometry.js';

export type FontName =
  | 'inter-latin-400-normal'
  | 'inter-latin-600-normal'
  | 'barlow-condensed-latin-600-normal'
  | 'playfair-display-latin-700-normal';

const loaded = new Map<FontName, Font>();

function fontOf(name: FontName): Font {
  const known = loaded.get(name);
  if (known !== undefined) return known;
  const bytes = readFileSync(fileURLToPath(new URL(`./fonts/${name}.woff`, import.meta.url)));
  const font = opentype.parse(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer);
  loaded.set(name, font);
  return font;
}

/** Glyphs with the x each starts at. By hand, with kerning: opentype.js refuses the substitution tables of some of these fonts. */
function layOut(
  name: FontName,
  text: string,
  size: number,
): { readonly glyphs: { readonly glyph: Glyph; readonly x: number }[]; readonly width: number } {
  const font = fontOf(name);
  const scale = size / font.unitsPerEm;
  const glyphs: { glyph: Glyph; x: number }[] = [];
  let x = 0;
  for (const character of text) {
    const glyph = font.charToGlyph(character);
    const last = glyphs.at(-1)?.glyph;
    if (last !== undefined) x += font.getKerningValue(last, glyph) * scale;
    glyphs.push({ glyph, x });
    x += glyph.advanceWidth * scale;
  }
  return { glyphs, width: x };
}

/** Width of a line, pixels. */
export function textWidth(name: FontName, text: string, size: number): number {
  return layOut(name, text, size).width;
}

/** SVG path data of a line with its baseline starting at (x, y); each point goes through `map` (perspective, a turn). */
export function textPath(name: FontName, text: string, x: number, y: number, size: number, map: (p: Point) => Point = (p) => p): string {
  const at = (px: number, py: number): string => {
    const p = map({ x: px, y: py });
    return `${p.x.toFixed(2)} ${p.y.toFixed(2)}`;
  };
  const one = (c: PathCommand): string => {
    if (c.type === 'Z') return 'Z';
    if (c.type === 'Q') return `Q${at(c.x1, c.y1)} ${at(c.x, c.y)}`;
    if (c.type === 'C') return `C${at(c.x1, c.y1)} ${at(c.x2, c.y2)} ${at(c.x, c.y)}`;
    return `${c.type}${at(c.x, c.y)}`;
  };
  return layOut(name, text, size)
    .glyphs.flatMap(({ glyph, x: start }) => glyph.getPath(x + start, y, size).commands.map(one))
    .join('');
}
