/** What the demo says about a plan that has run: one row per stage, and a matrix of what travelled. Pure. */
import type { AgentStatus, PlanReport } from '../../broker/messages.js';
import { bytesText, countText, formatTable } from '../table.js';

export interface StageRow {
  readonly stage: number;
  readonly cut: string;
  readonly parts: number;
  readonly macs: number;
  /** Share of the largest part, 0 to 1. */
  readonly largestShare: number;
  readonly predictedMs: number;
  /** The slowest part, as its agent measured it; undefined when no agent reported yet. */
  readonly measuredMs: number | undefined;
  readonly weightBytes: number;
}

/** Stages of a plan, with the run times the agents report. */
export function stageRows(plan: PlanReport, agents: readonly AgentStatus[]): StageRow[] {
  const measured = new Map<string, number>();
  for (const { health } of agents) {
    for (const s of health?.seats ?? []) {
      if (s.deployment === plan.deployment && s.epoch === plan.epoch && s.framesRun > 0)
        measured.set(`${s.stage}.${s.replica}.${s.part}`, s.runMs);
    }
  }
  const stages = [...new Set(plan.seats.map((s) => s.stage))].sort((a, b) => a - b);
  return stages.map((stage) => {
    const seats = plan.seats.filter((s) => s.stage === stage && s.replica === 0);
    const macs = seats.reduce((sum, s) => sum + s.macs, 0);
    const times = seats.flatMap((s) => measured.get(`${stage}.0.${s.part}`) ?? []);
    return {
      stage,
      cut: seats[0]?.cut ?? '',
      parts: seats.length,
      macs,
      largestShare: macs === 0 ? 1 / Math.max(1, seats.length) : Math.max(...seats.map((s) => s.macs)) / macs,
      predictedMs: Math.max(...seats.map((s) => s.predictedMs)),
      measuredMs: times.length === 0 ? undefined : Math.max(...times),
      weightBytes: seats.reduce((sum, s) => sum + s.weightBytes, 0),
    };
  });
}

export function stagesText(rows: readonly StageRow[], width = 80): string {
  return formatTable(
    [
      { title: 'stage', align: 'right' },
      { title: 'cut' },
      { title: 'parts', align: 'right' },
      { title: 'MACs', align: 'right' },
      { title: 'largest part', align: 'right' },
      { title: 'weights', align: 'right' },
      { title: 'predicted ms', align: 'right' },
      { title: 'ran in ms', align: 'right' },
    ],
    rows.map((r) => [
      String(r.stage + 1),
      r.cut,
      String(r.parts),
      countText(r.macs),
      `${Math.round(r.largestShare * 100)} %`,
      bytesText(r.weightBytes),
      r.predictedMs.toFixed(1),
      r.measuredMs?.toFixed(1) ?? '-',
    ]),
    width,
  );
}

export interface LaneRow {
  readonly from: string;
  readonly to: string;
  readonly lane: string;
  readonly bytes: number;
  readonly messages: number;
}

/** What each agent sent since `before`. */
export function laneRows(before: readonly AgentStatus[], after: readonly AgentStatus[]): LaneRow[] {
  return after.flatMap((agent) => {
    const earlier = before.find((a) => a.agent === agent.agent)?.health?.lanes ?? [];
    return (agent.health?.lanes ?? []).map((lane) => {
      const old = earlier.find((l) => l.peer === lane.peer);
      return {
        from: agent.agent,
        to: lane.peer,
        lane: lane.lane,
        bytes: lane.bytesSent - (old?.bytesSent ?? 0),
        messages: lane.messagesSent - (old?.messagesSent ?? 0),
      };
    });
  });
}

/** Senders as rows, receivers as columns; what an agent hands to itself costs no socket and stands in brackets. */
export function lanesMatrix(rows: readonly LaneRow[], width = 80): string {
  const senders = [...new Set(rows.map((r) => r.from))].sort();
  const receivers = [...new Set(rows.map((r) => r.to))].sort();
  const cell = (from: string, to: string): string => {
    const row = rows.find((r) => r.from === from && r.to === to);
    if (row === undefined || row.bytes === 0) return '-';
    const text = bytesText(row.bytes);
    return row.lane === 'local' ? `(${text})` : row.lane === 'relay' ? `${text} relayed` : text;
  };
  return formatTable(
    [{ title: 'from \\ to' }, ...receivers.map((title) => ({ title, align: 'right' as const }))],
    senders.map((from) => [from, ...receivers.map((to) => cell(from, to))]),
    width,
  );
}
