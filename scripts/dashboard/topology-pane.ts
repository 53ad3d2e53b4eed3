/** Who holds what and what lies between: the topology as lines, and the table of all lanes. Pure. */
import { DISPATCHER } from '../../broker/topics.js';
import type { Lane } from '../../scheduler/dashboard/lanes.js';
import type { Hop, SeatView, StageGroup, Topology } from '../../scheduler/dashboard/topology.js';
import type { DashboardView } from '../../scheduler/dashboard/view.js';
import { bytesText } from '../table.js';
import { millis, percent, speed } from './figures.js';
import type { Glyphs } from './glyphs.js';
import { stateTone } from './look.js';
import { type Column, tableLines, wrapSpans } from './table.js';
import { fitLine, inColumns, type Line, line, span, type Tone, widthOf } from './text.js';

/** The dispatcher is called what people look for. */
const named = (name: string): string => (name === DISPATCHER ? 'gateway' : name);

/** Stages in a column, what lies between them, and who holds what; `detail`: a line for each seat and lane. */
export function topologyLines(topology: Topology | undefined, width: number, glyphs: Glyphs, detail = false): Line[] {
  if (topology === undefined || topology.flow.length === 0) return [line(' No plan yet.', 'dim')];
  const names = topology.flow.flatMap((one) => (one.kind === 'stages' ? [stageName(one)] : []));
  const label = Math.min(Math.max(ENDS.out.length, ...names.map(widthOf)), Math.floor(width / 3)) + 2;
  const body = topology.flow.flatMap((one, i) => {
    const end = i === 0 ? ENDS.in : i === topology.flow.length - 1 ? ENDS.out : undefined;
    if (one.kind === 'hop')
      return end === undefined || detail ? hopLines(one, width, glyphs, detail) : endLines(end, one, label, width, glyphs);
    const within = one.within.length === 0 ? [] : laneLines(one.within, `   ${glyphs.upDown} `, 'between them', width, glyphs, detail);
    return [...(detail ? stageDetail(one, width, glyphs) : stageLines(one, label, width, glyphs)), ...within];
  });
  const across =
    topology.across.length === 0 ? [] : laneLines(topology.across, `   ${glyphs.right} `, 'over stages', width, glyphs, detail);
  const [head, tail] = detail ? [[line(` ${ENDS.in}`, 'accent')], [line(` ${ENDS.out}`, 'accent')]] : [[], []];
  // What jumps over stages comes before the way back to the gateway.
  const [before, last] = detail ? [body, []] : [body.slice(0, -1), body.slice(-1)];
  return [...head, ...before, ...across, ...last, ...tail].map((one) => fitLine(one, width, glyphs.dots));
}

const ENDS = { in: 'gateway sends', out: 'gateway receives' } as const;

/** The gateway's end of the flow, with its lanes beside it. */
function endLines(end: string, { lanes }: Hop, label: number, width: number, glyphs: Glyphs): Line[] {
  const head = ` ${inColumns(end, label - 1, 'left', glyphs.dots)} `;
  if (lanes.length === 0) return [line(head, 'accent')];
  const words = laneWords(lanes, '', glyphs);
  const [first = [], ...more] = wrapSpans(words, width - head.length, 0, 3);
  return [[span(head, 'accent'), ...first], ...more.map((one): Line => [span(' '.repeat(head.length)), ...one])];
}

function stageName({ first, last, cut, seats }: StageGroup): string {
  const stages = first === last ? `stage ${first}` : `stages ${first}-${last}`;
  const parts = seats[0]?.length ?? 0;
  const parity = seats[0]?.some((seat) => seat.parity) === true;
  const how = parts <= 1 ? 'whole' : `${cut}:${parity ? `${parts - 1}+1` : parts}`;
  return `${stages} ${how}${seats.length > 1 ? ` x${seats.length}` : ''}`;
}

/** Longer names are told apart by their ends. */
const LONGEST_NAME = 24;

function seatSpan({ agent, state, parts, parity, share }: SeatView, { dots }: Glyphs): Line {
  const what = parity ? ' parity' : parts > 1 ? ` ${percent(share)}` : '';
  const bad = state === 'lost' || state === 'stopped' || state === 'refused' || state === 'unknown';
  const wrong = state === 'ready' ? [] : [span(` (${state})`, bad ? 'bad' : 'warn')];
  const name = inColumns(agent, Math.min(LONGEST_NAME, widthOf(agent)), 'left', dots);
  return [span(name, bad ? 'bad' : 'plain', { bold: true }), span(what, 'dim'), ...wrong];
}

function stageLines(group: StageGroup, label: number, width: number, glyphs: Glyphs): Line[] {
  const several = group.seats.length > 1 && (group.seats[0]?.length ?? 0) > 1;
  // One part in several replicas: who takes turns. Several parts: replica by replica.
  const words = several
    ? group.seats.flatMap((parts, r): Line[] => [[span(`copy ${r + 1}:`, 'dim')], ...parts.map((seat) => seatSpan(seat, glyphs))])
    : group.seats.flat().map((seat) => seatSpan(seat, glyphs));
  const name = span(` ${inColumns(stageName(group), label - 1, 'left', glyphs.dots)} `, 'accent');
  const [first = [], ...more] = wrapSpans(words, width - label - 1, 0);
  return [[name, ...first], ...more.map((one): Line => [span(' '.repeat(label + 1)), ...one])];
}

function stageDetail(group: StageGroup, width: number, glyphs: Glyphs): Line[] {
  const seats = group.seats.flat();
  const longest = Math.min(LONGEST_NAME, Math.max(...seats.map(({ agent }) => widthOf(agent))));
  const lines = seats.map((seat): Line => {
    const [first = '', ...more] = seat.slices.filter((slice) => slice !== '');
    const slice = first === '' ? '' : `  slice ${first.slice(0, 8)}${more.length === 0 ? '' : ` +${more.length}`}`;
    const copy = group.seats.length > 1 ? `copy ${seat.replica + 1} ` : '';
    const part = seat.parts > 1 ? `part ${seat.part}/${seat.parts} ` : '';
    const ran =
      seat.measuredMs > 0 ? `runs ${millis(seat.measuredMs)} ms (plan ${millis(seat.predictedMs)})` : `plan ${millis(seat.predictedMs)} ms`;
    const [, ...rest] = seatSpan({ ...seat, parts: 1 }, glyphs);
    const name = span(inColumns(seat.agent, longest, 'left', glyphs.dots), stateTone(seat.state) === 'bad' ? 'bad' : 'plain', {
      bold: true,
    });
    const work = seat.parity ? 'parity' : percent(seat.share).padStart(4);
    return [
      span(`   ${copy}${part}`, 'dim'),
      name,
      ...rest.slice(1),
      span(` ${work}  ${ran}  ${bytesText(seat.weightBytes)} of weights${slice}`),
    ];
  });
  return [line(` ${stageName(group)}`, 'accent'), ...lines].map((one) => fitLine(one, width, glyphs.dots));
}

function hopLines({ lanes, stays }: Hop, width: number, glyphs: Glyphs, detail: boolean): Line[] {
  const arrow = `   ${glyphs.down} `;
  if (lanes.length > 0) return laneLines(lanes, arrow, '', width, glyphs, detail);
  return [line(stays.length > 0 ? `${arrow}stays at ${stays.join(', ')}` : arrow, 'dim')];
}

/** What goes along several lanes, kind by kind, worst first; or each in a line of its own. */
function laneLines(lanes: readonly Lane[], arrow: string, where: string, width: number, glyphs: Glyphs, detail: boolean): Line[] {
  if (detail) return lanes.map((lane) => laneDetail(lane, arrow, glyphs));
  return wrapSpans(laneWords(lanes, where, glyphs), width - arrow.length, 0, 3).map(
    (one, i): Line => [span(i === 0 ? arrow : ' '.repeat(arrow.length), 'accent'), ...one],
  );
}

function laneWords(lanes: readonly Lane[], where: string, glyphs: Glyphs): Line[] {
  const kinds = new Map<string, Lane[]>();
  for (const lane of lanes) {
    const alike = kinds.get(lane.lane);
    if (alike === undefined) kinds.set(lane.lane, [lane]);
    else alike.push(lane);
  }
  const sorted = [...kinds].sort(([a], [b]) => laneRank(a) - laneRank(b));
  const place = where === '' ? '' : ` ${where}`;
  return sorted.map(([kind, some]): Line => {
    const [only] = some;
    if (some.length === 1 && only !== undefined) {
      return [
        span(`${named(only.from)} ${glyphs.right} ${named(only.to)} ${kindText(kind)}`, laneTone(kind)),
        span(` ${msRange(some)} ${speed(sumOf(some))}`),
      ];
    }
    return [
      span(`${some.length} ${kindText(kind)} lanes${place}`, laneTone(kind)),
      span(` ${msRange(some)}, in all ${speed(sumOf(some))}`),
    ];
  });
}

function laneDetail({ from, to, lane, why, ms, bytesPerSecond, capacity, bytesPerFrame }: Lane, arrow: string, glyphs: Glyphs): Line {
  const can = capacity > 0 ? ` of ${speed(capacity)}` : '';
  const frame = bytesPerFrame > 0 ? `  ${bytesText(bytesPerFrame)} a frame` : '';
  return [
    span(arrow, 'accent'),
    span(`${named(from)} ${glyphs.right} ${named(to)} `),
    span(kindText(lane), laneTone(lane)),
    span(` ${millis(ms)} ms  ${speed(bytesPerSecond)}${can}${frame}`),
    ...(why === '' ? [] : [span(`  (${why})`, 'dim')]),
  ];
}

const KINDS = ['gone', 'down', 'relay', '', 'direct', 'local'];

function laneRank(kind: string): number {
  return KINDS.indexOf(kind);
}

function kindText(kind: string): string {
  return kind === '' ? 'unused' : kind;
}

function laneTone(kind: string): Tone {
  if (kind === 'direct' || kind === 'local') return 'good';
  return kind === 'relay' ? 'warn' : kind === '' ? 'dim' : 'bad';
}

function msRange(lanes: readonly Lane[]): string {
  const known = lanes.map(({ ms }) => ms).filter((ms) => ms > 0);
  if (known.length === 0) return '- ms';
  const [least, most] = [millis(Math.min(...known)), millis(Math.max(...known))];
  return `${least === most ? least : `${least}-${most}`} ms`;
}

function sumOf(lanes: readonly Lane[]): number {
  return lanes.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0);
}

/** All lanes, the busiest first: a table. */
export function lanesLines({ lanes }: Pick<DashboardView, 'lanes'>, width: number, glyphs: Glyphs): Line[] {
  if (lanes.length === 0) return [line(' No lanes yet: agents open them when a plan seats them.', 'dim')];
  const columns: Column<Lane>[] = [
    { title: 'from', rank: 0, least: 8, cell: ({ from }) => ({ text: named(from) }) },
    { title: 'to', rank: 0, least: 8, cell: ({ to }) => ({ text: named(to) }) },
    { title: 'lane', rank: 0, cell: ({ lane }) => ({ text: kindText(lane), tone: laneTone(lane) }) },
    { title: 'ms', rank: 1, align: 'right', cell: ({ ms }) => ({ text: millis(ms) }) },
    { title: 'now', rank: 1, align: 'right', cell: ({ bytesPerSecond }) => ({ text: speed(bytesPerSecond) }) },
    { title: 'can', rank: 2, align: 'right', cell: ({ capacity }) => ({ text: capacity > 0 ? speed(capacity) : '-' }) },
    {
      title: 'a frame',
      rank: 2,
      align: 'right',
      cell: ({ bytesPerFrame }) => ({ text: bytesPerFrame > 0 ? bytesText(bytesPerFrame) : '-' }),
    },
    { title: 'sent', rank: 3, align: 'right', cell: ({ bytesSent }) => ({ text: bytesText(bytesSent) }) },
    {
      title: 'why not direct',
      rank: 4,
      least: 12,
      only: (rows) => rows.some(({ why }) => why !== ''),
      cell: ({ why }) => ({ text: why, tone: 'dim' }),
    },
  ];
  const sorted = [...lanes].sort((a, b) => b.bytesPerSecond - a.bytesPerSecond || laneRank(a.lane) - laneRank(b.lane));
  return tableLines(columns, sorted, { width: width - 2, gap: 2, dots: glyphs.dots }).map((one): Line => [span('  '), ...one]);
}
