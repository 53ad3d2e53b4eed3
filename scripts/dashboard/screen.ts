/** The whole screen: exactly so many rows of exactly so many columns, from what is known and what was chosen. Pure. */
import type { DashboardView } from '../../scheduler/dashboard/view.js';
import { agentLines, agentsCount } from './agents-pane.js';
import { ago } from './figures.js';
import type { Glyphs } from './glyphs.js';
import { helpLines } from './help.js';
import { inspectLines } from './inspect.js';
import { deploymentLines, eventLines, ruleLine } from './panes.js';
import { wrapSpans } from './table.js';
import { fitLine, type Line, line, span } from './text.js';
import { lanesLines, topologyLines } from './topology-pane.js';
import { chosenAgent, chosenDeployment, shownAgents, type Ui } from './ui.js';

/** How the gateway is heard. */
export interface Contact {
  /** Since its last answer; before the first one: since the dashboard was started. */
  readonly silentMs: number;
  /** It answers; else what is shown is old. */
  readonly live: boolean;
  /** What the last question failed with; '' = nothing. */
  readonly problem: string;
  /** Where it is looked for. */
  readonly where: string;
  /** The connection is open to whoever listens: said on every page. */
  readonly insecure?: boolean;
}

export interface Screen {
  /** Undefined: the gateway has not answered yet. */
  readonly view: DashboardView | undefined;
  readonly ui: Ui;
  readonly contact: Contact;
  readonly columns: number;
  readonly rows: number;
  /** Of the wall: `12:44:03`. */
  readonly clock: string;
  readonly glyphs: Glyphs;
  /** The plan of the chosen deployment, explained, in lines of this width. */
  readonly explain: (deployment: string, width: number) => readonly string[];
}

export const LEAST = { columns: 40, rows: 8 } as const;
/** From so many columns on topology and events stand side by side. */
const BESIDE = 120;
const FEW_DEPLOYMENTS = 4;
/** Of why the gateway does not answer. */
const PROBLEM_LINES = 3;

export function screenLines(screen: Screen): Line[] {
  const { columns, rows, glyphs } = screen;
  if (columns < LEAST.columns || rows < LEAST.rows) return tooSmall(columns, rows);
  const head = headLines(screen);
  const foot = footLine(screen);
  const body = bodyLines(screen, rows - head.length - 1);
  const all = [...head, ...body.slice(0, rows - head.length - 1)];
  while (all.length < rows - 1) all.push(line(''));
  return [...all, foot].map((one) => fitLine(one, columns, glyphs.dots));
}

function tooSmall(columns: number, rows: number): Line[] {
  const text = `At least ${LEAST.columns}x${LEAST.rows}; this is ${columns}x${rows}.`;
  return Array.from({ length: rows }, (_, i) => fitLine(line(i === 0 ? text : ''), columns, ''));
}

/** Without a screen: everything, as long as it is. */
export function reportLines(view: DashboardView, columns: number, glyphs: Glyphs, insecure = false): Line[] {
  const part = (title: string, about: string, lines: readonly Line[]): Line[] => [
    line(''),
    ruleLine(title, about, columns, glyphs),
    ...lines,
  ];
  const { agents, deployments, topologies } = view;
  return [
    [
      span(` Cluster ${view.cluster}`, 'plain', { bold: true }),
      span(`  up ${ago(view.uptimeMs)}  term ${view.term}`),
      ...insecureSpans(insecure),
    ],
    ...verdictLines(view, columns, view.verdict.reasons.length, glyphs),
    ...part('Deployments', '', deploymentLines(deployments, '', columns, glyphs)),
    ...topologies.flatMap((one) => part(`Topology of ${one.deployment}`, plannedBy(one), topologyLines(one, columns, glyphs))),
    ...part(
      'Agents',
      agentsCount(agents),
      agentLines({ agents, total: agents.length, selected: '', filter: '' }, columns, agents.length + 1, glyphs).map(unmarked),
    ),
    ...part('Events', '', eventLines(view.events.slice(0, 10), columns, true)),
  ].map((one) => fitLine(one, columns, glyphs.dots));
}

/** Said on every page. */
function insecureSpans(insecure: boolean): Line {
  return insecure ? [span('  INSECURE', 'warn', { bold: true })] : [];
}

/** Nothing is chosen where nobody can choose. */
function unmarked(one: Line): Line {
  return one.map(({ text, tone, bold }) => span(text, tone, bold === true ? { bold } : {}));
}

function plannedBy({ epoch, planner }: { readonly epoch: number; readonly planner: string }): string {
  return planner === '' ? '' : `epoch ${epoch}, planned by ${planner}`;
}

// ---- first and last lines ----------------------------------------------------------------------------------------------------

function headLines(screen: Screen): Line[] {
  const { view, contact, columns, clock, glyphs, ui } = screen;
  const heard = contact.live ? span(`${glyphs.live} live`, 'good') : span(`${glyphs.live} no answer`, 'bad');
  const about =
    view === undefined
      ? ''
      : `  ${columns < 70 ? shortCount(view.agents) : agentsCount(view.agents)}  ${columns < 90 ? '' : `up ${ago(view.uptimeMs)}  term ${view.term}  `}`;
  const left: Line = [
    span(' musical-chair', 'plain', { bold: true }),
    span(view === undefined ? '' : `  cluster ${view.cluster}`),
    ...insecureSpans(contact.insecure === true),
    span(about),
  ];
  const right: Line = [...(ui.paused ? [span('PAUSED  ', 'warn', { bold: true })] : []), heard, span(`  ${clock} `)];
  const wide = right.reduce((sum, { text }) => sum + text.length, 0);
  const first = [...fitLine(left, Math.max(0, columns - wide - 1), glyphs.dots), span(' '), ...right];
  return [first, ...silenceLines(screen), ...verdictNow(screen)];
}

/** `5 of 6 ready`, where there is no room for all states. */
function shortCount(agents: DashboardView['agents']): string {
  return `${agents.filter(({ state }) => state === 'ready').length} of ${agents.length} ready`;
}

/** The gateway does not answer: since when, and what that means for what is shown. */
function silenceLines({ contact, view, columns }: Screen): Line[] {
  if (contact.live) return [];
  const since =
    view === undefined
      ? `no answer yet from ${contact.where}, asked for ${ago(contact.silentMs)}`
      : `the gateway has not answered for ${ago(contact.silentMs)}; below is how it was`;
  const words = contact.problem.split(' ').map((word): Line => line(word, 'bad'));
  const why = contact.problem === '' ? [] : wrapSpans(words, columns - 2, 0, 1).slice(0, PROBLEM_LINES);
  return [line(` ${since}; asking again`, 'bad', { bold: true, reverse: true }), ...why.map((one): Line => [span(' '), ...one])];
}

/** What was well when the gateway was last heard says nothing of now. */
function verdictNow({ view, contact, columns, rows, glyphs }: Screen): Line[] {
  if (view === undefined || (!contact.live && view.verdict.state === 'well')) return [];
  return verdictLines(view, columns, Math.max(1, Math.floor(rows / 12)), glyphs);
}

/** What is not well, at most `most` lines of it. */
function verdictLines({ verdict }: DashboardView, columns: number, most: number, { dots }: Glyphs): Line[] {
  if (verdict.state === 'well') return [line(' All is well.', 'good')];
  const shown = verdict.reasons.slice(0, most);
  const more = verdict.reasons.length - shown.length;
  return shown.map((reason, i) => {
    const rest = i === shown.length - 1 && more > 0 ? ` (and ${more} more)` : '';
    const head = i === 0 ? ' DEGRADED: ' : '           ';
    return [span(head, 'bad', { bold: true }), ...fitTo(reason, columns - head.length - rest.length, dots), span(rest, 'bad')];
  });
}

function fitTo(text: string, width: number, dots: string): Line {
  const spans = line(text, 'bad');
  return text.length <= width ? spans : fitLine(spans, Math.max(1, width), dots);
}

function footLine({ ui, view, columns }: Screen): Line {
  if (ui.asking !== undefined) return questionLine(ui.asking, view);
  if (ui.typing)
    return [
      span(' show agents with: ', 'accent'),
      span(ui.filter),
      span(' ', 'plain', { reverse: true }),
      span('  Enter keeps it, Esc clears', 'dim'),
    ];
  if (ui.note !== '') return line(` ${ui.note}`, 'warn');
  const keys: readonly (readonly [string, string])[] =
    ui.page === 'overview' || ui.page === 'agents'
      ? [
          ['q', 'quit'],
          ['?', 'help'],
          ['1-5', 'pages'],
          ['Enter', 'inspect'],
          ['d', 'drain'],
          ['e', 'plan'],
          ['s', `sort:${ui.sort}`],
          ['/', 'filter'],
          ['p', 'pause'],
          ['Tab', 'next deployment'],
        ]
      : [
          ['Esc', 'back'],
          ['q', 'quit'],
          ['?', 'help'],
          ['1-5', 'pages'],
          ['arrows', 'scroll'],
          ['p', 'pause'],
          ...(ui.page === 'topology' || ui.page === 'explain' ? [['Tab', 'next deployment'] as const] : []),
        ];
  const words = keys.map(([key, what]): Line => [span(key, 'accent', { bold: true }), span(` ${what}`, 'dim')]);
  const [first = []] = wrapSpans(words, columns - 2, 0);
  return [span(' '), ...first];
}

function questionLine({ agent, undo }: { readonly agent: string; readonly undo: boolean }, view: DashboardView | undefined): Line {
  const seats = (view?.agents.find((one) => one.agent === agent)?.seats ?? []).reduce((sum, { count }) => sum + count, 0);
  const what = seats === 0 ? 'It gets no seats.' : `Its ${seats} ${seats === 1 ? 'seat moves' : 'seats move'} to others.`;
  const text = undo ? ` Give ${agent} seats again?` : ` Drain ${agent}? ${what}`;
  return [span(text, 'warn', { bold: true, reverse: true }), span('  y = yes, any other key = no', 'plain', { bold: true })];
}

// ---- pages -------------------------------------------------------------------------------------------------------------------

function bodyLines(screen: Screen, rows: number): Line[] {
  const { view, ui, columns, glyphs } = screen;
  if (ui.page === 'help') return scrolled(ruleLine('Help', '', columns, glyphs), helpLines(columns), screen, rows);
  if (view === undefined) return [];
  const topology = view.topologies.find(({ deployment }) => deployment === chosenDeployment(view, ui));
  switch (ui.page) {
    case 'overview':
      return overview(screen, view, rows);
    case 'agents':
      return agentsPane(screen, view, rows);
    case 'topology': {
      const title = ruleLine(
        `Topology of ${topology?.deployment ?? '-'}`,
        topology === undefined ? '' : plannedBy(topology),
        columns,
        glyphs,
      );
      return scrolled(title, topologyLines(topology, columns, glyphs, true), screen, rows);
    }
    case 'lanes':
      return scrolled(ruleLine('Lanes', 'the busiest first', columns, glyphs), lanesLines(view, columns, glyphs), screen, rows);
    case 'events':
      return scrolled(ruleLine('Events', 'newest first', columns, glyphs), eventLines(view.events, columns, true), screen, rows);
    case 'inspect': {
      const agent = view.agents.find((one) => one.agent === ui.selected) ?? chosenAgent(view, ui);
      const title = ruleLine(`Agent ${agent?.agent ?? '-'}`, '', columns, glyphs);
      const lines = agent === undefined ? [line(' This agent is not known any more.', 'warn')] : inspectLines(view, agent, columns, glyphs);
      return scrolled(title, lines, screen, rows);
    }
    case 'explain': {
      const deployment = chosenDeployment(view, ui);
      const title = ruleLine(`Plan of ${deployment}`, 'why it is so', columns, glyphs);
      return scrolled(
        title,
        screen.explain(deployment, columns - 2).map((text) => line(` ${text}`)),
        screen,
        rows,
      );
    }
  }
}

/** A page that may be longer than the screen. */
function scrolled(title: Line, lines: readonly Line[], { ui, glyphs }: Screen, rows: number): Line[] {
  const room = Math.max(1, rows - 1);
  if (lines.length <= room) return [title, ...lines];
  const first = Math.max(0, Math.min(ui.scroll, lines.length - (room - 1)));
  const last = Math.min(lines.length, first + room - 1);
  return [title, ...lines.slice(first, last), line(` ${glyphs.dots} lines ${first + 1} to ${last} of ${lines.length}: arrow keys`, 'dim')];
}

function agentsPane({ ui, columns, glyphs }: Screen, view: DashboardView, rows: number): Line[] {
  const agents = shownAgents(view.agents, ui);
  const filtered = ui.filter === '' ? '' : `  ${agents.length} of them with "${ui.filter}"`;
  const about = `${agentsCount(view.agents)}${filtered}${ui.sort === 'name' && !ui.reversed ? '' : `  by ${ui.sort}${ui.reversed ? ', reversed' : ''}`}`;
  const selected = chosenAgent(view, ui)?.agent ?? '';
  return [
    ruleLine('Agents', about, columns, glyphs),
    ...agentLines({ agents, total: view.agents.length, selected, filter: ui.filter }, columns, rows - 1, glyphs),
  ];
}

/** A part of the screen: rows without which it says nothing, and all that it has to say. `last`: it grows when the others have all of theirs. */
export interface Part {
  readonly least: number;
  readonly want: number;
  readonly last?: boolean;
}

/** `rows` shared out: each part gets its least, those that want more take turns; what does not fit at all falls away, the last named first. */
export function shareRows(rows: number, parts: readonly Part[]): number[] {
  const heights = parts.map(() => 0);
  let left = rows;
  for (const [i, { least, want }] of parts.entries()) {
    const first = Math.min(least, want);
    if (first > left) continue;
    heights[i] = first;
    left -= first;
  }
  for (const turn of [false, true]) {
    for (let before = -1; left > 0 && left !== before; ) {
      before = left;
      for (const [i, { want, last = false }] of parts.entries()) {
        const height = heights[i] ?? 0;
        if (left === 0 || last !== turn || height === 0 || height >= want) continue;
        heights[i] = height + 1;
        left--;
      }
    }
  }
  return heights;
}

function overview(screen: Screen, view: DashboardView, rows: number): Line[] {
  const { ui, columns, glyphs } = screen;
  const name = chosenDeployment(view, ui);
  const topology = view.topologies.find(({ deployment }) => deployment === name);
  const deployments = deploymentLines(nearby(view, name), name, columns, glyphs);
  const hidden = view.deployments.length - Math.min(view.deployments.length, FEW_DEPLOYMENTS);
  const beside = columns >= BESIDE;
  const left = beside ? Math.floor(columns * 0.6) : columns;
  const shape = topologyLines(topology, left, glyphs);
  const events = eventLines(view.events, beside ? columns - left - 1 : columns, beside);
  const agentsWant = Math.max(1, shownAgents(view.agents, ui).length) + 2;
  // In the order in which they are given up: the last one first.
  const [agentRows = 0, deploymentRows = 0, eventRows = 0, shapeRows = 0] = shareRows(rows, [
    { least: 4, want: agentsWant },
    { least: 3, want: deployments.length + 1 },
    beside ? { least: 0, want: 0 } : { least: 3, want: events.length + 1, last: true },
    { least: 5, want: view.deployments.length === 0 ? 0 : shape.length + 1 },
  ]);
  const deploymentPane = [
    ruleLine('Deployments', hidden > 0 ? `${view.deployments.length}; Tab goes on` : '', columns, glyphs),
    ...deployments,
  ].slice(0, deploymentRows);
  const rest = rows - agentRows - deploymentRows;
  const middle = beside
    ? besides(screen, name, shape, events, left, rest)
    : topologyPane(name, topology, shape, columns, shapeRows, glyphs);
  const agents = agentsPane(screen, view, agentRows);
  // Few events and few agents leave rows over: they go below.
  const log =
    beside || eventRows === 0 ? [] : [ruleLine('Events', '', columns, glyphs), ...events].slice(0, Math.max(eventRows, rest - shapeRows));
  return [...deploymentPane, ...middle, ...agents, ...log];
}

/** At most a few deployments, the chosen one among them. */
function nearby({ deployments }: DashboardView, chosen: string): DashboardView['deployments'] {
  const at = Math.max(
    0,
    deployments.findIndex(({ name }) => name === chosen),
  );
  const first = Math.max(0, Math.min(at - 1, deployments.length - FEW_DEPLOYMENTS));
  return deployments.slice(first, first + FEW_DEPLOYMENTS);
}

function topologyPane(
  name: string,
  topology: { readonly epoch: number; readonly planner: string } | undefined,
  lines: readonly Line[],
  width: number,
  rows: number,
  glyphs: Glyphs,
): Line[] {
  if (rows === 0) return [];
  const title = ruleLine(`Topology of ${name}`, topology === undefined ? '' : plannedBy(topology), width, glyphs);
  if (lines.length <= rows - 1) return [title, ...lines];
  const shown = lines.slice(0, Math.max(0, rows - 2));
  return [title, ...shown, line(` ${glyphs.dots} ${lines.length - shown.length} more lines: press 2`, 'dim')];
}

/** Topology and events side by side. */
function besides(screen: Screen, name: string, shape: readonly Line[], events: readonly Line[], left: number, rows: number): Line[] {
  const { columns, glyphs, view } = screen;
  const topology = view?.topologies.find(({ deployment }) => deployment === name);
  const one =
    name === ''
      ? [ruleLine('Topology', '', left, glyphs), line(' Nothing is deployed.', 'dim')]
      : topologyPane(name, topology, shape, left, Math.min(rows, shape.length + 1), glyphs);
  const other = [ruleLine('Events', '', columns - left - 1, glyphs), ...events].slice(0, rows);
  const height = Math.max(one.length, Math.min(rows, other.length));
  return Array.from(
    { length: height },
    (_, i): Line => [
      ...fitLine(one[i] ?? line(''), left, glyphs.dots),
      span(' '),
      ...fitLine(other[i] ?? line(''), columns - left - 1, glyphs.dots),
    ],
  );
}
