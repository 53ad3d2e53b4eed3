/** What a simulation showed, for people: tables, and a drawing of its first frames. */
import { DISPATCHER } from '../broker/topics.js';
import type { Interruption, SimulationResult, Span } from '../scheduler/simulate/options.js';
import { describe } from '../scheduler/simulate/simulate.js';
import { bytesText, formatTable, msText, wrapText } from './table.js';

const MOST_RESOURCES = 12;
const MOST_EVENTS = 40;
/** What is shown as 0 % says nothing. */
const LEAST_BUSY = 0.005;

export interface Simulated {
  readonly planner: string;
  readonly stages: readonly string[];
  readonly inFlight: number;
  readonly notes: readonly string[];
  readonly result: SimulationResult;
}

export function simulationText({ planner, stages, inFlight, notes, result }: Simulated, width: number): string {
  const { fps, latencyMs, frames, predicted, traffic, durationMs, interruptions, events, resources } = result;
  const { completed, failed, reissued } = frames;
  // Where no frame was answered there is no latency.
  const latency = (ms: number): string => (completed === 0 ? '-' : msText(ms));
  const lines = [
    ...wrapText(`${planner}: ${stages.join(', ')}; ${inFlight} frames in flight`, width, ''),
    '',
    formatTable(
      [{ title: '' }, { title: 'simulated', align: 'right' }, { title: 'predicted', align: 'right' }],
      [
        ['frames per second', fps.toPrecision(4), predicted.fps.toPrecision(4)],
        ['latency, median', latency(latencyMs.p50), `${msText(predicted.latencyMs)} alone`],
        ['latency, 95 %', latency(latencyMs.p95), ''],
        ['latency, 99 %', latency(latencyMs.p99), ''],
      ],
      width,
    ),
    '',
    ...wrapText(
      `${completed} frames answered in ${msText(durationMs)}, ${failed} failed${errorsText(result)}, ${reissued} issued again; ${bytesText(traffic.bytes)} in ${traffic.messages} messages`,
      width,
      '',
    ),
    '',
    formatTable(
      [{ title: 'busiest' }, { title: 'with' }, { title: 'of the time', align: 'right' }],
      resources
        .filter(({ busy }, i) => i === 0 || busy >= LEAST_BUSY)
        .slice(0, MOST_RESOURCES)
        .map(({ who, kind, busy }) => [deviceName(who), USES[kind], `${(100 * busy).toFixed(0)} %`]),
      width,
    ),
    ...(interruptions.length === 0 ? [] : ['', interruptionTable(interruptions, durationMs, width)]),
    ...(events.length === 0
      ? []
      : ['', ...events.slice(0, MOST_EVENTS).flatMap(({ atMs, text }) => wrapText(`${(atMs / 1000).toFixed(2)} s  ${text}`, width, '  '))]),
    ...(notes.length === 0 ? [] : ['', ...notes.flatMap((note) => wrapText(note, width, ''))]),
  ];
  return lines.join('\n');
}

const USES = { compute: 'computing', up: 'sending', down: 'receiving', pair: 'the way between them', medium: 'the shared medium' } as const;

/** The dispatcher is called what people look for. Of a pair: both. */
function deviceName(who: string): string {
  return who
    .split('>')
    .map((end) => (end === DISPATCHER ? 'gateway' : end))
    .join(' to ');
}

function errorsText({ errors }: SimulationResult): string {
  const codes = Object.entries(errors).map(([code, count]) => `${code} ${count}`);
  return codes.length === 0 ? '' : ` (${codes.join(', ')})`;
}

function interruptionTable(rows: readonly Interruption[], durationMs: number, width: number): string {
  const since = (ms: number | undefined): string => (ms === undefined ? '-' : msText(ms));
  return formatTable(
    [
      { title: 'incident', least: 40 },
      { title: 'longest gap', align: 'right' },
      { title: 'usual', align: 'right', drop: 2 },
      { title: 'noticed', align: 'right', drop: 1 },
      { title: 'new plan', align: 'right' },
    ],
    rows.map((row) => [
      `${(row.incident.atMs / 1000).toFixed(1)} s ${describe(row.incident)}${row.incident.atMs > durationMs ? ' (after the last frame)' : ''}`,
      msText(row.gapMs),
      msText(row.usualMs),
      since(row.noticedMs),
      since(row.replannedMs),
    ]),
    width,
  );
}

const PLOT = 860;
const ROW = 22;
const TOP = 66;
const FOOT = 30;
/** Of a row: a run, and a message below it. */
const RUN = { at: 3, height: 12 } as const;
const SEND = { at: 16, height: 3 } as const;
/** More of them are a pattern in which nobody sees one. */
const MOST_FRAMES = 24;
/** Of a name at this size, px. */
const CHARACTER = 7;
const LONGEST_NAME = 28;
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#8c6d00', '#56b4e9', '#e69f00', '#444444'];

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Names often differ at their ends. */
const shortName = (name: string): string => (name.length <= LONGEST_NAME ? name : `…${name.slice(1 - LONGEST_NAME)}`);

/** Ticks at 1, 2 or 5 times a power of ten, some five of them. */
function ticksTo(endMs: number): number[] {
  const rough = endMs / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((one) => one * power >= rough) ?? 10);
  return Array.from({ length: Math.floor(endMs / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

/** Who runs (thick) and sends (thin) which frame when: one line for each device, one colour for each frame. One self-contained SVG. */
export function timelineSvg(title: string, all: readonly Span[]): string {
  const until = Math.min(...all.map(({ frame }) => frame)) + MOST_FRAMES;
  const spans = all.filter(({ frame }) => frame < until);
  const who = [...new Set(spans.map((span) => span.who))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const endMs = Math.max(1e-3, ...spans.map(({ toMs }) => toMs));
  const left = 24 + CHARACTER * Math.max(4, ...who.map((name) => shortName(deviceName(name)).length));
  const x = (ms: number): number => left + (ms / endMs) * PLOT;
  const height = TOP + who.length * ROW + FOOT;
  const bars = spans.map(({ who: name, what, frame, stage, fromMs, toMs }) => {
    const place = what === 'run' ? RUN : SEND;
    const top = TOP + who.indexOf(name) * ROW + place.at;
    // Stages as everywhere else, from 1; what the gateway sends first comes before all of them.
    const sent = stage < 0 ? 'sent to the first stage' : `sent after stage ${stage + 1}`;
    const words = `frame ${frame}, ${what === 'run' ? `stage ${stage + 1}` : sent}: ${fromMs.toFixed(1)} to ${toMs.toFixed(1)} ms`;
    const wide = Math.max(0.5, x(toMs) - x(fromMs)).toFixed(1);
    return `<rect x="${x(fromMs).toFixed(1)}" y="${top}" width="${wide}" height="${place.height}" fill="${COLOURS[frame % COLOURS.length]}"><title>${words}</title></rect>`;
  });
  const names = who.map(
    (name, i) => `<text x="${left - 8}" y="${TOP + i * ROW + 14}" text-anchor="end">${escaped(shortName(deviceName(name)))}</text>`,
  );
  const bottom = height - FOOT;
  const axis = ticksTo(endMs).map(
    (ms) =>
      `<line x1="${x(ms).toFixed(1)}" x2="${x(ms).toFixed(1)}" y1="${TOP - 6}" y2="${bottom + 4}" stroke="#d0d7de"/><text x="${x(ms).toFixed(1)}" y="${bottom + 18}" text-anchor="middle">${endMs < 10_000 ? `${ms} ms` : `${ms / 1000} s`}</text>`,
  );
  const key = [
    `<path d="M16,43h22" stroke="#59636e" stroke-width="${RUN.height}"/><text x="44" y="47">runs a part of the frame</text>`,
    `<path d="M200,43h22" stroke="#59636e" stroke-width="${SEND.height}"/><text x="228" y="47">sends; a colour for each frame (the pointer over a bar says which)</text>`,
  ];
  const wide = Math.ceil(left + PLOT + 40);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${height}" viewBox="0 0 ${wide} ${height}" font-family="Inter, Helvetica, Arial, sans-serif" font-size="12" fill="#1f2328">`,
    `<rect width="100%" height="100%" fill="white"/><text x="16" y="24" font-size="15" font-weight="600">${escaped(title)}</text>`,
    ...key,
    ...axis,
    ...names,
    ...bars,
    '</svg>\n',
  ].join('\n');
}
