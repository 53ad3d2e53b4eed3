/** What the person at the keyboard has chosen, and what a key changes. A reducer without effects; those are returned as data. */
import { byName } from '../../scheduler/dashboard/lanes.js';
import type { AgentView, DashboardView } from '../../scheduler/dashboard/view.js';

export type Page = 'overview' | 'topology' | 'agents' | 'lanes' | 'events' | 'inspect' | 'explain' | 'help';

export const SORTS = ['name', 'state', 'cpu', 'memory', 'temperature', 'queue', 'frames', 'p95'] as const;
export type Sort = (typeof SORTS)[number];

export interface Ui {
  readonly page: Page;
  /** Where Escape leads from inspect, explain and help. */
  readonly back: Page;
  /** Agent; '' = the first one. */
  readonly selected: string;
  /** Deployment whose topology and plan are shown; '' = the first one. */
  readonly deployment: string;
  readonly sort: Sort;
  readonly reversed: boolean;
  readonly filter: string;
  /** The filter is being typed. */
  readonly typing: boolean;
  /** A question that waits for y. */
  readonly asking: { readonly agent: string; readonly undo: boolean } | undefined;
  readonly paused: boolean;
  /** First line shown of a page that is longer than the screen. */
  readonly scroll: number;
  /** What the last command did; gone with the next key. */
  readonly note: string;
}

export const START: Ui = {
  page: 'overview',
  back: 'overview',
  selected: '',
  deployment: '',
  sort: 'name',
  reversed: false,
  filter: '',
  typing: false,
  asking: undefined,
  paused: false,
  scroll: 0,
  note: '',
};

/** What cannot be done here. */
export type Effect = 'quit' | 'redraw' | 'suspend' | { readonly drain: string; readonly undo: boolean };

export interface Pressed {
  readonly ui: Ui;
  readonly effect?: Effect;
}

/** Pages by their number keys. */
export const PAGES: readonly Page[] = ['overview', 'topology', 'agents', 'lanes', 'events'];
/** Pages on which agents are chosen; on the others the arrows scroll. */
const CHOOSING: ReadonlySet<Page> = new Set<Page>(['overview', 'agents']);
const FILTER_LENGTH = 64;

/** Agents in the order and selection that is asked for. */
export function shownAgents(
  agents: readonly AgentView[],
  { filter, sort, reversed }: Pick<Ui, 'filter' | 'sort' | 'reversed'>,
): AgentView[] {
  const wanted = filter.toLowerCase();
  const shown = agents.filter((one) => wanted === '' || wordsOf(one).some((word) => word.toLowerCase().includes(wanted)));
  shown.sort((a, b) => ORDERS[sort](a, b) || byName(a.agent, b.agent));
  return reversed ? shown.reverse() : shown;
}

function wordsOf({ agent, state, version, seats }: AgentView): string[] {
  return [agent, state, version, ...seats.map(({ deployment }) => deployment)];
}

/** What needs looking at comes first: names ascending, figures descending. */
const ORDERS: Readonly<Record<Sort, (a: AgentView, b: AgentView) => number>> = {
  name: (a, b) => byName(a.agent, b.agent),
  state: (a, b) => rankOf(a.state) - rankOf(b.state),
  cpu: (a, b) => b.cpu - a.cpu,
  memory: (a, b) => b.memoryUsedBytes / Math.max(1, b.memoryBytes) - a.memoryUsedBytes / Math.max(1, a.memoryBytes),
  temperature: (a, b) => b.temperature - a.temperature,
  queue: (a, b) => b.queue - a.queue,
  frames: (a, b) => b.framesPerSecond - a.framesPerSecond,
  p95: (a, b) => b.p95Ms - a.p95Ms,
};

const STATES = ['lost', 'refused', 'suspect', 'joining', 'draining', 'ready', 'stopped'];

function rankOf(state: string): number {
  const rank = STATES.indexOf(state);
  return rank < 0 ? STATES.length : rank;
}

/** The agent that the next command is for; undefined when none is shown. */
export function chosenAgent(view: DashboardView, ui: Ui): AgentView | undefined {
  const agents = shownAgents(view.agents, ui);
  return agents.find(({ agent }) => agent === ui.selected) ?? agents[0];
}

export function chosenDeployment(view: DashboardView, { deployment }: Ui): string {
  return (view.deployments.find(({ name }) => name === deployment) ?? view.deployments[0])?.name ?? '';
}

/** `pageRows`: how far a page key moves. Keys are named as `keys.ts` does. */
export function press(ui: Ui, key: string, view: DashboardView | undefined, pageRows: number): Pressed {
  if (key === 'ctrl-c') return { ui, effect: 'quit' };
  if (ui.asking !== undefined) return answered(ui, ui.asking, key);
  if (ui.typing) return { ui: typed(ui, key) };
  const quiet = { ...ui, note: '' };
  switch (key) {
    case 'q':
      return { ui: quiet, effect: 'quit' };
    case 'ctrl-l':
      return { ui: quiet, effect: 'redraw' };
    case 'ctrl-z':
      return { ui: quiet, effect: 'suspend' };
    case 'p':
    case 'space':
      return { ui: { ...quiet, paused: !ui.paused } };
    case '?':
    case 'h':
      return { ui: opened(quiet, 'help') };
    case 'escape':
    case 'backspace':
    case 'left':
      return { ui: back(quiet) };
  }
  const page = PAGES[Number.parseInt(key, 10) - 1];
  if (page !== undefined) return { ui: { ...quiet, page, scroll: 0 } };
  return view === undefined ? { ui: quiet } : { ui: chosen(quiet, key, view, pageRows) };
}

function answered(ui: Ui, { agent, undo }: { readonly agent: string; readonly undo: boolean }, key: string): Pressed {
  const asked = { ...ui, asking: undefined };
  if (key === 'y' || key === 'Y') return { ui: { ...asked, note: '' }, effect: { drain: agent, undo } };
  return { ui: { ...asked, note: `${agent} was left as it is.` } };
}

function typed(ui: Ui, key: string): Ui {
  if (key === 'enter') return { ...ui, typing: false };
  if (key === 'escape') return { ...ui, typing: false, filter: '' };
  if (key === 'backspace') return { ...ui, filter: ui.filter.slice(0, -1) };
  const character = key === 'space' ? ' ' : key;
  return character.length === 1 ? { ...ui, filter: (ui.filter + character).slice(0, FILTER_LENGTH) } : ui;
}

function back(ui: Ui): Ui {
  if (ui.page === 'inspect' || ui.page === 'explain' || ui.page === 'help') return { ...ui, page: ui.back, scroll: 0 };
  return ui.page === 'overview' ? { ...ui, filter: '' } : { ...ui, page: 'overview', scroll: 0 };
}

function opened(ui: Ui, page: Page): Ui {
  if (ui.page === page) return back(ui);
  const from = ui.page === 'inspect' || ui.page === 'explain' || ui.page === 'help' ? ui.back : ui.page;
  return { ...ui, page, back: from, scroll: 0 };
}

/** Keys that are about something on the screen. */
function chosen(ui: Ui, key: string, view: DashboardView, pageRows: number): Ui {
  switch (key) {
    case 's':
      return { ...ui, sort: SORTS[(SORTS.indexOf(ui.sort) + 1) % SORTS.length] ?? 'name' };
    case 'r':
      return { ...ui, reversed: !ui.reversed };
    case '/':
      return { ...ui, typing: true, page: CHOOSING.has(ui.page) ? ui.page : 'agents' };
    case 'e':
      return view.deployments.length === 0
        ? { ...ui, note: 'Nothing is deployed, so there is no plan to explain.' }
        : opened(ui, 'explain');
    case 'tab':
    case 'right':
      return { ...ui, deployment: next(view, ui), scroll: 0 };
    case 'd':
      return asked(ui, view);
    case 'enter':
      return ui.page === 'inspect' ? back(ui) : inspected(ui, view);
  }
  const step = STEPS[key];
  return step === undefined ? ui : moved(ui, step(pageRows), view);
}

const STEPS: Readonly<Record<string, (pageRows: number) => number>> = {
  up: () => -1,
  k: () => -1,
  down: () => 1,
  j: () => 1,
  pageup: (rows) => -Math.max(1, rows),
  pagedown: (rows) => Math.max(1, rows),
  home: () => Number.NEGATIVE_INFINITY,
  g: () => Number.NEGATIVE_INFINITY,
  end: () => Number.POSITIVE_INFINITY,
  G: () => Number.POSITIVE_INFINITY,
};

function moved(ui: Ui, by: number, view: DashboardView): Ui {
  // How long the page is, only the screen knows: it shows its end when this is beyond it.
  if (!CHOOSING.has(ui.page)) return { ...ui, scroll: Math.max(0, Math.min(100_000, ui.scroll + by)) };
  const agents = shownAgents(view.agents, ui);
  const at = Math.max(
    0,
    agents.findIndex(({ agent }) => agent === ui.selected),
  );
  const to = Math.max(0, Math.min(agents.length - 1, at + by));
  return { ...ui, selected: agents[to]?.agent ?? '' };
}

function next({ deployments }: DashboardView, { deployment }: Ui): string {
  const at = Math.max(
    0,
    deployments.findIndex(({ name }) => name === deployment),
  );
  return deployments[(at + 1) % Math.max(1, deployments.length)]?.name ?? '';
}

function inspected(ui: Ui, view: DashboardView): Ui {
  const agent = chosenAgent(view, ui);
  return agent === undefined ? { ...ui, note: 'There is no agent to inspect.' } : { ...opened(ui, 'inspect'), selected: agent.agent };
}

function asked(ui: Ui, view: DashboardView): Ui {
  const agent = chosenAgent(view, ui);
  if (agent === undefined) return { ...ui, note: 'There is no agent to drain.' };
  if (agent.state !== 'ready' && agent.state !== 'draining' && agent.state !== 'suspect')
    return { ...ui, note: `${agent.agent} is ${agent.state}: it holds no seats that could be moved.` };
  return { ...ui, selected: agent.agent, asking: { agent: agent.agent, undo: agent.state === 'draining' } };
}
