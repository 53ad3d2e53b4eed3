/**
 * Plots: from a plain description to one self-contained SVG, as text. The only place where the plot library (Observable Plot, drawn into linkedom's
 * document) enters; it is optional, and loaded on first use.
 *
 * One plot is a grid of panels that share one legend, one look and, unless told otherwise, one scale; each panel holds lines, points or bars.
 * Long, because legend, scales and panels are laid out from the same description; what is drawn of benchmarks and profiles is described elsewhere.
 */
import { ChairError } from '../broker/errors.js';

export interface PlotPoint {
  /** A category (bars) or a number. */
  readonly x: number | string;
  readonly y: number;
  /** Ends of the spread around `y`: drawn as a whisker. */
  readonly low?: number;
  readonly high?: number;
}

export interface PlotSeries {
  /** In the legend; series of one name have one colour in all panels. */
  readonly name: string;
  readonly points: readonly PlotPoint[];
  /** `line` (with dots) by default; `points` and `bars`. */
  readonly mark?: 'line' | 'points' | 'bars';
  /** A prediction, a bound or a former state beside what was measured. */
  readonly dashed?: boolean;
  /** CSS colour; default: the next of the palette. */
  readonly color?: string;
}

/** A horizontal line with words: a target, one device alone. */
export interface PlotRule {
  readonly y: number;
  readonly label: string;
}

export interface PlotPanel {
  /** Above the panel; '' for a plot of one panel. */
  readonly title: string;
  /** Smaller, beside the title. */
  readonly note?: string;
  readonly series: readonly PlotSeries[];
  readonly rules?: readonly PlotRule[];
}

export interface PlotAxis {
  /** With its unit: `time, ms`. */
  readonly label: string;
  readonly scale?: 'linear' | 'log';
  /** Numbers to mark; default: what fits. */
  readonly ticks?: readonly number[];
  /** Begins at zero; default true for y of a linear scale, false for x. */
  readonly fromZero?: boolean;
}

export interface PlotSpec {
  readonly title: string;
  /** Lines below the title: conditions, machine, date. */
  readonly subtitle?: string;
  /** Small print at the foot. */
  readonly caption?: string;
  readonly x: PlotAxis;
  readonly y: PlotAxis;
  readonly panels: readonly PlotPanel[];
  /** Panels beside each other; default: as many as make a page-shaped whole. */
  readonly columns?: number;
  /** Each panel has its own y scale (panels of very different size); default false. */
  readonly ownY?: boolean;
  /** Of one panel, px; default 300 x 220, or 720 x 420 for a plot of one panel. */
  readonly panelWidth?: number;
  readonly panelHeight?: number;
}

/** Colours that people with any colour vision tell apart (Okabe and Ito, 2008), dark ones first: thin lines must be seen on white. */
const PALETTE = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#8c6d00', '#56b4e9', '#e69f00', '#444444'];
/** A shape for each series beside its colour: whoever prints in black or sees few colours tells them apart by it. */
const SYMBOLS = ['circle', 'square', 'triangle', 'diamond'] as const;
type PlotSymbol = (typeof SYMBOLS)[number];
const INK = '#1f2328';
const FAINT = '#59636e';
const FONT = 'Inter, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif';
const MARGIN = 24;
const GAP = 18;
const PANEL_TITLE = 24;
/** Mean width of a character as a part of the font size: for layout of words whose font we cannot measure here. */
const CHARACTER = 0.56;
const BOLD = 0.64;

type Library = typeof import('@observablehq/plot');
interface Drawing {
  readonly plot: Library;
  readonly document: Document;
}
/** What Plot needs of a document; linkedom's own types stand for a whole browser. */
type Document = NonNullable<Parameters<Library['plot']>[0]>['document'];

/** Throws PLOT_UNAVAILABLE when the plot library is not installed. */
export async function plotSvg(spec: PlotSpec): Promise<string> {
  const drawing = await loadLibrary();
  const single = spec.panels.length === 1;
  const columns = Math.max(1, Math.min(spec.panels.length, spec.columns ?? (single ? 1 : Math.ceil(Math.sqrt(spec.panels.length * 1.1)))));
  const width = spec.panelWidth ?? (single ? 720 : 300);
  const height = spec.panelHeight ?? (single ? 420 : 220);
  const total = { width: 2 * MARGIN + columns * width + (columns - 1) * GAP, height: 0 };
  const colors = colorsOf(spec);
  const head = heading(spec, colors, total.width);
  const pieces = [head.svg];
  const domains = { x: domainOf(spec, spec.panels, 'x'), y: domainOf(spec, spec.panels, 'y') };
  spec.panels.forEach((panel, i) => {
    const left = MARGIN + (i % columns) * (width + GAP);
    const top = head.bottom + Math.floor(i / columns) * (height + PANEL_TITLE + GAP);
    const y = spec.ownY === true ? domainOf(spec, [panel], 'y') : domains.y;
    pieces.push(panelTitle(panel, left, top, width));
    const titleHeight = panel.title === '' ? 0 : PANEL_TITLE;
    pieces.push(place(draw(drawing, spec, panel, colors, { width, height, x: domains.x, y }), left, top + titleHeight));
  });
  const rows = Math.ceil(spec.panels.length / columns);
  let bottom = head.bottom + rows * (height + PANEL_TITLE + GAP) - GAP - (spec.panels[0]?.title === '' ? PANEL_TITLE : 0);
  if (spec.caption !== undefined) bottom += 6;
  for (const line of wrapped(spec.caption ?? '', total.width - 2 * MARGIN, 11)) {
    bottom += 17;
    pieces.push(words(line, MARGIN, bottom, { size: 11, color: FAINT }));
  }
  total.height = Math.ceil(bottom + MARGIN);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${total.width}" height="${total.height}" viewBox="0 0 ${total.width} ${total.height}" font-family="${escaped(FONT)}" role="img">`,
    `<title>${escaped(spec.title)}</title>`,
    `<rect width="${total.width}" height="${total.height}" fill="white"/>`,
    ...pieces,
    '</svg>\n',
  ].join('\n');
}

async function loadLibrary(): Promise<Drawing> {
  try {
    const [plot, { parseHTML }] = await Promise.all([import('@observablehq/plot'), import('linkedom')]);
    return { plot, document: parseHTML('<html><body></body></html>').document as unknown as Document };
  } catch (cause) {
    throw new ChairError('PLOT_UNAVAILABLE', 'the plot library is not installed', {
      expected: 'the packages @observablehq/plot and linkedom',
      todo: 'They are optional: install without `--omit=optional`, or make the plot elsewhere from the output of --json',
      cause,
    });
  }
}

interface Look {
  readonly color: string;
  readonly dashed: boolean;
  readonly mark: string;
  readonly symbol: PlotSymbol;
}

function colorsOf(spec: PlotSpec): Map<string, Look> {
  const colors = new Map<string, Look>();
  let shapes = 0;
  let next = 0;
  for (const { name, color, dashed = false, mark = 'line' } of spec.panels.flatMap((panel) => panel.series)) {
    if (colors.has(name)) continue;
    const symbol = SYMBOLS[shapes % SYMBOLS.length] ?? 'circle';
    // Bars and dashed lines have no dots.
    if (mark === 'points' || (mark === 'line' && !dashed)) shapes++;
    colors.set(name, { color: color ?? PALETTE[next++ % PALETTE.length] ?? INK, dashed, mark, symbol });
  }
  return colors;
}

/** The dot of a series in the legend, in its shape. */
function dotSvg(x: number, y: number, { color, dashed, symbol }: Look): string {
  const paint = dashed ? `fill="white" stroke="${color}" stroke-width="1.5"` : `fill="${color}"`;
  if (symbol === 'circle') return `<circle cx="${x}" cy="${y}" r="3.2" ${paint}/>`;
  const shape = { square: 'M-3,-3h6v6h-6z', triangle: 'M0,-4.2l3.8,6.6h-7.6z', diamond: 'M0,-4.6l3.2,4.6l-3.2,4.6l-3.2,-4.6z' }[symbol];
  return `<path transform="translate(${x},${y})" d="${shape}" ${paint}/>`;
}

/** Undefined for an axis of categories: Plot's own order is that of the points. */
function domainOf(spec: PlotSpec, panels: readonly PlotPanel[], axis: 'x' | 'y'): [number, number] | undefined {
  const { scale = 'linear', fromZero = axis === 'y' && scale === 'linear' } = spec[axis];
  const values: number[] = [];
  for (const { series, rules = [] } of panels) {
    for (const { points } of series) {
      for (const point of points) {
        if (axis === 'y') values.push(point.y, point.low ?? point.y, point.high ?? point.y);
        else if (typeof point.x === 'string') return undefined;
        else values.push(point.x);
      }
    }
    if (axis === 'y') values.push(...rules.map((rule) => rule.y));
  }
  const usable = values.filter((value) => Number.isFinite(value) && (scale === 'linear' || value > 0));
  if (usable.length === 0) return scale === 'log' ? [1, 10] : [0, 1];
  const low = Math.min(...usable);
  const high = Math.max(...usable);
  // Nor does a point lie on the axis.
  const from = fromZero && low >= 0 ? 0 : axis === 'y' && scale === 'linear' && high > low ? low - (high - low) * 0.06 : low;
  if (from === high) return scale === 'log' ? [from / 2, high * 2] : [from - 0.5, high + 0.5];
  return axis === 'y' && scale === 'linear' ? [from, high + (high - from) * 0.06] : [from, high];
}

interface Frame {
  readonly width: number;
  readonly height: number;
  readonly x: [number, number] | undefined;
  readonly y: [number, number] | undefined;
}

interface Dot extends PlotPoint {
  readonly series: string;
}

function draw({ plot, document }: Drawing, spec: PlotSpec, panel: PlotPanel, colors: ReturnType<typeof colorsOf>, frame: Frame): string {
  const dots = (series: PlotSpec['panels'][number]['series'][number]): Dot[] =>
    series.points
      .filter((point) => Number.isFinite(point.y) && (spec.y.scale !== 'log' || point.y > 0))
      .map((point) => ({ ...point, series: series.name }));
  const bars = panel.series.filter((series) => series.mark === 'bars').flatMap(dots);
  const grouped = new Set(bars.map((bar) => bar.series)).size > 1;
  const colorOf = (name: string): string => colors.get(name)?.color ?? INK;
  const marks = [
    bars.length === 0
      ? undefined
      : plot.barY(bars, {
          x: grouped ? 'series' : 'x',
          ...(grouped ? { fx: 'x' } : {}),
          y: 'y',
          fill: (d: Dot) => colorOf(d.series),
          insetLeft: 1,
          insetRight: 1,
        }),
    bars.length === 0 ? plot.ruleY([frame.y?.[0] ?? 0], { stroke: FAINT }) : plot.ruleY([0], { stroke: FAINT }),
  ];
  const whiskers = (points: readonly Dot[], x: object): unknown =>
    plot.ruleX(
      points.filter((d) => d.low !== undefined && d.high !== undefined),
      { ...x, y1: 'low', y2: 'high', stroke: INK, strokeWidth: 1.2, strokeOpacity: 0.8 },
    );
  if (bars.length > 0 && !grouped) marks.push(barValues(plot, bars) as never);
  if (bars.length > 0) marks.push(whiskers(bars, grouped ? { x: 'series', fx: 'x' } : { x: 'x' }) as never);
  for (const series of panel.series.filter((one) => one.mark !== 'bars')) {
    const points = dots(series);
    const stroke = colorOf(series.name);
    const dash = series.dashed === true ? { strokeDasharray: '5,4' } : {};
    if (series.mark !== 'points') marks.push(plot.lineY(points, { x: 'x', y: 'y', stroke, strokeWidth: 1.8, ...dash }));
    marks.push(whiskers(points, { x: 'x', stroke }) as never);
    const symbol = colors.get(series.name)?.symbol ?? 'circle';
    // A circle is Plot's own default, and drawn as one.
    const shape = symbol === 'circle' ? {} : { symbol };
    if (series.dashed !== true) marks.push(plot.dot(points, { x: 'x', y: 'y', r: 2.8, fill: stroke, ...shape }));
    else if (series.mark === 'points') {
      marks.push(plot.dot(points, { x: 'x', y: 'y', r: 3, fill: 'white', stroke, strokeWidth: 1.5, ...shape }));
    }
  }
  for (const rule of panel.rules ?? []) {
    marks.push(plot.ruleY([rule.y], { stroke: INK, strokeDasharray: '2,3' }));
    marks.push(
      plot.text([rule], {
        y: 'y',
        text: 'label',
        frameAnchor: 'left',
        textAnchor: 'start',
        dx: 4,
        dy: -7,
        fontSize: 10.5,
        fill: INK,
        stroke: 'white',
        strokeWidth: 3,
      }),
    );
  }
  const axis = (of: PlotAxis, domain: [number, number] | undefined): object => ({
    type: of.scale === 'log' ? 'log' : undefined,
    domain,
    label: of.label,
    labelArrow: 'none',
    labelAnchor: 'center',
    tickFormat: tickText,
    // Plot draws grids at a tenth of their colour.
    grid: of === spec.y ? '#000000' : false,
    ...ticksOf(of, domain, of === spec.y ? 42 : 56),
  });
  const y = axis(spec.y, frame.y);
  const x = axis(spec.x, frame.x);
  const options = {
    document,
    width: frame.width,
    height: frame.height,
    // Room for four digits and a comma beside what the axis shows.
    marginLeft: (frame.y?.[1] ?? 0) >= 1000 && spec.y.scale !== 'log' ? 62 : 52,
    marginBottom: 40,
    marginTop: 10,
    marginRight: 12,
    style: { fontSize: '11px', fontFamily: 'inherit', color: INK, background: 'none' },
    y,
    ...(grouped
      ? {
          x: { axis: null, domain: [...new Set(bars.map((bar) => bar.series))] },
          fx: {
            domain: [...new Set(bars.map((bar) => bar.x))],
            label: spec.x.label,
            labelAnchor: 'center',
            tickFormat: (t: unknown) => String(t),
            padding: 0.15,
          },
        }
      : {
          x:
            bars.length > 0
              ? { label: spec.x.label, labelArrow: 'none', tickFormat: (t: unknown) => String(t), padding: 0.2 }
              : { ...x, inset: 8 },
        }),
    marks: marks.filter((mark) => mark !== undefined),
  };
  const drawn = plot.plot(options as Parameters<Library['plot']>[0]);
  return (drawn as unknown as { readonly outerHTML: string }).outerHTML;
}

/** Above each bar, or its whisker: where a figure is read, nobody has to measure it with a ruler. */
function barValues(plot: Library, bars: readonly Dot[]): unknown {
  return plot.text(bars, {
    x: 'x',
    y: (d: Dot) => Math.max(d.y, d.high ?? d.y),
    text: (d: Dot) => tickText(Number(d.y.toPrecision(3))),
    dy: -6,
    fontSize: 10.5,
    fill: INK,
    stroke: 'white',
    strokeWidth: 3,
  });
}

/** Of a log scale only powers of ten are named, or there would be no room; between them where there are too few. */
function ticksOf({ scale, ticks }: PlotAxis, domain: [number, number] | undefined, spacing: number): object {
  if (ticks !== undefined) return { ticks: [...ticks] };
  if (scale !== 'log' || domain === undefined) return { tickSpacing: spacing };
  const [from, to] = domain;
  const made = (steps: readonly number[]): number[] => {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++)
      found.push(...steps.map((step) => Number(`${step}e${power}`)));
    return found.filter((value) => value >= from * 0.999 && value <= to * 1.001);
  };
  const powers = made([1]);
  return { ticks: powers.length >= 3 ? powers : made([1, 2, 5]) };
}

/** 1500 -> 1,500; 0.002 -> 0.002; 12000000 -> 12M */
function tickText(value: unknown): string {
  if (typeof value !== 'number') return String(value);
  const size = Math.abs(value);
  if (size >= 1e9) return `${trimmed(value / 1e9)}G`;
  if (size >= 1e6) return `${trimmed(value / 1e6)}M`;
  if (size >= 10_000) return `${trimmed(value / 1e3)}k`;
  return Number.isInteger(value) ? value.toLocaleString('en-US') : trimmed(value);
}

function trimmed(value: number): string {
  return String(Number(value.toPrecision(3)));
}

/** Plot's own svg, without its stylesheet (not every viewer knows `:where`), as a nested one at its place. */
function place(svg: string, left: number, top: number): string {
  return svg
    .replace(/<style>[\s\S]*?<\/style>/, '')
    .replace(/^<svg /, `<svg x="${left}" y="${top}" `)
    .replaceAll('currentColor', INK);
}

function heading(spec: PlotSpec, colors: ReadonlyMap<string, Look>, width: number): { readonly svg: string; readonly bottom: number } {
  const pieces: string[] = [];
  let y = MARGIN - 4;
  for (const line of wrapped(spec.title, width - 2 * MARGIN, 18)) {
    y += 20;
    pieces.push(words(line, MARGIN, y, { size: 18, weight: 600 }));
  }
  y += 4;
  for (const line of (spec.subtitle ?? '').split('\n').flatMap((text) => wrapped(text, width - 2 * MARGIN, 12))) {
    y += 17;
    pieces.push(words(line, MARGIN, y, { size: 12, color: FAINT }));
  }
  let x = MARGIN;
  // A single series that the axis names needs no legend.
  const isNamed = colors.size === 1 && (spec.panels.length === 1 || colors.has(spec.y.label));
  if (colors.size > 0 && !isNamed) {
    y += 24;
    for (const [name, look] of colors) {
      const { color, dashed, mark } = look;
      const wide = 26 + name.length * 12 * CHARACTER + 18;
      if (x > MARGIN && x + wide > width - MARGIN) {
        x = MARGIN;
        y += 20;
      }
      pieces.push(
        mark === 'bars'
          ? `<rect x="${x + 4}" y="${y - 10}" width="12" height="12" fill="${color}"/>`
          : mark === 'points'
            ? ''
            : `<path d="M${x},${y - 4}h20" stroke="${color}" stroke-width="2"${dashed ? ' stroke-dasharray="5,4"' : ''}/>`,
      );
      if (mark === 'points' || (mark !== 'bars' && !dashed)) pieces.push(dotSvg(x + 10, y - 4, look));
      pieces.push(words(name, x + 26, y, { size: 12 }));
      x += wide;
    }
  }
  return { svg: pieces.join('\n'), bottom: y + 16 };
}

function panelTitle({ title, note }: PlotPanel, left: number, top: number, width: number): string {
  if (title === '') return '';
  const room = Math.floor((width - 8) / (12.5 * BOLD));
  const fit = title.length > room ? `${title.slice(0, room - 1)}…` : title;
  const rest = (width - 20 - fit.length * 12.5 * BOLD) / (10.5 * CHARACTER);
  const beside =
    note === undefined || rest < note.length ? '' : words(note, left + width - 12, top + 16, { size: 10.5, color: FAINT, anchor: 'end' });
  return words(fit, left + 4, top + 16, { size: 12.5, weight: 600 }) + beside;
}

interface WordStyle {
  readonly size: number;
  readonly color?: string;
  readonly weight?: number;
  readonly anchor?: 'end';
}

function words(text: string, x: number, y: number, { size, color = INK, weight = 400, anchor }: WordStyle): string {
  const end = anchor === undefined ? '' : ` text-anchor="${anchor}"`;
  return `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${color}"${end}>${escaped(text)}</text>`;
}

/** Lines that fit into `width` px. */
function wrapped(text: string, width: number, size: number): string[] {
  const room = Math.max(10, Math.floor(width / (size * CHARACTER)));
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= room) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
