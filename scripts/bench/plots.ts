/** From a report to the plot people would rather look at. Each function is pure: figures in, description of a plot out. */
import { type PlotPanel, type PlotPoint, type PlotSeries, type PlotSpec, plotSvg } from '../plot.js';
import type { Figure } from './figures.js';
import type { Report } from './report.js';

/** A figure, and what the pattern caught of its name. */
interface Found {
  readonly figure: Figure;
  readonly groups: Readonly<Record<string, string>>;
}

/** How a report is drawn. */
interface Plot {
  /** Names of the figures that it shows. */
  readonly pattern: RegExp;
  /** `found` is not empty; undefined = there is nothing to show all the same. */
  draw(found: readonly Found[]): Omit<PlotSpec, 'subtitle'> | undefined;
}

function matching({ figures }: Report, pattern: RegExp): Found[] {
  return figures.flatMap((figure) => {
    const match = pattern.exec(figure.figure);
    return match === null || !Number.isFinite(figure.value) ? [] : [{ figure, groups: { ...match.groups } }];
  });
}

/** Those with the same key together, in the order in which keys first come. */
function grouped(found: readonly Found[], keyOf: (groups: Found['groups']) => string | undefined): [key: string, own: Found[]][] {
  const lists = new Map<string, Found[]>();
  for (const one of found) {
    const key = keyOf(one.groups) ?? '';
    lists.set(key, [...(lists.get(key) ?? []), one]);
  }
  return [...lists];
}

const point = (x: number | string, { value, spread }: Figure, times = 1): PlotPoint => ({
  x,
  y: value * times,
  low: spread[0] * times,
  high: spread[1] * times,
});

/** A line over the number of agents; `times(agents)` is a factor on the figure. */
const overAgents = (found: readonly Found[], times = (_agents: number): number => 1): PlotPoint[] =>
  found.map(({ figure, groups }) => point(Number(groups.n), figure, times(Number(groups.n)))).toSorted((a, b) => Number(a.x) - Number(b.x));

/** What was aimed at, as a number; undefined = nothing was. */
function targetOf({ target }: Figure): number | undefined {
  const [text] = /\d+(\.\d+)?/.exec(target) ?? [];
  return text === undefined ? undefined : Number(text);
}

/** What is aimed at, or cannot be beaten, beside what was measured. */
const GREY = '#8c959f';
const LIGHT_GREY = '#c0c6cc';

const agentCounts = (found: readonly Found[]): number[] =>
  [...new Set(found.map(({ groups }) => Number(groups.n)))].toSorted((a, b) => a - b);

function subtitle({ commit, date, machine }: Report): string {
  const quiet = machine.quiet ? '' : '; THE MACHINE WAS NOT QUIET';
  return `${date}, commit ${commit}, ${machine.processor}, ${machine.cores} cores${quiet}`;
}

const scaling: Plot = {
  pattern: /^(?<model>.+), (?<n>\d+) agents: throughput over \d+ (?<what>x the bare engine|bare engines at once)$/,
  draw(found) {
    const counts = [1, ...agentCounts(found)];
    const ideal: PlotSeries = { name: 'as many bare engines', dashed: true, color: GREY, points: counts.map((n) => ({ x: n, y: n })) };
    const panel = (what: string, title: string): PlotPanel => {
      const own = found.filter(({ groups }) => groups.what === what);
      const series = grouped(own, ({ model }) => model).map(([name, of]) => ({ name, points: overAgents(of, (agents) => agents) }));
      // One line for all: the few that aim lower say so in the table.
      const target = Math.max(0, ...own.map(({ figure }) => targetOf(figure) ?? 0));
      const aim = {
        name: `target: ${target} of that`,
        dashed: true,
        color: LIGHT_GREY,
        points: counts.map((n) => ({ x: n, y: n * target })),
      };
      return { title, series: [ideal, ...(target > 0 && series.length > 0 ? [aim] : []), ...series] };
    };
    const panels = [panel('x the bare engine', 'against one bare engine alone'), panel('bare engines at once', 'against as many at once')];
    return {
      title: 'Throughput of N agents, in bare engines',
      x: { label: 'agents', ticks: counts },
      y: { label: 'throughput / throughput of one bare engine' },
      panels: panels.filter(({ series }) => series.length > 1),
      panelWidth: 420,
      panelHeight: 340,
      caption:
        'Whiskers: quartiles. Each device: 0.18 core, one engine thread, 1 GiB (512 MiB where said, where the target is lower: see the table), 1 Gbit/s. Engines at once share caches and memory, as agents here do.',
    };
  },
};

const latency: Plot = {
  pattern: /^(?<model>.+?), (?<n>\d+) agents (?<setting>.+): (?<what>latency over one device|compute ceiling over one device)$/,
  draw(found) {
    const counts = agentCounts(found);
    const line = (name: string, own: readonly Found[], dashed: boolean): PlotSeries => {
      const mark = counts.length > 1 && own.length > 1 ? 'line' : 'points';
      return { name, dashed, mark, points: overAgents(own) };
    };
    const panels = grouped(found, ({ model }) => model).map(([title, mine]): PlotPanel => {
      const isMeasured = ({ groups }: Found): boolean => groups.what?.startsWith('latency') === true;
      const measured = grouped(mine, ({ setting }) => setting).map(([setting, own]) => line(setting, own.filter(isMeasured), false));
      const ceiling = mine.filter((one) => !isMeasured(one) && one.groups.setting === 'at 1 Gbit/s');
      const targets = mine.flatMap((one) => {
        const y = isMeasured(one) && one.groups.setting === 'at 1 Gbit/s' ? targetOf(one.figure) : undefined;
        return y === undefined ? [] : [{ x: Number(one.groups.n), y }];
      });
      const aim: PlotSeries = { name: 'target at 1 Gbit/s', mark: 'points', dashed: true, color: GREY, points: targets };
      const series = [...measured, line('compute ceiling at 1 Gbit/s', ceiling, true), aim];
      return { title, series: series.filter(({ points }) => points.length > 0) };
    });
    return {
      title: 'One frame at a time: how much faster than one device',
      x: { label: 'agents', ticks: counts },
      y: { label: 'latency of one device / latency' },
      panels,
      panelWidth: 420,
      panelHeight: 320,
      caption:
        'Higher is better; 1 is one device. Compute ceiling: the same slices run alone, the slowest part of each stage counted. Whiskers: quartiles. 0.18 core an agent where nothing else is said.',
    };
  },
};

const prediction: Plot = {
  pattern: /^(?<plan>.+): (?<what>frames per second|latency)$/,
  draw(all) {
    const found = all.filter(({ figure }) => figure.beside !== undefined);
    const plans = grouped(found, ({ plan }) => plan).map(([plan]) => plan);
    if (plans.length === 0) return undefined;
    // Their words stand in the caption: in the panel they would lie over the points.
    const rules = [1.2, 1, 0.8].map((y) => ({ y, label: '' }));
    const panels = ['latency', 'frames per second'].map((what): PlotPanel => {
      const own = found.filter(({ groups }) => groups.what === what);
      // Beside each other: the two are often equal, and one would hide the other.
      const over = (kind: string, aside: number): PlotSeries => ({
        name: kind,
        mark: 'points',
        points: own.flatMap(({ figure: { value, beside }, groups }) =>
          beside?.[kind] === undefined ? [] : [{ x: plans.indexOf(groups.plan ?? '') + 1 + aside, y: beside[kind] / value }],
        ),
      });
      return { title: what, series: [over('predicted', -0.08), over('simulated', 0.08)].filter((s) => s.points.length > 0), rules };
    });
    return {
      title: 'What was predicted and simulated, over what was measured',
      x: { label: 'plan', ticks: plans.map((_, i) => i + 1) },
      y: { label: 'said / measured', fromZero: false },
      panels,
      columns: 1,
      panelWidth: 720,
      panelHeight: 240,
      caption: `Dotted lines: as measured (1), and 20 % off. Above 1: frames came sooner (latency), or fewer of them (frames per second), than was said. Plans: ${plans.map((plan, i) => `${i + 1} ${plan.replace('(1 agents)', '(1 agent)')}`).join('; ')}.`,
    };
  },
};

const policies: Plot = {
  pattern: /^(?<setting>.+), (?<model>\S+): (?<planner>\S+)$/,
  draw(found) {
    const panels = grouped(found, ({ setting, model }) => `${setting}, ${model}`).map(([title, own]): PlotPanel => {
      const points = own.map(({ figure, groups }) => point(groups.planner?.replace('musical-chair', 'chair') ?? '', figure));
      return { title, series: [{ name: 'frames per second', mark: 'bars', points }] };
    });
    return {
      title: 'Throughput of the same agents under different planners',
      x: { label: '' },
      y: { label: 'frames per second' },
      panels,
      columns: 2,
      panelWidth: 460,
      panelHeight: 240,
      ownY: true,
      caption:
        'Higher is better; each panel has its own scale. Whiskers: quartiles, of those measured more than once. chair-2018: musical-chair-2018, the published algorithm. Where a planner is missing, it has no plan for these devices.',
    };
  },
};

const lanes: Plot = {
  pattern: /^one hop, (?<size>.+): (?<way>lane|bare TCP)$/,
  draw(found) {
    const ours = found.toSorted((a, b) => Number(b.groups.way === 'lane') - Number(a.groups.way === 'lane'));
    const series = grouped(ours, ({ way }) => way).map(
      ([name, own]): PlotSeries => ({ name, mark: 'bars', points: own.map(({ figure, groups }) => point(groups.size ?? '', figure)) }),
    );
    return {
      title: 'One hop between two processes on loopback',
      x: { label: 'size of the message' },
      y: { label: 'throughput, MB/s' },
      panels: [{ title: '', series }],
      panelWidth: 520,
      panelHeight: 300,
      caption: 'Higher is better. Whiskers: quartiles. The two are measured in turn; nothing is encrypted.',
    };
  },
};

const planner: Plot = {
  pattern: /^brute force, (?<size>.+) for (?<objective>\S+), memory (?<memory>\S+): worst distance$/,
  draw(found) {
    const panels = grouped(
      found,
      ({ objective, memory }) => `${objective}, ${memory === 'free' ? 'plenty of memory' : `memory ${memory}`}`,
    ).map(([title, own]): PlotPanel => {
      const points = own.flatMap(({ figure, groups }) => figure.samples.map((y) => ({ x: groups.size?.replace(' on ', ' x ') ?? '', y })));
      return { title, series: [{ name: 'one random problem', mark: 'points', points }], rules: [{ y: 2, label: 'target' }] };
    });
    return {
      title: 'How far the plans of auto are above the optimum that brute force finds',
      x: { label: 'blocks x devices' },
      y: { label: '% above' },
      panels,
      columns: 1,
      panelWidth: 720,
      panelHeight: 130,
      caption:
        '0: no plan is better. 2 x 4: two blocks on four devices. Problems whose optimum was not found in the time given are not drawn; the table counts them.',
    };
  },
};

const PLOTS: Readonly<Record<string, Plot>> = { scaling, latency, prediction, policies, lanes, planner };

/** What to draw of a report; undefined = its table says it all, or nothing was measured. */
export function plotSpec(report: Report): PlotSpec | undefined {
  const plot = PLOTS[report.name];
  const found = plot === undefined ? [] : matching(report, plot.pattern);
  const drawn = found.length === 0 ? undefined : plot?.draw(found);
  return drawn === undefined ? undefined : { ...drawn, subtitle: subtitle(report) };
}

/** One SVG. Throws PLOT_UNAVAILABLE. */
export async function plotOf(report: Report): Promise<string | undefined> {
  const spec = plotSpec(report);
  return spec === undefined ? undefined : plotSvg(spec);
}
