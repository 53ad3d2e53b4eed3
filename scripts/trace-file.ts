/**
 * A trace as a file of the Chrome trace event format, which https://ui.perfetto.dev and chrome://tracing open: one process for each agent, one row for each kind of
 * work in it. All times on the gateway's clock. Format: "Trace Event Format", Google (complete events X, metadata M, flows s and f). Pure.
 */
import type { TraceReport, TraceSpan, TraceSpans } from '../broker/messages.js';
import { DISPATCHER } from '../broker/topics.js';

/** Rows of a process, from above. */
const KINDS = ['frame', 'receive', 'wait', 'compute', 'serialise', 'send'] as const;
/** Work of one kind that overlaps gets rows below each other: so many numbers are kept free for each kind. */
const ROWS_PER_KIND = 1000;

export interface TraceEvent {
  readonly name: string;
  readonly ph: 'X' | 'M' | 's' | 'f';
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly cat?: string;
  readonly id?: string;
  readonly bp?: 'e';
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
    spans: one.spans.flatMap((span) => (frames.has(span.frame) ? [{ ...span, startUs: span.startUs + one.offsetUs }] : [])),
  }));
  const origin = aligned.flatMap(({ spans }) => spans).reduce((least, { startUs }) => Math.min(least, startUs), Number.POSITIVE_INFINITY);
  const pids = new Map(aligned.map(({ agent }, i) => [agent, i + 1]));
  const events = aligned.flatMap((one) => {
    const pid = pids.get(one.agent) ?? 0;
    const rows = KINDS.flatMap((kind, k) =>
      rowsOf(
        one.spans.filter((span) => span.kind === kind),
        k * ROWS_PER_KIND,
      ),
    );
    return [
      ...processEvents(one, pid),
      ...threadEvents(rows, pid),
      ...rows.map(({ span, tid }): TraceEvent => completeEvent(span, pid, tid, origin)),
      ...flowsFrom(rows, pid, origin),
    ];
  });
  const arrivals = aligned.flatMap((one) => flowsTo(one.spans, pids.get(one.agent) ?? 0, aligned, origin));
  const errors = aligned.filter(({ agent }) => agent !== DISPATCHER).map(({ errorUs }) => errorUs);
  return {
    displayTimeUnit: 'ms',
    otherData: {
      deployment: report.deployment,
      epoch: report.epoch,
      frames: frames.size,
      clock: "the gateway's; each agent's was compared over MQTT, see the name of its process",
      'largest clock error, ms': errors.length === 0 ? 0 : Number((Math.max(...errors) / 1000).toFixed(3)),
    },
    traceEvents: [...events, ...arrivals],
  };
}

interface Row {
  readonly span: TraceSpan;
  readonly tid: number;
}

/** Spans of one kind in as few rows as keep them from overlapping: both viewers draw events of a row that overlap wrongly. */
function rowsOf(spans: readonly TraceSpan[], first: number): Row[] {
  const ends: number[] = [];
  return [...spans]
    .sort((a, b) => a.startUs - b.startUs || a.frame - b.frame)
    .map((span) => {
      const free = ends.findIndex((end) => end <= span.startUs);
      const row = free < 0 ? ends.length : free;
      ends[row] = span.startUs + span.durationUs;
      return { span, tid: first + row + 1 };
    });
}

function processEvents({ agent, errorUs, why, dropped }: TraceSpans, pid: number): TraceEvent[] {
  const clock = agent === DISPATCHER ? '' : why === '' ? ` (clock +-${(errorUs / 1000).toFixed(2)} ms)` : ` (no trace: ${why})`;
  const lost = dropped > 0 ? `, ${dropped} spans left out` : '';
  const name = agent === DISPATCHER ? 'gateway' : agent;
  return [
    { name: 'process_name', ph: 'M', pid, tid: 0, args: { name: `${name}${clock}${lost}` } },
    { name: 'process_sort_index', ph: 'M', pid, tid: 0, args: { sort_index: pid } },
  ];
}

function threadEvents(rows: readonly Row[], pid: number): TraceEvent[] {
  const names = new Map(rows.map(({ span, tid }) => [tid, tid % ROWS_PER_KIND === 1 ? span.kind : `${span.kind} ${tid % ROWS_PER_KIND}`]));
  return [...names].flatMap(([tid, name]): TraceEvent[] => [
    { name: 'thread_name', ph: 'M', pid, tid, args: { name } },
    { name: 'thread_sort_index', ph: 'M', pid, tid, args: { sort_index: tid } },
  ]);
}

function completeEvent(span: TraceSpan, pid: number, tid: number, origin: number): TraceEvent {
  const { kind, frame, attempt, stage, replica, part, peer, startUs, durationUs, bytes } = span;
  const seat = stage < 0 ? '' : ` stage ${stage + 1} part ${part + 1}`;
  return {
    name: `frame ${frame}${seat}${peer === '' ? '' : ` to ${peer === DISPATCHER ? 'gateway' : peer}`}`,
    cat: kind,
    ph: 'X',
    ...{ pid, tid, ts: micros(startUs - origin), dur: durationUs },
    args: {
      ...{ kind, frame, attempt },
      ...(stage < 0 ? {} : { stage: stage + 1, part: part + 1, copy: replica + 1 }),
      ...(peer === '' ? {} : { to: peer }),
      ...(bytes === 0 ? {} : { bytes }),
    },
  };
}

/** An arrow begins at each send ... */
function flowsFrom(rows: readonly Row[], pid: number, origin: number): TraceEvent[] {
  return rows.flatMap(({ span, tid }): TraceEvent[] => {
    if (span.kind !== 'send' || span.peer === DISPATCHER) return [];
    return [{ name: 'box', cat: 'lane', ph: 's', id: flowId(span, span.peer, pid), pid, tid, ts: micros(span.startUs - origin) }];
  });
}

/** ... and ends where the receiver's next stage began to receive. */
function flowsTo(spans: readonly TraceSpan[], pid: number, all: readonly TraceSpans[], origin: number): TraceEvent[] {
  const [own] = all.filter((_, i) => i + 1 === pid);
  if (own === undefined) return [];
  const rows = rowsOf(
    spans.filter(({ kind }) => kind === 'receive'),
    KINDS.indexOf('receive') * ROWS_PER_KIND,
  );
  return rows.flatMap(({ span, tid }) =>
    all.flatMap((sender, i): TraceEvent[] => {
      const sent = sender.spans.some((one) => one.kind === 'send' && one.peer === own.agent && leadsTo(one, span));
      if (!sent) return [];
      // Within the event that it points to: at its end, when the last box is in.
      const ts = micros(span.startUs + span.durationUs - origin);
      return [
        { name: 'box', cat: 'lane', ph: 'f', bp: 'e', id: flowId({ ...span, stage: span.stage - 1 }, own.agent, i + 1), pid, tid, ts },
      ];
    }),
  );
}

function leadsTo(sent: TraceSpan, received: TraceSpan): boolean {
  return sent.frame === received.frame && sent.attempt === received.attempt && sent.stage === received.stage - 1;
}

function flowId({ frame, attempt, stage }: TraceSpan, to: string, from: number): string {
  return `${from} ${to} ${frame} ${attempt} ${stage}`;
}

function micros(us: number): number {
  return Number(us.toFixed(1));
}
