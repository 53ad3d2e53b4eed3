/** Plans, and how far a deployment is, as text for people, 80 columns wide. Pure. */
import type { DeploymentStatus, PlanReport, PrecisionReport, Progress } from '../broker/messages.js';
import { SINK, SOURCE } from '../broker/plan.js';
import { MOST_LISTED_PAIRS } from '../scheduler/planners/problem.js';
import { asTyped } from './output.js';
import { bytesText, countText, formatTable, msText, wrapText } from './table.js';

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** A plan of more seats is shown by stages: one row each instead of one per seat. `--json` has them all. */
const MAX_SEAT_ROWS = 24;

/** `pi-1 pi-2`, or `pi-1 +3` for more. */
function fewNames(names: readonly string[]): string {
  return names.length <= 2 ? names.join(' ') : `${names[0]} +${names.length - 1}`;
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function stageTable(plan: PlanReport, width: number): string {
  const stages = [...new Set(plan.seats.map((s) => s.stage))].sort((a, b) => a - b);
  return formatTable(
    [
      { title: 'stage', align: 'right' },
      { title: 'cut', whole: true },
      { title: 'parts', align: 'right' },
      { title: 'MACs', align: 'right', drop: 1 },
      { title: 'largest', align: 'right', drop: 4 },
      { title: 'weights', align: 'right', drop: 3 },
      { title: 'ms', align: 'right' },
      { title: 'in', align: 'right', drop: 2 },
      { title: 'out', align: 'right' },
      { title: 'agents' },
    ],
    stages.map((stage) => {
      const all = plan.seats.filter((s) => s.stage === stage);
      const seats = all.filter((s) => s.replica === 0);
      const replicas = new Set(all.map((s) => s.replica)).size;
      const macs = sum(seats.map((s) => s.macs));
      return [
        String(stage + 1),
        seats[0]?.cut ?? '',
        partsText(plan, stage, seats.length, replicas),
        countText(macs),
        macs === 0 ? '-' : `${Math.round((100 * Math.max(...seats.map((s) => s.macs))) / macs)} %`,
        bytesText(sum(seats.map((s) => s.weightBytes))),
        Math.max(...all.map((s) => s.predictedMs)).toFixed(1),
        bytesText(sum(seats.map((s) => s.bytesIn))),
        bytesText(sum(seats.map((s) => s.bytesOut))),
        fewNames([...new Set(all.map((s) => s.agent))]),
      ];
    }),
    width,
  );
}

/** `3+1`: three and a parity. */
function partsText({ redundancy }: PlanReport, stage: number, seats: number, replicas: number): string {
  const coded = redundancy?.rows.some((row) => row.stage === stage) === true;
  const parts = coded ? `${seats - 1}+1` : String(seats);
  return replicas === 1 ? parts : `${parts} x ${replicas}`;
}

function seatTable(plan: PlanReport, width: number): string {
  return formatTable(
    [
      { title: 'stage', align: 'right' },
      { title: 'cut', whole: true },
      { title: 'part', align: 'right' },
      { title: 'agent', whole: true },
      { title: 'MACs', align: 'right', drop: 1 },
      { title: 'weights', align: 'right', drop: 3 },
      { title: 'ms', align: 'right' },
      { title: 'in', align: 'right', drop: 2 },
      { title: 'out', align: 'right' },
    ],
    plan.seats.map((s) => [
      String(s.stage + 1),
      s.cut,
      partText(plan, s),
      s.agent,
      countText(s.macs),
      bytesText(s.weightBytes),
      s.predictedMs.toFixed(1),
      bytesText(s.bytesIn),
      bytesText(s.bytesOut),
    ]),
    width,
  );
}

function partText({ redundancy }: PlanReport, { stage, part, replica }: PlanReport['seats'][number]): string {
  const coded = redundancy?.rows.find((row) => row.stage === stage);
  const text = coded?.parts === part ? 'parity' : String(part + 1);
  return replica === 0 ? text : `${text}/r${replica + 1}`;
}

/** What all links carry for a frame. With hundreds of replicas pairs are not listed, and what stays on an agent is counted with the rest. */
function linksTotal({ seats, links }: PlanReport): string {
  const last = Math.max(-1, ...seats.map(({ stage }) => stage));
  const replicas = Array.from(
    { length: last + 1 },
    (_, s) => new Set(seats.filter(({ stage }) => stage === s).map((seat) => seat.replica)).size,
  );
  const unlisted = [1, ...replicas].some((count, at) => count * (replicas[at] ?? 1) > MOST_LISTED_PAIRS);
  if (!unlisted) return `${bytesText(sum(links.map((l) => l.bytesPerFrame)))} over links per frame`;
  const one = seats.filter(({ replica }) => replica === 0);
  const bytes = sum(one.map((seat) => seat.bytesIn)) + sum(one.filter(({ stage }) => stage === last).map((seat) => seat.bytesOut));
  return `about ${bytesText(bytes)} between seats per frame (too many links to list)`;
}

/** What was decided, how fast it should be, and why. */
export function planHead(plan: PlanReport): string[] {
  const stages = new Set(plan.seats.map((s) => s.stage)).size;
  // A plan that was only asked for has no slices yet: they are written when it is deployed.
  const slices = new Set(plan.seats.map((s) => s.slice).filter((slice) => slice !== '')).size;
  const sizes = [
    counted(stages, 'stage'),
    counted(plan.seats.length, 'seat'),
    ...(slices === 0 ? [] : [slices === 1 ? '1 slice' : `${slices} different slices`]),
  ].join(', ');
  return [
    `Plan of ${plan.deployment}${plan.epoch === 0 ? '' : `, epoch ${plan.epoch}`}, by ${plan.planner}: ${sizes}`,
    `predicted ${msText(plan.predictedLatencyMs)} per frame, ${plan.predictedFps.toFixed(plan.predictedFps < 2 ? 2 : 1)} frames/s, ${linksTotal(plan)}`,
    ...plan.why.split('\n').filter((line) => line !== ''),
    ...(plan.redundancy === null ? [] : plan.redundancy.why.split('\n').map((line) => `redundancy: ${line}`)),
    // Before lines are broken: what can be typed here is longer.
    ...asTyped(plan.basis)
      .split('\n')
      .filter((line) => line !== ''),
  ];
}

/** As they are while they are few, else those that matter most. */
function largest<T>(rows: readonly T[], by: (row: T) => number): readonly T[] {
  return rows.length <= MAX_SEAT_ROWS ? rows : [...rows].sort((a, b) => by(b) - by(a)).slice(0, MAX_SEAT_ROWS);
}

/** Stages, parts, agents, work and bytes; links; memory. */
export function planText(plan: PlanReport, width = 80): string {
  const seats = plan.seats.length > MAX_SEAT_ROWS ? stageTable(plan, width) : seatTable(plan, width);
  const links = formatTable(
    [{ title: 'from' }, { title: 'to' }, { title: 'bytes per frame', align: 'right' }],
    largest(plan.links, (l) => l.bytesPerFrame).map((l) => [
      l.from,
      l.to,
      l.bytesPerFrame < l.rawBytesPerFrame
        ? `${bytesText(l.bytesPerFrame)} (raw ${bytesText(l.rawBytesPerFrame)})`
        : bytesText(l.bytesPerFrame),
    ]),
    width,
  );
  const memory = formatTable(
    [{ title: 'agent' }, { title: 'needs', align: 'right' }, { title: 'has', align: 'right' }],
    largest(plan.memory, (m) => m.needBytes / Math.max(1, m.haveBytes)).map((m) => [
      m.agent,
      bytesText(m.needBytes),
      bytesText(m.haveBytes),
    ]),
    width,
  );
  const more = (rows: readonly unknown[], what: string): string[] =>
    rows.length <= MAX_SEAT_ROWS ? [] : [`... and ${rows.length - MAX_SEAT_ROWS} more ${what} (--json has them all)`];
  return [
    ...planHead(plan).flatMap((line) => wrapText(line, width, '')),
    '',
    seats,
    ...(plan.links.length === 0 ? [] : ['', links, ...more(plan.links, 'links')]),
    ...(plan.precision === null ? [] : ['', precisionText(plan.precision, width)]),
    ...(plan.memory.length === 0 ? [] : ['', memory, ...more(plan.memory, 'agents')]),
  ].join('\n');
}

/** How the wires of each boundary travel, and what that costs in accuracy. */
function precisionText({ why, rows }: PrecisionReport, width: number): string {
  const table = formatTable(
    [
      { title: 'wires' },
      { title: 'encoding' },
      { title: 'per frame', align: 'right' },
      { title: 'raw', align: 'right' },
      { title: 'error alone', align: 'right' },
      { title: 'note' },
    ],
    rows.map((row) => [
      boundaryText(row),
      row.encoding,
      bytesText(row.bytesPerFrame),
      bytesText(row.rawBytesPerFrame),
      row.encoding === 'raw' ? '-' : String(Number(row.error.toPrecision(2))),
      row.why,
    ]),
    width,
  );
  return [...wrapText(`wire precision: ${why}`, width, ''), ...(rows.length === 0 ? [] : [table])].join('\n');
}

/** Stages as the other tables number them. */
function boundaryText({ fromStage, toStage }: { readonly fromStage: number; readonly toStage: number }): string {
  return `${fromStage === SOURCE ? 'inputs' : fromStage + 1} -> ${toStage === SINK ? 'outputs' : toStage + 1}`;
}

export function progressText(p: Progress): string {
  const bytes = p.totalBytes === 0 ? '' : ` ${bytesText(p.doneBytes)} of ${bytesText(p.totalBytes)}`;
  return `${p.agent} ${p.step}${p.step === 'fetch' ? bytes : ''}`;
}

/** Of one deployment: how far its agents are, in one line. */
export function progressLine(d: DeploymentStatus): string {
  const fetching = d.progress.filter((p) => p.step === 'fetch');
  const [done, total] = [sum(d.progress.map((p) => p.doneBytes)), sum(d.progress.map((p) => p.totalBytes))];
  const steps = d.progress.map(
    (p) => `${p.agent} ${p.step === 'fetch' && p.totalBytes > 0 ? `${Math.floor((100 * p.doneBytes) / p.totalBytes)} %` : p.step}`,
  );
  const bytes = fetching.length > 0 && total > 0 ? ` ${bytesText(done)} of ${bytesText(total)}` : '';
  const why = d.state === 'planning' && d.why !== '' ? ` (${d.why})` : '';
  return `${d.name}: ${d.state}${why}${bytes}${steps.length === 0 ? '' : ` [${steps.join(', ')}]`}`;
}
