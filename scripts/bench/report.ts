/** A benchmark's result as Markdown. Pure. */
import { bytesText } from '../table.js';
import type { Figure } from './figures.js';
import type { Machine } from './machine.js';

export interface Report {
  readonly name: string;
  readonly commit: string;
  readonly date: string;
  readonly machine: Machine;
  readonly conditions: unknown;
  readonly figures: readonly Figure[];
  /** What could not be measured, and why. */
  readonly troubles?: readonly string[];
  /** How long the whole benchmark took. */
  readonly seconds?: number;
}

/** Three significant digits. */
export function numberText(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const magnitude = Math.abs(value);
  return magnitude >= 100 || value === 0 ? String(Math.round(value)) : value.toPrecision(3);
}

const withUnit = (text: string, unit: string): string => (unit === 'x' ? `${text}x` : `${text} ${unit}`);

const cellsOf = ({ figure, value, spread, unit, target, met, samples }: Figure): string[] => [
  figure,
  withUnit(numberText(value), unit),
  `${numberText(spread[0])} to ${numberText(spread[1])}`,
  String(samples.length),
  target,
  met === null ? '' : met ? 'yes' : '**no**',
];

/** The table of figures; with more columns where there is more to say: other values of the same, and what limited them. */
export function figureTable(all: readonly Figure[]): string[] {
  const figures = all.filter(({ detail = false }) => !detail);
  const limits = figures.some(({ limit = '' }) => limit !== '');
  const besides = [...new Set(figures.flatMap(({ beside = {} }) => Object.keys(beside)))];
  const row = (cells: readonly string[]): string => `| ${cells.map((c) => c.replaceAll('|', '\\|')).join(' | ')} |`;
  const more = (f: Figure): string[] => [
    ...besides.map((key) => (f.beside?.[key] === undefined ? '' : withUnit(numberText(f.beside[key]), f.unit))),
    ...(limits ? [f.limit ?? ''] : []),
  ];
  return [
    row(['figure', 'median', 'quartiles', 'samples', 'target', 'met', ...besides, ...(limits ? ['limited by'] : [])]),
    `| --- | ---: | ---: | ---: | ---: | --- |${' ---: |'.repeat(besides.length)}${limits ? ' --- |' : ''}`,
    ...figures.map((f) => row([...cellsOf(f), ...more(f)])),
  ];
}

/** `## NAME`, machine, conditions, table, troubles. `level` = number of # of its title. */
export function markdown({ name, commit, date, machine, conditions, figures, troubles = [], seconds }: Report, level = 2): string {
  const memory = `${Math.round(machine.memoryBytes / 2 ** 30)} GiB`;
  const took = seconds === undefined ? '' : ` Took ${Math.round(seconds)} s.`;
  const lines = [
    `${'#'.repeat(level)} ${name}`,
    '',
    `Commit ${commit}, ${date}; ${machine.processor}, ${machine.cores} cores, ${memory}, Linux ${machine.kernel}, Node ${machine.node}; load before ${machine.loadBefore.toFixed(2)}, ${machine.busyBefore.toFixed(2)} cores busy.${took}`,
    '',
    `Conditions: ${conditionsText(conditions)}`,
    '',
    ...namedLines(conditions),
    ...figureTable(figures),
  ];
  for (const trouble of troubles) lines.push('', `**Not measured:** ${trouble}`);
  if (!machine.quiet) lines.push('', '**The machine was not quiet: these figures do not count.**');
  return lines.join('\n');
}

/** `key: value` pairs; equal agents are counted, not listed. What `namedLines` lists is left out. */
function conditionsText(conditions: unknown): string {
  if (typeof conditions !== 'object' || conditions === null) return String(conditions);
  return Object.entries(conditions)
    .filter(([, value]) => value !== '' && value !== false && !isNamed(value))
    .map(([key, value]) => pairText(key, value))
    .join('; ');
}

/** Sizes and rates with their unit, not with all their digits. */
function pairText(key: string, value: unknown): string {
  if (typeof value === 'number' && /[a-z]Bytes$/.test(key)) return `${key.slice(0, -'Bytes'.length)} ${bytesText(value)}`;
  if (typeof value === 'number' && /[a-z]Bits$/.test(key)) return `${key.slice(0, -'Bits'.length)} ${numberText(value / 1e6)} Mbit/s`;
  return `${key} ${valueText(value)}`;
}

/** Names with words of their own, such as the plan of each case: in one line nobody would find where one ends and the next begins. */
function isNamed(value: unknown): value is Readonly<Record<string, string>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const [first, ...more] = Object.values(value);
  return first !== undefined && [first, ...more].every((one) => typeof one === 'string');
}

/** A list for each such condition: `- CASE: its words`. */
function namedLines(conditions: unknown): string[] {
  if (typeof conditions !== 'object' || conditions === null) return [];
  return Object.entries(conditions).flatMap(([title, value]) => {
    if (!isNamed(value)) return [];
    const rows = Object.entries(value).map(([name, words]) => `- ${name}: ${words === '' ? 'nothing was said' : words}`);
    return [`${title.charAt(0).toUpperCase()}${title.slice(1)}:`, '', ...rows, ''];
  });
}

function valueText(value: unknown): string {
  if (Array.isArray(value)) {
    const counts = new Map<string, number>();
    for (const item of value) counts.set(valueText(item), (counts.get(valueText(item)) ?? 0) + 1);
    return [...counts].map(([text, count]) => `${count} x (${text})`).join(', ');
  }
  if (typeof value === 'object' && value !== null) return conditionsText(value).replaceAll('; ', ', ');
  return typeof value === 'number' ? String(Number(value.toPrecision(4))) : String(value);
}
