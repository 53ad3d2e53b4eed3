/**
 * From measurements of one class of device to the table that planners use, and what is known of its errors. Pure.
 *
 * Two things are not measured by themselves but follow from the measured longer runs of blocks, through the formula of planners/profile-table.ts: what a boundary costs per
 * byte, and what is left of a block's work among its neighbours.
 */
import type { ProfileRow, ProfileTable } from '../planners/problem.js';
import { profiledMs } from '../planners/profile-table.js';
import type { Need } from './needs.js';

/** What an agent answered. */
export interface Measured {
  readonly agent: string;
  /** Of each run, or of each batch of short runs. */
  readonly samplesMs: readonly number[];
  readonly loadMs: number;
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
  /** Frames ran there meanwhile: too long. */
  readonly busy: boolean;
}

export interface Entry {
  readonly need: Need;
  readonly measured: Measured;
}

/** A figure of the table against its measurement, which had no part in it. */
export interface Check {
  readonly what: 'interpolation' | 'sum';
  readonly need: Need;
  readonly measuredMs: number;
  readonly predictedMs: number;
}

export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (sorted.length - 1) * q;
  const low = sorted[Math.floor(at)] ?? 0;
  return low + (at - Math.floor(at)) * ((sorted[Math.ceil(at)] ?? low) - low);
}

export function medianMs({ samplesMs }: Measured): number {
  return quantile(samplesMs, 0.5);
}

export function rowOf({ need, measured }: Entry): ProfileRow {
  const { nodes, cut, parts, macs, inBytes, outBytes, weightBytes } = need;
  const { loadPeakBytes, runPeakBytes } = measured;
  return { nodes, cut, parts, ms: medianMs(measured), macs, inBytes, outBytes, weightBytes, loadPeakBytes, runPeakBytes };
}

/** All measurements in it, checks included: a measurement is better than an interpolation. */
export function tableOf(name: string, entries: readonly Entry[]): ProfileTable {
  const runMs = runOf(entries);
  const blocks = entries.filter(({ need }) => need.what === 'block').map(rowOf);
  const ranges = entries.filter(({ need }) => need.what === 'range' || need.what === 'model').map(rowOf);
  const boundaryMsPerByte = boundaryOf(blocks, ranges, runMs);
  return { name, rows: [...inContext(blocks, ranges, runMs, boundaryMsPerByte), ...ranges], runMs, boundaryMsPerByte };
}

/** Not more than the quickest block takes. */
function runOf(entries: readonly Entry[]): number {
  const run = entries.find(({ need }) => need.what === 'run');
  const blocks = entries.filter(({ need }) => need.what === 'block').map(({ measured }) => medianMs(measured));
  return run === undefined ? 0 : Math.min(medianMs(run.measured), ...blocks);
}

/** Each longer run says: excess of the sum of its blocks = boundary x bytes of its inner boundaries. The median of what they say. */
function boundaryOf(blocks: readonly ProfileRow[], ranges: readonly ProfileRow[], runMs: number): number {
  const said = ranges.flatMap((range) => {
    const inner = wholesIn(blocks, range);
    const bytes = sum(inner, ioBytes) - ioBytes(range);
    const excessMs = sum(inner, ({ ms }) => ms) - (inner.length - 1) * runMs - range.ms;
    return bytes > 0 ? [Math.max(0, excessMs / bytes)] : [];
  });
  return said.length === 0 ? 0 : quantile(said, 0.5);
}

/** Blocks with what is left of them among their neighbours: such that the blocks of the shortest longer run around them add up to it. */
function inContext(blocks: readonly ProfileRow[], ranges: readonly ProfileRow[], runMs: number, boundary: number): ProfileRow[] {
  const coreMs = (row: ProfileRow): number => Math.max(0, row.ms - runMs - boundary * ioBytes(row));
  const known = ranges
    .map((range) => ({ range, alone: sum(wholesIn(blocks, range), coreMs), together: coreMs(range) }))
    .filter(({ alone, together }) => alone > 0 && together > 0)
    .sort((a, b) => a.range.nodes[1] - a.range.nodes[0] - (b.range.nodes[1] - b.range.nodes[0]));
  return blocks.map((block) => {
    if (block.parts > 1) return block;
    const around = known.find(({ range }) => contains(range, block));
    return around === undefined ? block : { ...block, context: around.together / around.alone };
  });
}

function wholesIn(blocks: readonly ProfileRow[], range: ProfileRow): ProfileRow[] {
  return blocks.filter((block) => block.parts === 1 && contains(range, block));
}

function contains({ nodes: [start, end] }: ProfileRow, { nodes }: ProfileRow): boolean {
  return start <= nodes[0] && nodes[1] <= end;
}

function ioBytes({ inBytes = 0, outBytes = 0 }: ProfileRow): number {
  return inBytes + outBytes;
}

function sum(rows: readonly ProfileRow[], figure: (row: ProfileRow) => number): number {
  return rows.reduce((total, row) => total + figure(row), 0);
}

/**
 * Each point that was measured only for it, against the interpolation without it; each longer run, against what the others and the blocks say of it (whole ranges
 * are taken out of the fit, too).
 */
export function checksOf(entries: readonly Entry[]): Check[] {
  const plain = tableOf(
    '',
    entries.filter(({ need }) => !need.check),
  );
  const interpolated = entries.filter(({ need }) => need.check).flatMap((entry) => checkOf('interpolation', entry, plain));
  const sums = entries
    .filter(({ need }) => need.what === 'range' || need.what === 'model')
    .flatMap((entry) => {
      const { rows, ...rest } = tableOf(
        '',
        entries.filter((other) => other !== entry),
      );
      // Of the blocks alone: a half would know most of the whole.
      const blocks = new Set(entries.filter(({ need }) => need.what === 'block').map(({ need }) => need.nodes.join('-')));
      return checkOf('sum', entry, { ...rest, rows: rows.filter((row) => blocks.has(row.nodes.join('-'))) });
    });
  return [...interpolated, ...sums];
}

function checkOf(what: Check['what'], { need, measured }: Entry, table: ProfileTable): Check[] {
  const predictedMs = profiledMs(table, need, 1 / need.parts, need.parts > 1 ? need.macs : undefined);
  return predictedMs === undefined ? [] : [{ what, need, measuredMs: medianMs(measured), predictedMs }];
}

/** Every block whole is there: less would mix measured with guessed times in one stage. */
export function isComplete(table: ProfileTable, blocks: readonly { readonly nodes: readonly [number, number] }[]): boolean {
  const whole = new Set(table.rows.filter((row) => row.parts === 1).map((row) => row.nodes.join('-')));
  return blocks.length > 0 && blocks.every((block) => whole.has(block.nodes.join('-')));
}
