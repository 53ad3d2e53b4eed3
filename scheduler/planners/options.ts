/** On which devices, and in which shares, a stage may be: all that may matter where devices are few, the sensible ones where they are many. */
import { CUT_KINDS } from '../../models/slicing/partition.js';
import type { Layout } from './cells.js';
import { slowdown } from './cost.js';
import type { Device, Objective } from './problem.js';

/** `rows` stands before `columns`: see cells.ts. */
const SPLITS = CUT_KINDS.filter((kind) => kind !== 'whole');

export interface Option {
  /** Indices into the devices of the problem. */
  readonly devices: readonly number[];
  /** Fractions, sum 1: of the tensor when cut, of the frames when replicas. */
  readonly shares: readonly number[];
  readonly replicas: boolean;
}

/** Up to so many devices every subset is tried. */
export const FEW_DEVICES = 4;
/** Shares of few devices are also tried on this grid. */
const GRID = 4;

const fixed = new WeakMap<readonly Device[], readonly Option[]>();

/** `loads[d]`: ms per frame that device d computes already. `last`: where the last stage is; staying there moves least. */
export function optionsFor(devices: readonly Device[], loads: Float64Array, last: Option | undefined): readonly Option[] {
  const known = fixed.get(devices) ?? fixedOptions(devices);
  fixed.set(devices, known);
  if (devices.length <= FEW_DEVICES) return known;
  const free = devices.map((_, d) => d).sort((a, b) => (loads[a] ?? 0) - (loads[b] ?? 0) || speed(devices[b]) - speed(devices[a]));
  const idle = free.filter((d) => (loads[d] ?? 0) === 0);
  const sets = [free.slice(0, 1), ...(last === undefined ? [] : [[...last.devices]]), ...sizes(idle.length).map((n) => idle.slice(0, n))];
  return [...known, ...sets.flatMap((set) => shared(devices, set, false))];
}

function fixedOptions(devices: readonly Device[]): Option[] {
  const few = devices.length <= FEW_DEVICES;
  const fastest = devices.map((_, d) => d).sort((a, b) => speed(devices[b]) - speed(devices[a]) || a - b);
  const sets = few ? subsets(devices.length) : [fastest.slice(0, 1), ...sizes(devices.length).map((n) => fastest.slice(0, n))];
  // Bands at the ends have fewer halos, and rounding falls differently: the order of the devices matters a little.
  return sets.flatMap((set) => [
    ...shared(devices, set, few),
    ...(few && set.length > 1 ? shared(devices, set.toReversed(), false).slice(1) : []),
  ]);
}

function shared(devices: readonly Device[], set: readonly number[], grid: boolean): Option[] {
  if (set.length === 1) return [{ devices: set, shares: [1], replicas: false }];
  const total = set.reduce((sum, d) => sum + speed(devices[d]), 0);
  const bySpeed = set.map((d) => speed(devices[d]) / total);
  const all = [bySpeed, ...(grid ? gridShares(set.length) : [])];
  const unique = [...new Map(all.map((shares) => [shares.map((s) => s.toFixed(4)).join(), shares])).values()];
  return [{ devices: set, shares: bySpeed, replicas: true }, ...unique.map((shares) => ({ devices: set, shares, replicas: false }))];
}

/**
 * All that a stage of few devices may be: whole, replicas (of no use to latency), or cut in any way over any of them, in shares by speed or of the grid.
 * `lean`: only with the devices in their order.
 */
export function everyLayout(devices: readonly Device[], objective: Objective, lean: boolean): Layout[] {
  const options = lean ? subsets(devices.length).flatMap((set) => shared(devices, set, true)) : fixedOptions(devices);
  return options.flatMap(({ devices: set, shares, replicas }): Layout[] => {
    if (set.length === 1) return [{ cut: 'whole', shares: [1], devices: [[...set]] }];
    if (replicas) return objective === 'latency' ? [] : [{ cut: 'whole', shares: [1], devices: set.map((d) => [d]) }];
    return SPLITS.map((cut): Layout => ({ cut, shares, devices: [set] }));
  });
}

/** Every division of 1 into `parts` positive multiples of 1 / GRID. */
export function gridShares(parts: number, left = GRID): number[][] {
  if (parts === 1) return [[left / GRID]];
  const found: number[][] = [];
  for (let first = 1; first <= left - parts + 1; first++) {
    for (const rest of gridShares(parts - 1, left - first)) found.push([first / GRID, ...rest]);
  }
  return found;
}

/** Of 0 .. n-1, all but the empty one, smallest first. */
export function subsets(n: number): number[][] {
  const found = Array.from({ length: 2 ** n - 1 }, (_, i) => Array.from({ length: n }, (_, d) => d).filter((d) => ((i + 1) >> d) & 1));
  return found.sort((a, b) => a.length - b.length);
}

/** 2, 3, 4, 6, 8, 12, 16, ... and n. */
export function sizes(n: number): number[] {
  const found: number[] = [];
  for (let k = 2; k <= n; k *= 2) found.push(...[k, k * 1.5].filter((size) => size <= n && Number.isInteger(size)));
  if (n > 1 && !found.includes(n)) found.push(n);
  return found;
}

function speed(device: Device | undefined): number {
  return (device?.macsPerSecond ?? 0) / slowdown(device);
}
