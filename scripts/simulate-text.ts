/** What a simulation showed, for people: tables, and a drawing of its first frames. */
import type { Interruption, SimulationResult, Span } from '../scheduler/simulate/options.js';
import { describe } from '../scheduler/simulate/simulate.js';
import { bytesText, formatTable, msText, wrapText } from './table.js';

const MOST_RESOURCES = 12;
const MOST_EVENTS = 40;

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
  const lines = [
    ...wrapText(`${planner}: ${stages.join(', ')}; ${inFlight} frames in flight`, width, ''),
    '',
    formatTable(
      [{ title: '' }, { title: 'simulated', align: 'right' }, { title: 'predicted', align: 'right' }],
      [
        ['frames per second', fps.toPrecision(4), predicted.fps.toPrecision(4)],
        ['latency, median', msText(latencyMs.p50), `${msText(predicted.latencyMs)} alone`],
        ['latency, 95 %', msText(latencyMs.p95), ''],
        ['latency, 99 %', msText(latencyMs.p99), ''],
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
      [{ title: 'busiest' }, { title: 'what' }, { title: 'busy', align: 'right' }],
      resources.slice(0, MOST_RESOURCES).map(({ who, kind, busy }) => [who, kind, `${(100 * busy).toFixed(0)} %`]),
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

function errorsText({ errors }: SimulationResult): string {
  const codes = Object.entries(errors).map(([code, count]) => `${code} ${count}`);
  return codes.length === 0 ? '' : ` (${codes.join(', ')})`;
}

function interruptionTable(rows: readonly Interruption[], durationMs: number, width: number): string {
  const since = (ms: number | undefined): string => (ms === undefined ? '-' : msText(ms));
  return formatTable(
    [
      { title: 'incident' },
      { title: 'longest gap', align: 'right' },
      { title: 'usual', align: 'right' },
      { title: 'noticed', align: 'right' },
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

const LABEL = 120;
const PLOT = 860;
const ROW = 22;
const TOP = 44;
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#8c6d00', '#56b4e9', '#e69f00', '#444444'];

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Who runs (thick) and sends (thin) which frame when: one line for each device, one colour for each frame. One self-contained SVG. */
export function timelineSvg(title: string, spans: readonly Span[]): string {
  const who = [...new Set(spans.map((span) => span.who))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const endMs = Math.max(1, ...spans.map(({ toMs }) => toMs));
  const x = (ms: number): number => LABEL + (ms / endMs) * PLOT;
  const height = TOP + who.length * ROW + 34;
  const bars = spans.map(({ who: name, what, frame, stage, fromMs, toMs }) => {
    const top = TOP + who.indexOf(name) * ROW + (what === 'run' ? 3 : 16);
    const words = `frame ${frame}, ${what === 'run' ? `stage ${stage}` : `sent after stage ${stage}`}: ${fromMs.toFixed(1)} to ${toMs.toFixed(1)} ms`;
    const wide = Math.max(0.5, x(toMs) - x(fromMs)).toFixed(1);
    return `<rect x="${x(fromMs).toFixed(1)}" y="${top}" width="${wide}" height="${what === 'run' ? 12 : 3}" fill="${COLOURS[frame % COLOURS.length]}"><title>${words}</title></rect>`;
  });
  const names = who.map((name, i) => `<text x="${LABEL - 8}" y="${TOP + i * ROW + 14}" text-anchor="end">${escaped(name)}</text>`);
  const ticks = Array.from({ length: 6 }, (_, i) => (endMs * i) / 5);
  const axis = ticks.map(
    (ms) =>
      `<line x1="${x(ms)}" x2="${x(ms)}" y1="${TOP - 6}" y2="${height - 30}" stroke="#d0d7de"/><text x="${x(ms)}" y="${height - 14}" text-anchor="middle">${Math.round(ms)} ms</text>`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${LABEL + PLOT + 40} ${height}" font-family="Inter, Helvetica, Arial, sans-serif" font-size="12" fill="#1f2328">`,
    `<rect width="100%" height="100%" fill="white"/><text x="16" y="24" font-size="15" font-weight="600">${escaped(title)}</text>`,
    ...axis,
    ...names,
    ...bars,
    '</svg>\n',
  ].join('\n');
}
