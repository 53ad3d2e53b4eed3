/** From a report to the plot people would rather look at. Each function is pure: figures in, description of a plot out. */
import { type PlotPanel, type PlotPoint, type PlotSeries, type PlotSpec, plotSvg } from '../plot.js';
import type { Figure } from './figures.js';
import type { Report } from './report.js';

/** The figures whose names match, with what the pattern caught. */
function matching({ figures }: Report, pattern: RegExp): { readonly figure: Figure; readonly groups: Readonly<Record<string, string>> }[] {
  return figures.flatMap((figure) => {
    const match = pattern.exec(figure.figure);
    return match === null || !Number.isFinite(figure.value) ? [] : [{ figure, groups: { ...match.groups } }];
  });
}

const point = (x: number | string, { value, spread }: Figure, times = 1): PlotPoint => ({
  x,
  y: value * times,
  low: spread[0] * times,
  high: spread[1] * times,
});

const ascending = (points: readonly PlotPoint[]): PlotPoint[] => points.toSorted((a, b) => Number(a.x) - Number(b.x));
const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];

function subtitle({ commit, date, machine }: Report): string {
  const quiet = machine.quiet ? '' : '; THE MACHINE WAS NOT QUIET';
  return `${date}, commit ${commit}, ${machine.processor}, ${machine.cores} cores${quiet}`;
}

function scalingPlot(report: Report): PlotSpec | undefined {
  const found = matching(report, /^(?<model>.+), (?<n>\d+) agents: throughput over/);
  if (found.length === 0) return undefined;
  const models = unique(found.map(({ groups }) => groups.model ?? ''));
  const counts = [1, ...unique(found.map(({ groups }) => Number(groups.n))).toSorted((a, b) => a - b)];
  const series = models.map((name): PlotSeries => {
    const own = found.filter(({ groups }) => groups.model === name);
    return { name, points: ascending(own.map(({ figure, groups }) => point(Number(groups.n), figure, Number(groups.n)))) };
  });
  const ideal: PlotSeries = { name: 'as many bare engines', dashed: true, color: '#8c959f', points: counts.map((n) => ({ x: n, y: n })) };
  return {
    title: 'Throughput of N agents, in bare engines on one device',
    subtitle: subtitle(report),
    x: { label: 'agents', ticks: counts },
    y: { label: 'throughput / throughput of one bare engine' },
    panels: [{ title: '', series: [ideal, ...series] }],
    caption: 'Whiskers: quartiles. Each device: 0.18 core, one engine thread, 1 GiB (512 MiB where said), 1 Gbit/s.',
  };
}

function latencyPlot(report: Report): PlotSpec | undefined {
  const found = matching(
    report,
    /^(?<model>.+?), (?<n>\d+) agents (?<setting>.+): (?<what>latency over one device|compute ceiling over one device)$/,
  );
  if (found.length === 0) return undefined;
  const counts = unique(found.map(({ groups }) => Number(groups.n))).toSorted((a, b) => a - b);
  const panels = unique(found.map(({ groups }) => groups.model ?? '')).map((model): PlotPanel => {
    const mine = found.filter(({ groups }) => groups.model === model);
    const of = (setting: string, what: string, name: string, dashed: boolean): PlotSeries => {
      const own = mine.filter(({ groups }) => groups.setting === setting && groups.what?.startsWith(what));
      const mark = counts.length > 1 && own.length > 1 ? 'line' : 'points';
      return { name, dashed, mark, points: ascending(own.map(({ figure, groups }) => point(Number(groups.n), figure))) };
    };
    const settings = unique(mine.map(({ groups }) => groups.setting ?? ''));
    const measured = settings.map((setting) => of(setting, 'latency', setting, false));
    const series = [...measured, of('at 1 Gbit/s', 'compute', 'compute ceiling at 1 Gbit/s', true)];
    return { title: model, series: series.filter(({ points }) => points.length > 0) };
  });
  return {
    title: 'One frame at a time: how much faster than one device',
    subtitle: subtitle(report),
    x: { label: 'agents', ticks: counts },
    y: { label: 'latency of one device / latency' },
    panels,
    panelWidth: 420,
    panelHeight: 320,
    caption: 'Compute ceiling: the same slices run alone, the slowest part of each stage counted. Whiskers: quartiles.',
  };
}

function predictionPlot(report: Report): PlotSpec | undefined {
  const found = matching(report, /^(?<plan>.+): (?<what>frames per second|latency)$/).filter(({ figure }) => figure.beside !== undefined);
  const plans = unique(found.map(({ groups }) => groups.plan ?? ''));
  if (plans.length === 0) return undefined;
  const panels = ['latency', 'frames per second'].map((what): PlotPanel => {
    const own = found.filter(({ groups }) => groups.what === what);
    const over = (kind: string): PlotSeries => ({
      name: kind,
      mark: 'points',
      points: own.flatMap(({ figure: { value, beside }, groups }) =>
        beside?.[kind] === undefined ? [] : [{ x: plans.indexOf(groups.plan ?? '') + 1, y: beside[kind] / value }],
      ),
    });
    const series = [over('predicted'), over('simulated')].filter((s) => s.points.length > 0);
    const rules = [
      { y: 1.2, label: '+20 %' },
      { y: 1, label: 'as measured' },
      { y: 0.8, label: '-20 %' },
    ];
    return { title: what, series, rules };
  });
  return {
    title: 'Predictions over what was measured',
    subtitle: subtitle(report),
    x: { label: 'plan', ticks: plans.map((_, i) => i + 1) },
    y: { label: 'predicted / measured', fromZero: false },
    panels,
    columns: 1,
    panelWidth: 720,
    panelHeight: 240,
    caption: `Plans: ${plans.map((plan, i) => `${i + 1} ${plan}`).join('; ')}.`,
  };
}

function policiesPlot(report: Report): PlotSpec | undefined {
  const found = matching(report, /^(?<setting>.+), (?<model>\S+): (?<planner>\S+)$/);
  if (found.length === 0) return undefined;
  const keyOf = (groups: Readonly<Record<string, string>>): string => `${groups.setting}, ${groups.model}`;
  const panels = unique(found.map(({ groups }) => keyOf(groups))).map((key): PlotPanel => {
    const own = found.filter(({ groups }) => keyOf(groups) === key);
    return {
      title: key,
      series: [
        {
          name: 'frames per second',
          mark: 'bars',
          points: own.map(({ figure, groups }) => point(groups.planner?.replace('musical-chair', 'chair') ?? '', figure)),
        },
      ],
    };
  });
  return {
    title: 'Throughput of the same agents under different planners',
    subtitle: subtitle(report),
    x: { label: '' },
    y: { label: 'frames per second' },
    panels,
    columns: 2,
    panelWidth: 460,
    panelHeight: 240,
    ownY: true,
  };
}

function lanesPlot(report: Report): PlotSpec | undefined {
  const found = matching(report, /^one hop, (?<size>.+): (?<way>lane|bare TCP)$/);
  if (found.length === 0) return undefined;
  const ways = unique(found.map(({ groups }) => groups.way ?? ''));
  const series = ways.map((name): PlotSeries => {
    const own = found.filter(({ groups }) => groups.way === name);
    return { name, mark: 'bars', points: own.map(({ figure, groups }) => point(groups.size ?? '', figure)) };
  });
  return {
    title: 'One hop between two processes on loopback',
    subtitle: subtitle(report),
    x: { label: 'message' },
    y: { label: 'MB/s' },
    panels: [{ title: '', series }],
    panelWidth: 520,
    panelHeight: 300,
  };
}

function plannerPlot(report: Report): PlotSpec | undefined {
  const found = matching(report, /^brute force, (?<size>.+) for (?<objective>\S+), memory (?<memory>\S+): worst distance$/);
  if (found.length === 0) return undefined;
  const panels = unique(found.map(({ groups }) => `${groups.objective}, memory ${groups.memory}`)).map((title): PlotPanel => {
    const own = found.filter(({ groups }) => `${groups.objective}, memory ${groups.memory}` === title);
    const points = own.flatMap(({ figure, groups }) => figure.samples.map((y) => ({ x: groups.size?.replace(' on ', ' x ') ?? '', y })));
    return { title, series: [{ name: 'one random problem', mark: 'points', points }], rules: [{ y: 2, label: 'target' }] };
  });
  return {
    title: 'auto above the optimum found by brute force',
    subtitle: subtitle(report),
    x: { label: 'blocks x devices' },
    y: { label: '% above the optimum' },
    panels,
    columns: 1,
    panelWidth: 720,
    panelHeight: 160,
  };
}

const PLOTS: Readonly<Record<string, (report: Report) => PlotSpec | undefined>> = {
  scaling: scalingPlot,
  latency: latencyPlot,
  prediction: predictionPlot,
  policies: policiesPlot,
  lanes: lanesPlot,
  planner: plannerPlot,
};

/** What to draw of a report; undefined = its table says it all, or nothing was measured. */
export function plotSpec(report: Report): PlotSpec | undefined {
  return PLOTS[report.name]?.(report);
}

/** One SVG. Throws PLOT_UNAVAILABLE. */
export async function plotOf(report: Report): Promise<string | undefined> {
  const spec = plotSpec(report);
  return spec === undefined ? undefined : plotSvg(spec);
}
