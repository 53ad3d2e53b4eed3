/** Deployments, events, and the lines above each part of the screen. Pure. */
import type { DeploymentView, EventView } from '../../scheduler/dashboard/view.js';
import { PROGRAM } from '../package-root.js';
import { ago, millis, rate } from './figures.js';
import { type Glyphs, sparkline } from './glyphs.js';
import { SPARK, stateTone, WIDE } from './look.js';
import { type Column, tableLines, wrapSpans } from './table.js';
import { fitLine, type Line, line, span, type Tone, widthOf } from './text.js';

function deploymentColumns(width: number, glyphs: Glyphs): Column<DeploymentView>[] {
  const wide = width >= WIDE;
  const name: Column<DeploymentView>[] = [
    { title: 'name', rank: 0, least: 8, cell: (d) => ({ text: d.name }) },
    { title: 'state', rank: 0, cell: ({ state }) => ({ text: state, tone: stateTone(state) }) },
    { title: wide ? 'objective' : 'goal', rank: 1, least: 9, cell: ({ objective }) => ({ text: objective || '-' }) },
  ];
  const figures: Column<DeploymentView>[] = wide
    ? [
        { title: 'frames/s', rank: 0, align: 'right', cell: (d) => ({ text: rate(d.framesPerSecond) }) },
        { title: 'predicted', rank: 1, align: 'right', cell: (d) => ({ text: rate(d.predictedFps), tone: 'dim' }) },
        { title: 'p50 ms', rank: 1, align: 'right', cell: (d) => ({ text: millis(d.p50Ms) }) },
        { title: 'p95 ms', rank: 1, align: 'right', cell: (d) => ({ text: millis(d.p95Ms) }) },
        { title: 'predicted', rank: 1, align: 'right', cell: (d) => ({ text: millis(d.predictedMs), tone: 'dim' }) },
      ]
    : [
        { title: 'fps (plan)', rank: 0, align: 'right', cell: (d) => ({ text: `${rate(d.framesPerSecond)} (${rate(d.predictedFps)})` }) },
        {
          title: 'p50/p95 ms (plan)',
          rank: 1,
          align: 'right',
          cell: (d) => ({ text: `${millis(d.p50Ms)}/${millis(d.p95Ms)} (${millis(d.predictedMs)})` }),
        },
      ];
  return [
    ...name,
    ...figures,
    { title: wide ? 'in flight' : 'flight', rank: 2, align: 'right', cell: (d) => ({ text: String(d.inFlight) }) },
    { title: 'queued', rank: 3, align: 'right', cell: (d) => ({ text: String(d.queued), tone: d.queued > 0 ? 'warn' : 'plain' }) },
    {
      title: wide ? 'failed' : 'fail',
      rank: 2,
      align: 'right',
      cell: (d) => ({ text: String(d.failed), tone: d.failed > 0 ? 'bad' : 'plain' }),
    },
    { title: 'epoch', rank: 3, align: 'right', cell: (d) => ({ text: d.epoch === 0 ? '-' : String(d.epoch) }) },
    { title: 'frames/s trend', rank: 4, cell: (d) => ({ text: sparkline(d.framesSeries, SPARK, glyphs), tone: 'accent' }) },
    { title: 'p50 trend', rank: 6, cell: (d) => ({ text: sparkline(d.p50Series, SPARK, glyphs), tone: 'accent' }) },
  ];
}

/** Title line and rows; `shown` is the one whose topology is seen. */
export function deploymentLines(deployments: readonly DeploymentView[], shown: string, width: number, glyphs: Glyphs): Line[] {
  if (deployments.length === 0) return [line(` Nothing is deployed. To serve a model: ${PROGRAM} deploy MODEL.onnx`, 'dim')];
  const style = { width: width - 2, gap: width < 100 ? 1 : 2, dots: glyphs.dots };
  const [title = [], ...body] = tableLines(deploymentColumns(width, glyphs), deployments, style);
  const several = deployments.length > 1;
  return [
    [span('  '), ...title],
    ...body.map((cells, i): Line => [span(several && deployments[i]?.name === shown ? '> ' : '  ', 'accent'), ...cells]),
  ];
}

const BAD_EVENTS = new Set(['lost', 'refuse', 'failed', 'offline', 'impostor']);
const WARN_EVENTS = new Set(['suspect', 'held', 'draining', 'stopped', 'abandon', 'implausible', 'stood still', 'unanswered']);
const GOOD_EVENTS = new Set(['joined', 'ready', 'recovered', 'started', 'serving', 'deployed']);

function eventTone(kind: string): Tone {
  if (BAD_EVENTS.has(kind)) return 'bad';
  if (WARN_EVENTS.has(kind)) return 'warn';
  return GOOD_EVENTS.has(kind) ? 'good' : 'plain';
}

/** Columns of the time before an event. */
const INDENT = 13;

/** Newest first; one line each, or as many as they need. */
export function eventLines(events: readonly EventView[], width: number, whole = false): Line[] {
  if (events.length === 0) return [line(' Nothing happened yet.', 'dim')];
  return events.flatMap(({ agoMs, kind, text }) => {
    const when = span(` ${ago(agoMs).padStart(6)} ago  `, 'dim');
    if (!whole) return [[when, span(kind, eventTone(kind)), span(`: ${text}`)]];
    const words = [[span(kind, eventTone(kind)), span(':')], ...text.split(' ').map((word): Line => line(word))];
    const [first = [], ...more] = wrapSpans(words, width - INDENT, 2, 1);
    return [[when, ...first], ...more.map((one): Line => [span(' '.repeat(INDENT)), ...one])];
  });
}

/** `-- Agents -- 6, 5 ready ------` */
export function ruleLine(title: string, about: string, width: number, { rule, dots }: Glyphs): Line {
  const head: Line = [
    span(`${rule} `, 'dim'),
    span(title, 'accent', { bold: true }),
    ...(about === '' ? [] : [span(`  ${about}`, 'dim')]),
    span(' ', 'dim'),
  ];
  const used = head.reduce((sum, { text }) => sum + widthOf(text), 0);
  return fitLine([...head, span(rule.repeat(Math.max(0, width - used)), 'dim')], width, dots);
}
