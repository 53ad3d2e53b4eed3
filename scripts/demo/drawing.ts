/** The demo's picture: the photo with boxes and the bands of the agents, and beside it the text that was read. */
import sharp from 'sharp';
import { corners, type Point } from './geometry.js';
import { type FontName, textPath, textWidth } from './lettering.js';
import type { TextLine } from './ocr.js';
import type { Picture } from './picture.js';

const REGULAR: FontName = 'inter-latin-400-normal';
const BOLD: FontName = 'inter-latin-600-normal';
/** One per agent; Okabe and Ito's palette, which also colour-blind readers tell apart. */
const COLOURS = ['#56b4e9', '#e69f00', '#2bb58a', '#f0628f', '#cc79a7', '#f0e442', '#0072b2', '#d55e00'] as const;

export interface DrawingFacts {
  /** Agents by band, from top to bottom: who computed which rows of the photo first. */
  readonly bands: readonly string[];
  /** Lines at the foot of the panel. */
  readonly notes: readonly string[];
}

const colour = (index: number): string => COLOURS[index % COLOURS.length] ?? '#56b4e9';
const pixels = (n: number): string => n.toFixed(1);
const points = (list: readonly Point[]): string => list.map((p) => `${pixels(p.x)},${pixels(p.y)}`).join(' ');

function label(font: FontName, text: string, x: number, y: number, size: number, fill: string): string {
  return `<path d="${textPath(font, text, x, y, size)}" fill="${fill}"/>`;
}

/** The text, shortened with dots until it fits. */
function fitted(font: FontName, text: string, size: number, width: number): string {
  if (textWidth(font, text, size) <= width) return text;
  let short = text;
  while (short.length > 1 && textWidth(font, `${short}...`, size) > width) short = short.slice(0, -1);
  return `${short}...`;
}

function bandOf(y: number, height: number, bands: number): number {
  return Math.min(bands - 1, Math.max(0, Math.floor((y / height) * bands)));
}

function overlay(photo: Picture, lines: readonly TextLine[], { bands }: DrawingFacts): string {
  const out: string[] = [];
  bands.forEach((agent, i) => {
    const y = (photo.height * i) / bands.length;
    if (i > 0)
      out.push(
        `<line x1="0" x2="${photo.width}" y1="${y}" y2="${y}" stroke="#fff" stroke-opacity=".55" stroke-width="2" stroke-dasharray="10 9"/>`,
      );
    const width = textWidth(BOLD, agent, 17) + 20;
    out.push(`<rect x="${photo.width - width - 10}" y="${y + 10}" width="${width}" height="28" rx="6" fill="${colour(i)}"/>`);
    out.push(label(BOLD, agent, photo.width - width, y + 30, 17, '#10151c'));
  });
  lines.forEach((line, i) => {
    const quad = corners(line.box.rectangle);
    const stroke = colour(bandOf(line.box.rectangle.centre.y, photo.height, Math.max(1, bands.length)));
    out.push(
      `<polygon points="${points(quad)}" fill="${stroke}" fill-opacity=".07" stroke="${stroke}" stroke-width="3.5" stroke-linejoin="round"/>`,
    );
    const number = String(i + 1);
    const [at] = quad;
    const width = textWidth(BOLD, number, 18) + 14;
    out.push(`<rect x="${pixels(at.x - width + 4)}" y="${pixels(at.y - 14)}" width="${width}" height="25" rx="5" fill="${stroke}"/>`);
    out.push(label(BOLD, number, at.x - width + 11, at.y + 5, 18, '#10151c'));
  });
  return out.join('');
}

function panel(left: number, width: number, height: number, photo: Picture, lines: readonly TextLine[], facts: DrawingFacts): string {
  const out = [
    `<rect x="${left}" width="${width}" height="${height}" fill="#10151c"/>`,
    label(BOLD, 'Text in the photo', left + 36, 66, 32, '#ffffff'),
  ];
  const foot = 34 * facts.notes.length + 40;
  const step = Math.min(48, (height - 120 - foot) / Math.max(1, lines.length));
  const size = Math.min(25, step * 0.55);
  lines.forEach((line, i) => {
    const y = 118 + i * step;
    const fill = colour(bandOf(line.box.rectangle.centre.y, photo.height, Math.max(1, facts.bands.length)));
    const number = String(i + 1);
    out.push(`<rect x="${left + 36}" y="${y - size * 0.95}" width="40" height="${size * 1.3}" rx="5" fill="${fill}"/>`);
    out.push(label(BOLD, number, left + 56 - textWidth(BOLD, number, size * 0.8) / 2, y - size * 0.02, size * 0.8, '#10151c'));
    out.push(label(REGULAR, fitted(REGULAR, line.text, size, width - 220), left + 92, y, size, '#f2f4f7'));
    const sure = `${Math.round(line.confidence * 100)} %`;
    out.push(label(REGULAR, sure, left + width - 36 - textWidth(REGULAR, sure, size * 0.8), y, size * 0.8, '#8d98a8'));
  });
  out.push(
    `<line x1="${left + 36}" x2="${left + width - 36}" y1="${height - foot}" y2="${height - foot}" stroke="#3a4452" stroke-width="1.5"/>`,
  );
  facts.notes.forEach((note, i) => {
    out.push(label(REGULAR, fitted(REGULAR, note, 18, width - 72), left + 36, height - foot + 36 + i * 34, 18, '#b8c2cf'));
  });
  return out.join('');
}

/** PNG bytes: the photo (at most 1280 wide, or as it is) and a panel of 640 pixels. */
export async function drawResult(photo: Picture, lines: readonly TextLine[], facts: DrawingFacts): Promise<Buffer> {
  const panelWidth = 640;
  const [width, height] = [photo.width + panelWidth, Math.max(photo.height, 480)];
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${overlay(photo, lines, facts)}${panel(photo.width, panelWidth, height, photo, lines, facts)}</svg>`;
  const base = sharp({ create: { width, height, channels: 3, background: '#10151c' } });
  const raw = { width: photo.width, height: photo.height, channels: 3 as const };
  return base
    .composite([
      { input: Buffer.from(photo.rgb), raw, left: 0, top: 0 },
      { input: Buffer.from(svg), left: 0, top: 0 },
    ])
    .png()
    .toBuffer();
}
