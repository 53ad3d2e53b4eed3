/** A report of profiles as tables for people. Pure. */
import type { ProfileCheck, ProfileClass, ProfileMeasure, ProfileReport } from '../broker/messages.js';
import { bytesText, type Column, countText, formatTable, msText, wrapText } from './table.js';

/** Rows of one class with one number of threads. */
export interface Group {
  readonly device: ProfileClass | undefined;
  readonly threads: number;
  readonly rows: readonly ProfileMeasure[];
  readonly checks: readonly ProfileCheck[];
}

export function groupsOf({ classes, rows, checks }: ProfileReport): Group[] {
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
export function blocksOf(rows: readonly ProfileMeasure[]): ProfileMeasure[][] {
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
  const marks = marksOf(rows);
  const { tables, form } = bestTables(rows, marks, width);
  return [
    ...wrapText(head, width, ''),
    ...wrapText(`agents ${agents.join(', ')}; measured on ${measuredOn.join(', ') || 'none'}`, width, '  '),
    ...tables.flatMap((table) => ['', table]),
    ...legend(rows, { marks, form, gaps: tables.some((table) => / {2}-(?= |$)/m.test(table)) }, width),
    ...summary(rows, device, checks, width),
  ];
}

/** How much the tables show: with spreads, memory in the same table, and which numbers of parts stand in one table. */
interface Form {
  readonly spread: boolean;
  readonly memory: boolean;
  readonly parts: readonly (readonly number[])[];
}

/** The form that says most and is not wider than the terminal: a table whose rows are broken cannot be read. */
function bestTables(
  rows: readonly ProfileMeasure[],
  marks: Marks,
  width: number,
): { readonly tables: readonly string[]; readonly form: Form } {
  const parts = [...new Set(rows.filter(({ what }) => what === 'block').map((row) => row.parts))].sort((x, y) => x - y);
  const inPieces = (size: number): number[][] =>
    Array.from({ length: Math.ceil(parts.length / size) }, (_, i) => parts.slice(i * size, (i + 1) * size));
  const sizes = Array.from({ length: Math.max(1, parts.length) }, (_, i) => Math.max(1, parts.length) - i);
  const forms: Form[] = [
    { spread: true, memory: true, parts: [parts] },
    { spread: true, memory: false, parts: [parts] },
    ...sizes.map((size): Form => ({ spread: false, memory: false, parts: inPieces(size) })),
  ];
  const made = forms.map((form) => () => ({ form, tables: tablesOf(rows, marks, form) }));
  const fits = (table: string): boolean => table.split('\n').every((line) => line.length <= width);
  for (const make of made.slice(0, -1)) {
    const found = make();
    if (found.tables.every(fits)) return found;
  }
  return made.at(-1)?.() ?? { form: { spread: false, memory: false, parts: [] }, tables: [] };
}

/** Times by number of parts, in one table or several; then what loading takes, when it did not find room beside them. */
function tablesOf(rows: readonly ProfileMeasure[], marks: Marks, { spread, memory, parts }: Form): string[] {
  const blocks = blocksOf(rows);
  const head: Column[] = [
    { title: '#', align: 'right' },
    { title: 'block from', whole: true },
  ];
  const times = parts.map((counts, piece) =>
    formatTable(
      [
        ...head,
        { title: 'cut' },
        ...counts.map((n): Column => ({ title: n === 1 ? 'ms whole' : `in ${n}`, align: 'right' })),
        ...(memory && piece === 0 ? MEMORY : []),
      ],
      blocks.flatMap((block, index) => blockLines(block, index, counts, { marks, spread, memory: memory && piece === 0 })),
      Number.POSITIVE_INFINITY,
    ),
  );
  if (memory) return times;
  const loads = blocks.map((block, index) => {
    const whole = block.find((row) => row.parts === 1);
    const row = whole ?? block[0];
    return [String(index), shortLabel(row), countText(row?.macs ?? 0), bytesText(row?.weightBytes ?? 0), ...memoryCells(whole)];
  });
  const columns: Column[] = [...head, { title: 'MACs', align: 'right' }, { title: 'weights', align: 'right' }, ...MEMORY];
  return [...times, formatTable(columns, loads, Number.POSITIVE_INFINITY)];
}

const MEMORY: readonly Column[] = [
  { title: 'load', align: 'right' },
  { title: 'peak load', align: 'right' },
  { title: 'peak run', align: 'right' },
];

function memoryCells(whole: ProfileMeasure | undefined): string[] {
  if (whole === undefined || whole.code !== '') return ['-', '-', '-'];
  return [msText(whole.loadMs), bytesText(whole.loadPeakBytes), bytesText(whole.runPeakBytes)];
}

interface Shown {
  readonly marks: Marks;
  readonly spread: boolean;
  readonly memory: boolean;
}

/** One line for the block whole and cut by the first kind, one for each further kind. */
function blockLines(
  block: readonly ProfileMeasure[],
  index: number,
  parts: readonly number[],
  { marks, spread, memory }: Shown,
): string[][] {
  const whole = block.find((row) => row.parts === 1);
  const cuts = [...new Set(block.filter((row) => row.parts > 1).map(({ cut }) => cut))];
  const text = (row: ProfileMeasure | undefined): string => cell(row, marks, spread);
  const cells = (cut: string, withWhole: boolean): string[] =>
    parts.map((n) => (n === 1 ? (withWhole ? text(whole) : '') : text(block.find((row) => row.parts === n && row.cut === cut))));
  const [first = '', ...rest] = cuts;
  return [
    [String(index), shortLabel(whole ?? block[0]), first, ...cells(first, true), ...(memory ? memoryCells(whole) : [])],
    ...rest.map((cut) => ['', '', cut, ...cells(cut, false), ...(memory ? ['', '', ''] : [])]),
  ];
}

const LONGEST_LABEL = 24;

/** Of `Conv conv1 to MaxPool pool1` what it begins with: there is little room. Of a long name the end, which tells it from its neighbours. */
export function shortLabel(row: Pick<ProfileMeasure, 'label'> | undefined): string {
  const label = (row?.label ?? '').replace(/ to .*$/, '');
  if (label.length <= LONGEST_LABEL) return label;
  const [operator = ''] = label.split(' ');
  const room = LONGEST_LABEL - operator.length - 2;
  return room < 6 ? `${label.slice(0, LONGEST_LABEL - 1)}…` : `${operator} …${label.slice(-room)}`;
}

/** `(a)` for each code of what could not be measured: in the cells; the words stand below. */
type Marks = ReadonlyMap<string, string>;

function marksOf(rows: readonly ProfileMeasure[]): Marks {
  const codes = [...new Set(rows.filter(({ what, code }) => what === 'block' && code !== '').map(({ code }) => code))];
  return new Map(codes.map((code, i) => [code, `(${String.fromCharCode('a'.charCodeAt(0) + (i % 26))})`]));
}

/** `12.3 ±0.4`: median and half the distance of the quartiles; `~` interpolated, `*` measured while frames ran, or the mark of what went wrong. */
function cell(row: ProfileMeasure | undefined, marks: Marks, spread: boolean): string {
  if (row === undefined) return '-';
  if (row.code !== '') return marks.get(row.code) ?? row.code;
  if (row.from === 'interpolated') return `~${number(row.ms)}`;
  const around = spread && !isOneRun(row) ? ` ±${number((row.highMs - row.lowMs) / 2)}` : '';
  return `${number(row.ms)}${around}${row.busy ? '*' : ''}`;
}

/** Then nothing is known of a spread. */
function isOneRun({ samplesMs, lowMs, highMs }: ProfileMeasure): boolean {
  return samplesMs.length === 1 && lowMs === highMs;
}

function number(ms: number): string {
  return ms >= 99.5 ? String(Math.round(ms)) : ms >= 9.95 ? ms.toFixed(1) : ms.toFixed(2);
}

interface Legend {
  readonly marks: Marks;
  readonly form: Form;
  /** Some cells are empty. */
  readonly gaps: boolean;
}

function legend(rows: readonly ProfileMeasure[], { marks, form: { spread }, gaps }: Legend, width: number): string[] {
  const blocks = rows.filter(({ what }) => what === 'block');
  const said = [
    spread ? 'ms of the largest part: median ± half the distance of the quartiles' : `ms of the largest part: median${spreadText(blocks)}`,
    ...(spread && blocks.some((row) => row.code === '' && isOneRun(row)) ? ['without ±: one run, as it took long'] : []),
    ...(blocks.some(({ from }) => from === 'interpolated') ? ['~ interpolated'] : []),
    ...(blocks.some(({ busy }) => busy) ? ['* frames ran meanwhile, so too long: measured again next time'] : []),
    ...(gaps ? ['- this cut does not make so many parts'] : []),
  ];
  const wrong = [...marks].flatMap(([code, mark]) => {
    const message = blocks.find((row) => row.code === code)?.message ?? '';
    return wrapText(`${mark} ${code}${message === '' ? '' : `: ${message.replace(`${code}: `, '')}`}`, width, '  ');
  });
  return [...wrapText(`(${said.join('; ')})`, width, ''), ...wrong];
}

/** How far the quartiles are off, where there was no room to say it of each. */
function spreadText(rows: readonly ProfileMeasure[]): string {
  const measured = rows.filter(({ code, from, ms }) => code === '' && from !== 'interpolated' && ms > 0);
  const parts = measured.map(({ lowMs, highMs, ms }) => (highMs - lowMs) / 2 / ms).sort((x, y) => x - y);
  const middle = parts[Math.floor((parts.length - 1) / 2)];
  if (middle === undefined) return '';
  return `, ± ${Math.round(100 * middle)} % as a rule, ${Math.round(100 * (parts.at(-1) ?? 0))} % at most (half the distance of the quartiles)`;
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

export function errorOf({ measuredMs, predictedMs }: ProfileCheck): number {
  return measuredMs > 0 ? predictedMs / measuredMs - 1 : 0;
}

function percent(check: ProfileCheck): string {
  const error = 100 * errorOf(check);
  return `${error >= 0 ? '+' : ''}${error.toFixed(1)} %`;
}

export function errorsText(errors: readonly number[]): string {
  const sizes = errors.map(Math.abs).sort((a, b) => a - b);
  const median = sizes[Math.floor((sizes.length - 1) / 2)] ?? 0;
  return `error ${(100 * median).toFixed(1)} % in the median, ${(100 * (sizes.at(-1) ?? 0)).toFixed(1)} % at worst`;
}
