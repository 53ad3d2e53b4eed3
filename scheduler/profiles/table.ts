/**
 * From measurements of one class of device to the table that planners use, and what is known of its errors. Pure.
 *
 * What a boundary costs per byte is fitted to the measured longer runs (least squares of the relative error, through the formula of planners/profile-table.ts): it is the one
 * number that is not measured by itself.
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
  return { name, rows: [...blocks, ...ranges], runMs, boundaryMsPerByte: boundaryOf(blocks, ranges, runMs) };
}

/** Not more than the quickest block takes. */
function runOf(entries: readonly Entry[]): number {
  const run = entries.find(({ need }) => need.what === 'run');
  const blocks = entries.filter(({ need }) => need.what === 'block').map(({ measured }) => medianMs(measured));
  return run === undefined ? 0 : Math.min(medianMs(run.measured), ...blocks);
}

/**
 * The boundary cost that makes ranges right: each range says excess = boundary x bytes of its inner boundaries, and counts by its relative error. Blocks give
 * back no more than they took, so it is found by search, not by formula: the error has one valley.
 */
function boundaryOf(blocks: readonly ProfileRow[], ranges: readonly ProfileRow[], runMs: number): number {
  if (ranges.length === 0) return 0;
  const error = (boundaryMsPerByte: number): number => {
    const table = { name: '', rows: blocks, runMs, boundaryMsPerByte };
    return ranges.reduce((sum, range) => {
      const ms = profiledMs(table, range, 1);
      return ms === undefined ? sum : sum + ((ms - range.ms) / range.ms) ** 2;
    }, 0);
  };
  let best = 0;
  let step = MOST_BOUNDARY;
  for (let round = 0; round < 5; round++) {
    const from = Math.max(0, best - step);
    const candidates = Array.from({ length: 21 }, (_, i) => from + (i * (best + step - from)) / 20);
    best = candidates.reduce((least, one) => (error(one) < error(least) ? one : least), best);
    step /= 10;
  }
  return best;
}

/** 10 ms per MB: slower than any device that could run a network. */
const MOST_BOUNDARY = 1e-5;

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
