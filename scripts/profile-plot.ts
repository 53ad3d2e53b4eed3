/** A report of profiles as a plot: time against parts, layer by layer. Pure. */
import type { ProfileMeasure, ProfileReport } from '../broker/messages.js';
import type { PlotPanel, PlotPoint, PlotSeries, PlotSpec } from './plot.js';
import { blocksOf, errorOf, errorsText, type Group, groupsOf, shortLabel } from './profile-text.js';
import { countText } from './table.js';

/** Time against the number of parts, a panel per block, as in the figures of the Musical Chair paper. */
export function profilePlot(report: ProfileReport, model: string): PlotSpec {
  const groups = groupsOf(report);
  const panels = new Map<string, { readonly title: string; readonly note: string; readonly series: PlotSeries[] }>();
  for (const group of groups) {
    const suffix = groups.length === 1 ? '' : ` · ${shortName(group, groups)}`;
    for (const [index, block] of blocksOf(group.rows).entries()) {
      const [first] = block;
      if (first === undefined) continue;
      const key = `${first.startNode}-${first.endNode}`;
      const whole = block.find((row) => row.parts === 1);
      const panel = panels.get(key) ?? { title: `${index}  ${shortLabel(first)}`, note: work(whole), series: [] };
      panels.set(key, panel);
      panel.series.push(...seriesOf(block, whole, suffix, groups.length === 1));
    }
  }
  const parts = [...new Set(report.rows.filter(({ what }) => what === 'block').map((row) => row.parts))].sort((a, b) => a - b);
  const errors = report.checks.filter(({ what }) => what === 'interpolation').map(errorOf);
  const between = report.rows.some(({ from }) => from === 'interpolated')
    ? `Between the measured numbers of parts interpolated${errors.length === 0 ? '' : ` (against ${errors.length} points measured all the same: ${errorsText(errors)})`}. `
    : '';
  return {
    title: `${model}: time of a part of each block, by number of parts`,
    subtitle: [
      ...new Set(groups.map(({ device, threads }) => `${device?.text ?? ''}; ${threads} engine thread${threads === 1 ? '' : 's'}`)),
    ].join('\n'),
    caption:
      `The largest part of each cut, by itself on one device, transfers not included: median of its runs, whiskers at the quartiles. ${between}`.trim(),
    x: { label: 'parts', ticks: parts.filter((n) => parts.length <= 8 || Number.isInteger(Math.log2(n))) },
    y: { label: 'ms' },
    ownY: true,
    panels: [...panels.values()].map((panel): PlotPanel => panel),
  };
}

function seriesOf(block: readonly ProfileMeasure[], whole: ProfileMeasure | undefined, suffix: string, withIdeal: boolean): PlotSeries[] {
  const point = (row: ProfileMeasure): PlotPoint =>
    row.from === 'interpolated' ? { x: row.parts, y: row.ms } : { x: row.parts, y: row.ms, low: row.lowMs, high: row.highMs };
  const good = block.filter(({ code }) => code === '');
  const cuts = [...new Set(good.filter((row) => row.parts > 1).map(({ cut }) => cut))];
  const first = whole === undefined || whole.code !== '' ? [] : [point(whole)];
  const lines = cuts.map((cut): PlotSeries => {
    const rest = good.filter((row) => row.parts > 1 && row.cut === cut).sort((a, b) => a.parts - b.parts);
    return { name: `${cut}${suffix}`, points: [...first, ...rest.map(point)], ...color(cut, suffix) };
  });
  if (lines.length === 0) return [{ name: `cannot be cut${suffix}`, points: first, mark: 'points', color: '#444444' }];
  if (!withIdeal || first.length === 0) return lines;
  const counts = [...new Set(good.map((row) => row.parts))].sort((a, b) => a - b);
  return [
    ...lines,
    { name: 'the whole / parts', dashed: true, color: '#8c959f', points: counts.map((n) => ({ x: n, y: (whole?.ms ?? 0) / n })) },
  ];
}

const COLORS: Readonly<Record<string, string>> = {
  rows: '#0072b2',
  channels: '#d55e00',
  columns: '#009e73',
  inputs: '#cc79a7',
  pair: '#8c6d00',
};

/** The same cut has the same colour in every plot of one device. */
function color(cut: string, suffix: string): { readonly color?: string } {
  const known = suffix === '' ? COLORS[cut] : undefined;
  return known === undefined ? {} : { color: known };
}

function shortName({ device, threads }: Group, groups: readonly Group[]): string {
  const devices = new Set(groups.map((group) => group.device?.fingerprint));
  const name = device?.agents[0] ?? 'unknown';
  return devices.size === 1 ? `${threads} thread${threads === 1 ? '' : 's'}` : `${name}, ${threads} thread${threads === 1 ? '' : 's'}`;
}

function work(row: ProfileMeasure | undefined): string {
  return row === undefined ? '' : `${countText(row.macs)} MACs`;
}
