/** A report of profiles as a table for people and as a plot. */
import type { ProfileCheck, ProfileClass, ProfileMeasure, ProfileReport } from '../broker/messages.js';
import type { PlotPanel, PlotPoint, PlotSeries, PlotSpec } from './plot.js';
import { bytesText, countText, formatTable, msText, wrapText } from './table.js';

/** Rows of one class with one number of threads. */
interface Group {
  readonly device: ProfileClass | undefined;
  readonly threads: number;
  readonly rows: readonly ProfileMeasure[];
  readonly checks: readonly ProfileCheck[];
}

function groupsOf({ classes, rows, checks }: ProfileReport): Group[] {
  const keys = new Map(rows.map((row) => [`${row.fingerprint} ${row.threads}`, row]));
  return [...keys.values()].map(({ fingerprint, threads }) => {
    const mine = (one: { readonly fingerprint: string; readonly threads: number }): boolean =>
      one.fingerprint === fingerprint && one.threads === threads;
    return {
      device: classes.find((one) => one.fingerprint === fingerprint),
      threads,
      rows: rows.filter(mine),
      checks: checks.filter(mine),
    };
  });
}

/** Blocks in order, each by its place among the nodes. */
function blocksOf(rows: readonly ProfileMeasure[]): ProfileMeasure[][] {
  const blocks = new Map<string, ProfileMeasure[]>();
  for (const row of rows.filter(({ what }) => what === 'block')) {
    const key = `${row.startNode}-${row.endNode}`;
    blocks.set(key, [...(blocks.get(key) ?? []), row]);
  }
  return [...blocks.values()].sort((a, b) => (a[0]?.startNode ?? 0) - (b[0]?.startNode ?? 0));
}

export function profileText(report: ProfileReport, width: number): string {
  const groups = groupsOf(report);
  const kept = report.rows.filter(({ from }) => from === 'kept').length;
  const between = report.rows.filter(({ from }) => from === 'interpolated').length;
  const measured = report.rows.length - kept - between;
  return [
    `${measured} measured now, ${kept} known before, ${between} interpolated`,
    ...groups.flatMap((group) => ['', ...groupText(group, width)]),
    ...(report.notes.length === 0 ? [] : ['', ...report.notes.flatMap((note) => wrapText(note, width, '  '))]),
  ].join('\n');
}

function groupText({ device, threads, rows, checks }: Group, width: number): string[] {
  const agents = device?.agents ?? [];
  const measuredOn = [...new Set(rows.map(({ agent }) => agent))].filter((agent) => agent !== '');
  const head = `${device?.text ?? 'unknown device'}; ${threads} engine thread${threads === 1 ? '' : 's'}`;
  const parts = [...new Set(rows.filter(({ what }) => what === 'block').map((row) => row.parts))].sort((a, b) => a - b);
  const lines = blocksOf(rows).flatMap((block, index) => blockLines(block, index, parts));
  const table = formatTable(
    [
      { title: '#', align: 'right' },
      { title: 'block from' },
      { title: 'cut' },
      ...parts.map((n) => ({ title: n === 1 ? 'ms whole' : `in ${n}`, align: 'right' as const })),
      { title: 'load', align: 'right' },
      { title: 'peak load', align: 'right' },
      { title: 'peak run', align: 'right' },
    ],
    lines,
    width,
  );
  return [
    ...wrapText(head, width, ''),
    `  agents ${agents.join(', ')}; measured on ${measuredOn.join(', ') || 'none'}`,
    '',
    table,
    ...legend(rows),
    ...summary(rows, device, checks, width),
  ];
}

/** One line for the block whole and cut by the first kind, one for each further kind. */
function blockLines(block: readonly ProfileMeasure[], index: number, parts: readonly number[]): string[][] {
  const whole = block.find((row) => row.parts === 1);
  const cuts = [...new Set(block.filter((row) => row.parts > 1).map(({ cut }) => cut))];
  const cells = (cut: string, withWhole: boolean): string[] =>
    parts.map((n) => (n === 1 ? (withWhole ? cell(whole) : '') : cell(block.find((row) => row.parts === n && row.cut === cut))));
  const memory =
    whole === undefined || whole.code !== ''
      ? ['', '', '']
      : [msText(whole.loadMs), bytesText(whole.loadPeakBytes), bytesText(whole.runPeakBytes)];
  const [first = '', ...rest] = cuts;
  return [
    [String(index), shortLabel(whole ?? block[0]), first, ...cells(first, true), ...memory],
    ...rest.map((cut) => ['', '', cut, ...cells(cut, false), '', '', '']),
  ];
}

/** Of `Conv conv1 to MaxPool pool1` what it begins with: there is little room. */
function shortLabel(row: ProfileMeasure | undefined): string {
  return (row?.label ?? '').replace(/ to .*$/, '');
}

/** `12.3 ±0.4`: median and half the distance of the quartiles; `~` interpolated, `*` measured while frames ran, or the code of what went wrong. */
function cell(row: ProfileMeasure | undefined): string {
  if (row === undefined) return '-';
  if (row.code !== '') return row.code;
  if (row.from === 'interpolated') return `~${number(row.ms)}`;
  return `${number(row.ms)} ±${number((row.highMs - row.lowMs) / 2)}${row.busy ? '*' : ''}`;
}

function number(ms: number): string {
  return ms >= 99.5 ? String(Math.round(ms)) : ms >= 9.95 ? ms.toFixed(1) : ms.toFixed(2);
}

function legend(rows: readonly ProfileMeasure[]): string[] {
  const said = ['ms: median ± half the distance of the quartiles'];
  if (rows.some(({ from }) => from === 'interpolated')) said.push('~ interpolated');
  if (rows.some(({ busy }) => busy)) said.push('* frames ran meanwhile, so too long: measured again next time');
  return [`(${said.join('; ')})`];
}

function summary(
  rows: readonly ProfileMeasure[],
  device: ProfileClass | undefined,
  checks: readonly ProfileCheck[],
  width: number,
): string[] {
  const lines: string[] = [];
  const whole = rows.find(({ what, code }) => what === 'model' && code === '');
  const sum = checks.find((check) => check.what === 'sum' && check.label === whole?.label);
  if (whole !== undefined) {
    const put = sum === undefined ? '' : `; put together from its blocks ${msText(sum.predictedMs)} (${percent(sum)})`;
    lines.push(`The whole model: ${msText(whole.ms)}${put}; loading takes ${msText(whole.loadMs)} and ${bytesText(whole.loadPeakBytes)}.`);
  }
  const alone = rows.filter((row) => row.what === 'block' && row.parts === 1 && row.code === '').reduce((total, row) => total + row.ms, 0);
  const run = device === undefined ? '' : ` A run costs ${device.runMs.toFixed(2)} ms however little it computes.`;
  lines.push(`Blocks one by one: ${msText(alone)} in sum.${run}`);
  for (const [what, title] of [
    ['sum', 'Longer runs of blocks put together'],
    ['interpolation', 'Interpolated parts'],
  ] as const) {
    const errors = checks.filter((check) => check.what === what).map(errorOf);
    if (errors.length > 0) lines.push(`${title}, against ${errors.length} measured: ${errorsText(errors)}.`);
  }
  return ['', ...lines.flatMap((line) => wrapText(line, width, ''))];
}

function errorOf({ measuredMs, predictedMs }: ProfileCheck): number {
  return measuredMs > 0 ? predictedMs / measuredMs - 1 : 0;
}

function percent(check: ProfileCheck): string {
  const error = 100 * errorOf(check);
  return `${error >= 0 ? '+' : ''}${error.toFixed(1)} %`;
}

function errorsText(errors: readonly number[]): string {
  const sizes = errors.map(Math.abs).sort((a, b) => a - b);
  const median = sizes[Math.floor((sizes.length - 1) / 2)] ?? 0;
  return `error ${(100 * median).toFixed(1)} % in the median, ${(100 * (sizes.at(-1) ?? 0)).toFixed(1)} % at worst`;
}

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
      const panel = panels.get(key) ?? { title: `${index}  ${first.label}`, note: work(whole), series: [] };
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
    { name: 'in proportion', dashed: true, color: '#8c959f', points: counts.map((n) => ({ x: n, y: (whole?.ms ?? 0) / n })) },
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
  return row === undefined ? '' : `${countText(row.macs)}MAC`;
}
