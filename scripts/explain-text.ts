/** Why a plan and no other, as text: every row is a plan that was made for it. Pure. */
import type { PlanAlternative, PlanReport } from '../broker/messages.js';
import { formatTable, msText, wrapText } from './table.js';

/** Less than this is within the error of the predictions. */
const NO_DIFFERENCE = 0.01;

/** The chosen plan in the terms of its alternatives. */
function chosenRow({ planner, predictedLatencyMs, predictedFps, seats }: PlanReport): PlanAlternative {
  const agents = new Set(seats.map(({ agent }) => agent)).size;
  return { name: 'this plan', planner, agents, latencyMs: predictedLatencyMs, fps: predictedFps, refused: '' };
}

/** Larger is better: how much better than `than`, as a part of it. */
function gain(one: PlanAlternative, than: PlanAlternative, objective: string): number {
  return objective.startsWith('throughput') ? one.fps / than.fps - 1 : than.latencyMs / one.latencyMs - 1;
}

function gainText(value: number): string {
  if (Math.abs(value) < NO_DIFFERENCE) return 'same';
  return value >= 9.995 ? `${(value + 1).toFixed(0)} x` : `${value > 0 ? '+' : '-'}${Math.round(100 * Math.abs(value))} %`;
}

function figure({ latencyMs, fps }: PlanAlternative, objective: string): string {
  return objective.startsWith('throughput') ? `${fpsText(fps)} frames/s` : msText(latencyMs);
}

function fpsText(fps: number): string {
  return fps >= 100 ? fps.toFixed(0) : fps >= 10 ? fps.toFixed(1) : fps.toFixed(2);
}

function table(title: string, chosen: PlanAlternative, rows: readonly PlanAlternative[], objective: string, width: number): string {
  const possible = rows.filter(({ refused }) => refused === '');
  const refused = rows.filter((row) => row.refused !== '');
  const text = formatTable(
    [
      { title, least: 28 },
      { title: 'by', whole: true, drop: 2 },
      { title: 'agents', align: 'right' },
      // What the plan is for stays.
      { title: 'ms', align: 'right', ...(objective.startsWith('throughput') ? { drop: 3 } : {}) },
      { title: 'frames/s', align: 'right', ...(objective.startsWith('throughput') ? {} : { drop: 3 }) },
      { title: 'gain', align: 'right' },
    ],
    [chosen, ...possible].map((row) => [
      row.name,
      row === chosen || row.planner !== row.name ? row.planner : '',
      String(row.agents),
      row.latencyMs.toFixed(row.latencyMs < 99.5 ? 1 : 0),
      fpsText(row.fps),
      row === chosen ? '' : gainText(gain(row, chosen, objective)),
    ]),
    width,
  );
  return [
    text,
    ...refused.flatMap(({ name, refused: why }) => wrapText(`${name}: not possible, ${why.replace(`${name}: `, '')}`, width, '  ')),
  ].join('\n');
}

/** The best of the others, and what it costs. */
function nextText(next: PlanAlternative, chosen: PlanAlternative, objective: string): string {
  const more = gain(next, chosen, objective);
  const who = `${next.name}${next.planner === next.name ? '' : ` (${next.planner})`}`;
  if (Math.abs(more) < NO_DIFFERENCE) {
    const on =
      next.agents === chosen.agents ? 'is predicted to be' : `on ${next.agents} agents instead of ${chosen.agents} is predicted to be`;
    return `Next best: ${who} ${on} as good, ${figure(next, objective)}.`;
  }
  return `${more > 0 ? 'Predicted to be better' : 'Next best'}: ${who}, ${figure(next, objective)} instead of ${figure(chosen, objective)}.`;
}

/** The bottleneck is in `why`; here are the next best, what it costs, and what would help most. `objective` as in the request. */
export function explainText(plan: PlanReport, objective: string, width: number): string {
  const { alternatives = [], changes = [] } = plan.details ?? {};
  const chosen = chosenRow(plan);
  const better = (a: PlanAlternative, b: PlanAlternative): number => gain(b, chosen, objective) - gain(a, chosen, objective);
  const others = alternatives.filter(({ refused }) => refused === '').sort(better);
  const [next] = others.filter((row) => !same(row, chosen));
  const [help] = changes.filter(({ refused }) => refused === '').sort(better);
  const lines = [
    next === undefined ? 'Next best: no other plan is possible.' : nextText(next, chosen, objective),
    help === undefined || gain(help, chosen, objective) < NO_DIFFERENCE
      ? 'Nothing that was tried would make a better plan.'
      : `What would help most: ${help.name}, ${figure(help, objective)}.`,
  ];
  return [
    ...lines.flatMap((line) => wrapText(line, width, '')),
    '',
    table('planner', chosen, [...alternatives].sort(better), objective, width),
    '',
    table('if there were', chosen, [...changes].sort(better), objective, width),
  ].join('\n');
}

/** Another planner came to the same plan. */
function same(a: PlanAlternative, b: PlanAlternative): boolean {
  const equal = (x: number, y: number): boolean => Math.abs(x / y - 1) < 1e-3;
  return a.agents === b.agents && equal(a.latencyMs, b.latencyMs) && equal(a.fps, b.fps);
}
