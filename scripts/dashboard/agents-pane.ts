/** Agents as a table that keeps the chosen one in sight. Pure. */
import type { AgentView } from '../../scheduler/dashboard/view.js';
import { PROGRAM } from '../package-root.js';
import { counted, millis, percent, rate } from './figures.js';
import { type Glyphs, sparkline } from './glyphs.js';
import { SPARK, stateTone, WIDE } from './look.js';
import { type Column, tableLines } from './table.js';
import { fitLine, type Line, line, span, type Tone } from './text.js';

/** Below so many columns, trends are short. */
const ROOMY = 150;

const figure = (agent: AgentView, text: string, tone: Tone = 'plain'): { text: string; tone: Tone } =>
  agent.live ? { text, tone } : { text: '-', tone: 'dim' };

function agentColumns(width: number, glyphs: Glyphs): Column<AgentView>[] {
  const wide = width >= WIDE;
  // Seats are read, trends are glanced at: these give way first.
  const spark = wide && width < ROOMY ? SPARK / 2 : SPARK;
  return [
    { title: 'agent', rank: 0, least: 16, cell: ({ agent }) => ({ text: agent }) },
    { title: 'state', rank: 0, cell: ({ state, heldMs }) => ({ text: heldMs > 0 ? 'held' : state, tone: stateTone(state) }) },
    { title: 'cpu', rank: 1, align: 'right', cell: (a) => figure(a, percent(a.cpu), a.cpu > 0.95 ? 'warn' : 'plain') },
    { title: 'mem', rank: 1, align: 'right', cell: (a) => memoryCell(a) },
    {
      title: 'temp',
      rank: 1,
      align: 'right',
      only: (rows) => rows.some(({ temperature, throttled }) => temperature > 0 || throttled.length > 0),
      cell: (a) => temperatureCell(a),
    },
    { title: 'queue', rank: 2, align: 'right', cell: (a) => figure(a, String(a.queue)) },
    { title: wide ? 'frames/s' : 'fps', rank: 1, align: 'right', cell: (a) => figure(a, rate(a.framesPerSecond)) },
    { title: wide ? 'p50 ms' : 'p50', rank: 3, align: 'right', cell: (a) => figure(a, millis(a.p50Ms)) },
    { title: wide ? 'p95 ms' : 'p95', rank: 3, align: 'right', cell: (a) => figure(a, millis(a.p95Ms)) },
    {
      title: wide ? 'reconnects' : 'recon',
      rank: 4,
      align: 'right',
      cell: (a) => figure(a, String(a.reconnects), a.reconnects > 0 ? 'warn' : 'plain'),
    },
    { title: 'version', rank: 7, least: 14, cell: ({ version }) => ({ text: shortVersion(version), tone: 'dim' }) },
    {
      title: 'throttled',
      rank: 6,
      least: 9,
      only: (rows) => rows.some(({ throttled, throttledBefore }) => throttled.length + throttledBefore.length > 0),
      cell: (a) => throttledCell(a),
    },
    { title: 'seats', rank: 5, least: 16, cell: ({ seats }) => ({ text: seatsText(seats) }) },
    { title: 'cpu trend', rank: 8, cell: (a) => ({ text: sparkline(a.cpuSeries, spark, glyphs, 1), tone: 'accent' }) },
    { title: 'frames/s trend', rank: 9, cell: (a) => ({ text: sparkline(a.framesSeries, spark, glyphs), tone: 'accent' }) },
  ];
}

/** `0.1.0-2d35913b272bb1be`, as bundles are named, to eight digits: enough to tell two apart. The page of an agent has all of them. */
export function shortVersion(version: string): string {
  return version.replace(/-([0-9a-f]{8})[0-9a-f]{8}$/, '-$1');
}

function memoryCell(agent: AgentView): { text: string; tone: Tone } {
  const part = agent.memoryUsedBytes / Math.max(1, agent.memoryBytes);
  return figure(agent, percent(part), part > 0.9 ? 'warn' : 'plain');
}

function temperatureCell(agent: AgentView): { text: string; tone: Tone } {
  const hot = agent.throttled.length > 0;
  const text = agent.temperature > 0 ? `${Math.round(agent.temperature)}C` : '-';
  return figure(agent, hot ? `${text}!` : text, hot ? 'bad' : agent.temperature >= 75 ? 'warn' : 'plain');
}

function throttledCell({ throttled, throttledBefore }: AgentView): { text: string; tone: Tone } {
  if (throttled.length > 0) return { text: throttled.map(short).join(', '), tone: 'bad' };
  return { text: throttledBefore.length === 0 ? 'no' : `was: ${throttledBefore.map(short).join(', ')}`, tone: 'dim' };
}

/** Without its explanation. */
function short(throttling: string): string {
  return throttling.split(':')[0] ?? '';
}

function seatsText(seats: AgentView['seats']): string {
  return seats.map(({ deployment, count }) => `${deployment} ${count}`).join(', ') || 'none';
}

export interface AgentsPane {
  readonly agents: readonly AgentView[];
  /** Of all that there are. */
  readonly total: number;
  readonly selected: string;
  readonly filter: string;
}

/** Title line and rows; of more than `rows` those around the selected one, and how many are not shown. */
export function agentLines({ agents, total, selected: name, filter }: AgentsPane, width: number, rows: number, glyphs: Glyphs): Line[] {
  if (total === 0) return [line(` No agent has joined yet. How to: ${PROGRAM} token create --name NAME`, 'dim')];
  if (agents.length === 0) return [line(` No agent matches "${filter}". Escape shows all again.`, 'dim')];
  const at = Math.max(
    0,
    agents.findIndex(({ agent }) => agent === name),
  );
  const room = Math.max(1, rows - 1);
  const least = Math.max(1, agents.length > room ? room - 1 : room);
  const first = Math.max(0, Math.min(at - Math.floor(least / 2), agents.length - least));
  const shown = agents.slice(first, first + least);
  const [title = [], ...body] = tableLines(agentColumns(width, glyphs), shown, {
    width: width - 2,
    gap: width < 100 ? 1 : 2,
    dots: glyphs.dots,
  });
  const lines = body.map((cells, i): Line => {
    const agent = shown[i];
    const marked = agent !== undefined && stateTone(agent.state) === 'bad' ? span('! ', 'bad') : span('  ');
    const row = fitLine([marked, ...cells], width, glyphs.dots);
    return agent?.agent === agents[at]?.agent ? row.map((one) => ({ ...one, reverse: true })) : row;
  });
  const hidden = agents.length - shown.length;
  return [
    [span('  '), ...title],
    ...lines,
    ...(hidden > 0 && rows > 2 ? [line(`  ${glyphs.dots} ${hidden} more: arrow keys`, 'dim')] : []),
  ];
}

/** `6 agents: 5 ready, 1 lost`. */
export function agentsCount(agents: readonly AgentView[]): string {
  const states = new Map<string, number>();
  for (const { state } of agents) states.set(state, (states.get(state) ?? 0) + 1);
  const said = [...states].sort(([a], [b]) => (a === 'ready' ? -1 : b === 'ready' ? 1 : a < b ? -1 : 1));
  return `${counted(agents.length, 'agent')}${agents.length === 0 ? '' : `: ${said.map(([state, count]) => `${count} ${state}`).join(', ')}`}`;
}
