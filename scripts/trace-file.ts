/**
 * A trace as a file of the Chrome trace event format, which https://ui.perfetto.dev and chrome://tracing open: one process for each agent, in the order of the
 * stages they compute, one row for each kind of work in it, an arrow from each send to the seat that took it. All times on the gateway's clock. Pure.
 *
 * Format: "Trace Event Format", Google (complete events X, metadata M, flows s and f). What the two viewers want beyond it: events of a row never overlap
 * (Perfetto drops what does); ids of flows are numbers (Perfetto reads strings as hexadecimal and drops the rest); an arrow begins and ends within an event of its
 * row, and ends no earlier than it begins (chrome://tracing drops it otherwise); events stand in the order of their times, what encloses an arrow's end before it.
 */
import type { TraceReport, TraceSpan, TraceSpans } from '../broker/messages.js';
import { SINK } from '../broker/plan.js';
import { DISPATCHER } from '../broker/topics.js';

/** Rows of a process, from above, and their colours: names that chrome://tracing knows. Perfetto takes its colours from the events' names. */
const COLOURS = {
  frame: 'generic_work',
  receive: 'thread_state_runnable',
  wait: 'thread_state_uninterruptible',
  compute: 'thread_state_running',
  serialise: 'rail_idle',
  send: 'rail_response',
} as const;
type Kind = keyof typeof COLOURS;
const KINDS = Object.keys(COLOURS) as readonly Kind[];
/** Work of one kind that overlaps gets rows below each other: so many numbers are kept free for each kind. */
const ROWS_PER_KIND = 1000;
/** What took no time that the clock could tell is drawn this long: an arrow must end within it. */
const LEAST_US = 1;

export interface TraceEvent {
  readonly name: string;
  readonly ph: 'X' | 'M' | 's' | 'f';
  readonly pid: number;
  readonly tid: number;
  /** Microseconds, whole. */
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly id?: number;
  readonly bp?: 'e';
  readonly cname?: string;
  readonly args?: Readonly<Record<string, string | number>>;
}

export interface TraceFile {
  readonly displayTimeUnit: 'ms';
  readonly otherData: Readonly<Record<string, string | number>>;
  readonly traceEvents: readonly TraceEvent[];
}

/** Frames that the dispatcher saw from beginning to end, the earliest `most` of them. */
export function wholeFrames({ agents }: TraceReport, most: number): ReadonlySet<number> {
  const done = agents.flatMap(({ agent, spans }) => (agent === DISPATCHER ? spans.filter(({ kind }) => kind === 'frame') : []));
  const sorted = [...done].sort((a, b) => a.startUs - b.startUs).map(({ frame }) => frame);
  return new Set(sorted.slice(0, most));
}

/** Events of these frames; the earliest is at 0. */
export function traceFile(report: TraceReport, frames: ReadonlySet<number>): TraceFile {
  const aligned = report.agents.map((one) => ({
    ...one,
    spans: one.spans.flatMap((span) => {
      const startUs = Math.round(span.startUs + one.offsetUs);
      return frames.has(span.frame) ? [{ ...span, startUs, durationUs: Math.max(LEAST_US, Math.round(span.durationUs)) }] : [];
    }),
  }));
  const origin = aligned.flatMap(({ spans }) => spans).reduce((least, { startUs }) => Math.min(least, startUs), Number.POSITIVE_INFINITY);
  const ordered = inOrder(aligned);
  const processes = ordered.map((one, i): Process => ({ ...one, pid: i + 1, rows: rowsOf(one.spans, i + 1, origin) }));
  const { arrows, missing } = arrowsOf(processes);
  const timed = [...processes.flatMap(({ rows }) => rows.map(completeEvent)), ...arrows];
  const errors = aligned.filter(({ agent }) => agent !== DISPATCHER).map(({ errorUs }) => errorUs);
  return {
    displayTimeUnit: 'ms',
    otherData: {
      deployment: report.deployment,
      epoch: report.epoch,
      frames: frames.size,
      clock: "the gateway's; each agent's was compared over MQTT, see the name of its process",
      'largest clock error, ms': errors.length === 0 ? 0 : Number((Math.max(...errors) / 1000).toFixed(3)),
      ...(missing === 0 ? {} : { 'arrows left out (by these clocks the box was taken before it was sent)': missing }),
    },
    traceEvents: [...processes.flatMap(namesOf), ...timed.sort((a, b) => a.ts - b.ts || PHASES.indexOf(a.ph) - PHASES.indexOf(b.ph))],
  };
}

/** Of events at one time: what encloses an arrow's end stands before it, and its beginning before its end. */
const PHASES: readonly string[] = ['X', 's', 'f'];

interface Row {
  readonly span: TraceSpan;
  readonly kind: Kind;
  readonly pid: number;
  readonly tid: number;
  /** After the trace's origin, microseconds. Never 0 long. */
  readonly ts: number;
  readonly dur: number;
}

interface Process extends TraceSpans {
  readonly pid: number;
  readonly rows: readonly Row[];
}

type Timed = TraceEvent & { readonly ts: number };

/** The gateway first, then agents by the first seat that they have; last, who did nothing. */
export function inOrder<T extends TraceSpans>(agents: readonly T[]): T[] {
  return [...agents].sort((a, b) => seatOrder(a) - seatOrder(b) || a.agent.localeCompare(b.agent, 'en', { numeric: true }));
}

function seatOrder({ agent, spans }: TraceSpans): number {
  if (agent === DISPATCHER) return -1;
  return spans.reduce((least, { stage, part }) => (stage < 0 ? least : Math.min(least, stage * 1e6 + part)), Number.MAX_SAFE_INTEGER);
}

/** Spans of one kind in as few rows as keep them from overlapping. */
function rowsOf(spans: readonly TraceSpan[], pid: number, origin: number): Row[] {
  return KINDS.flatMap((kind, k) => {
    const ends: number[] = [];
    const sorted = spans.filter((span) => span.kind === kind).sort((a, b) => a.startUs - b.startUs || a.frame - b.frame);
    return sorted.map((span): Row => {
      const free = ends.findIndex((end) => end <= span.startUs);
      const row = free < 0 ? ends.length : free;
      ends[row] = span.startUs + span.durationUs;
      return { span, kind, pid, tid: (k + 1) * ROWS_PER_KIND + row, ts: span.startUs - origin, dur: span.durationUs };
    });
  });
}

function namesOf({ agent, errorUs, why, dropped, spans, rows, pid }: Process): TraceEvent[] {
  const about =
    agent === DISPATCHER ? [] : why === '' ? [stagesOf(spans), `clock ±${(errorUs / 1000).toFixed(2)} ms`] : [`no trace: ${why}`];
  const lost = dropped > 0 ? [`${dropped} spans left out`] : [];
  const name = [agent === DISPATCHER ? 'gateway' : agent, ...about, ...lost].filter((part) => part !== '').join(', ');
  const threads = [...new Set(rows.map(({ tid }) => tid))].sort((a, b) => a - b);
  return [
    { name: 'process_name', ph: 'M', pid, tid: 0, args: { name } },
    { name: 'process_sort_index', ph: 'M', pid, tid: 0, args: { sort_index: pid } },
    ...threads.flatMap((tid): TraceEvent[] => [
      { name: 'thread_name', ph: 'M', pid, tid, args: { name: rowName(tid) } },
      { name: 'thread_sort_index', ph: 'M', pid, tid, args: { sort_index: tid } },
    ]),
  ];
}

/** `wait`; where several frames wait at once, `wait +1` below it. */
function rowName(tid: number): string {
  const [kind, row] = [KINDS[Math.floor(tid / ROWS_PER_KIND) - 1] ?? '', tid % ROWS_PER_KIND];
  return row === 0 ? kind : `${kind} +${row}`;
}

/** `stages 1-3, 7`: what an agent computed, as people count. */
function stagesOf(spans: readonly TraceSpan[]): string {
  const all = [...new Set(spans.flatMap(({ stage }) => (stage < 0 ? [] : [stage + 1])))].sort((a, b) => a - b);
  const runs: [number, number][] = [];
  for (const stage of all) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === stage - 1) last[1] = stage;
    else runs.push([stage, stage]);
  }
  const text = runs.map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`)).join(', ');
  return text === '' ? 'did nothing' : `${all.length === 1 ? 'stage' : 'stages'} ${text}`;
}

function completeEvent({ span, kind, pid, tid, ts, dur }: Row): Timed {
  const { frame, attempt, stage, replica, part, peer, toStage, bytes } = span;
  const to = peer === DISPATCHER ? 'gateway' : peer;
  // The frame first, in short: of brief events only the beginning is seen, and their row says what they are. Perfetto colours by the name without its digits.
  const name = [
    kind === 'frame' ? `frame ${frame}` : `#${frame} ${kind}`,
    ...(stage < 0 ? [] : [`stage ${stage + 1} part ${part + 1}`]),
    ...(peer === '' ? [] : [`to ${to}`]),
    ...(attempt === 1 ? [] : [`attempt ${attempt}`]),
  ].join(', ');
  return {
    ...{ name, cat: kind, ph: 'X', pid, tid, ts, dur, cname: COLOURS[kind] },
    args: {
      ...{ kind, frame, attempt },
      ...(stage < 0 ? {} : { stage: stage + 1, part: part + 1, copy: replica + 1 }),
      ...(peer === '' ? {} : { to, 'to stage': toStage === SINK ? 'result' : toStage + 1, 'to part': span.toPart + 1 }),
      ...(bytes === 0 ? {} : { bytes }),
    },
  };
}

/** From each send to the receive that it filled; a result's, to the gateway's frame. */
function arrowsOf(processes: readonly Process[]): { arrows: Timed[]; missing: number } {
  const ends = new Map<string, Row[]>();
  for (const { agent, rows } of processes) {
    for (const row of rows) {
      const { kind, span } = row;
      if (kind !== 'receive' && kind !== 'compute' && kind !== 'frame') continue;
      const key =
        kind === 'frame' ? keyOf(DISPATCHER, span.frame, 0, SINK, 0) : keyOf(agent, span.frame, span.attempt, span.stage, span.part);
      ends.set(key, [...(ends.get(key) ?? []), row]);
    }
  }
  const arrows: Timed[] = [];
  let [id, missing] = [0, 0];
  for (const from of processes.flatMap(({ rows }) => rows)) {
    const { frame, attempt, peer, toStage, toPart } = from.span;
    if (from.kind !== 'send') continue;
    const found = ends.get(keyOf(peer, frame, toStage === SINK ? 0 : attempt, toStage, toStage === SINK ? 0 : toPart)) ?? [];
    // By clocks that are compared to a millisecond, a box may seem to be all there before it was sent: then the run that used it will do.
    const to = found.find(({ ts, dur }) => ts + dur > from.ts);
    if (to === undefined) {
      if (found.length > 0) missing++;
      continue;
    }
    id++;
    const arrow = { name: 'box', cat: 'lane', id } as const;
    arrows.push({ ...arrow, ph: 's', pid: from.pid, tid: from.tid, ts: from.ts });
    arrows.push({ ...arrow, ph: 'f', bp: 'e', pid: to.pid, tid: to.tid, ts: to.ts + to.dur - 1 });
  }
  return { arrows, missing };
}

function keyOf(agent: string, frame: number, attempt: number, stage: number, part: number): string {
  return `${agent} ${frame} ${attempt} ${stage} ${part}`;
}
