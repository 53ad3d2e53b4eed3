/**
 * Times and peaks of memory from a table of measurements. Pure; planners ask it hundreds of thousands of times, so each table is indexed once.
 *
 * One run of nodes that was measured itself: between the measured parts linear in the work share (MACs of the part / MACs of the whole, so that halos count;
 * nominal shares where nothing is multiplied).
 *
 * A run of nodes that was not measured itself is put together from the longest measured ones that tile it. Measured alone, each pays for things that happen once in
 * a slice of them all: the fixed cost of a run, and handing its tensors in and out (fresh memory, and another layout inside the engine), which goes by their bytes:
 *     core(b)  = ms(b) - run - boundary x (bytes in + bytes out of b)          not below 0
 *     range    = run + boundary x (bytes into the first + bytes out of the last) + sum of context(b) x core(b)
 * where `context` is what is left of a block's work among its neighbours (operators are fused, tensors are still in the cache). A table that knows none of these is
 * simply summed.
 */
import type { CutKind, StageSpec } from '../../models/slicing/partition.js';
import type { ProfileRow, ProfileTable } from './problem.js';

type Asked = Pick<StageSpec, 'nodes' | 'cut'>;

/** Figures of one run of nodes at one share. */
interface Point {
  readonly work: number;
  readonly ms: number;
  readonly inBytes: number;
  readonly outBytes: number;
}

/** One run of nodes under one kind of cut: points by growing share. */
interface Curve {
  readonly points: readonly Point[];
  readonly wholeMacs: number;
  readonly context: number;
}

interface Index {
  /** By `start-end cut`. Of each cut other than `whole` the whole is the last point. */
  readonly curves: ReadonlyMap<string, Curve>;
  /** Ends of the measured runs that begin there, longest first, by cut. */
  readonly ends: ReadonlyMap<string, readonly number[]>;
  readonly tiled: Map<string, readonly Curve[] | undefined>;
  /** Measured undivided, shortest first. */
  readonly wholes: readonly ProfileRow[];
  /** By `start-end`: the measured runs that cover it. */
  readonly covered: Map<string, readonly ProfileRow[] | undefined>;
  /** By `start-end`. */
  readonly rows: ReadonlyMap<string, readonly ProfileRow[]>;
}

/**
 * For a stage that begins or ends inside measured runs, where `profiledMs` has no answer: of the shortest measured runs that cover it, the part that its work is of
 * theirs (by MACs; by nodes and share where nothing is multiplied). Coarser than a measurement, and nearer than a guess from MACs and bytes. Undefined where the
 * table has a hole.
 */
export function overlappedMs(table: ProfileTable, spec: Asked, share: number, macs: number): number | undefined {
  if (table.runMs === undefined) return undefined;
  const index = indexOf(table);
  const key = spec.nodes.join('-');
  if (!index.covered.has(key)) index.covered.set(key, coverOf(index.wholes, spec.nodes));
  const rows = index.covered.get(key);
  if (rows === undefined) return undefined;
  const { runMs, boundaryMsPerByte = 0 } = table;
  let [ms, allMacs, nodes] = [0, 0, 0];
  for (const { context = 1, inBytes = 0, outBytes = 0, ...row } of rows) {
    ms += context * Math.max(0, row.ms - runMs - boundaryMsPerByte * (inBytes + outBytes));
    allMacs += row.macs ?? 0;
    nodes += row.nodes[1] - row.nodes[0];
  }
  const part = macs > 0 && allMacs > 0 ? macs / allMacs : (share * (spec.nodes[1] - spec.nodes[0])) / nodes;
  return runMs + ms * Math.min(1, part);
}

/** The shortest measured runs that cover the nodes, from the front. Undefined where there is a hole. */
function coverOf(wholes: readonly ProfileRow[], [start, end]: readonly [number, number]): readonly ProfileRow[] | undefined {
  const found: ProfileRow[] = [];
  for (let from = start; from < end; ) {
    const row = wholes.find(({ nodes }) => nodes[0] <= from && nodes[1] > from);
    if (row === undefined) return undefined;
    found.push(row);
    from = row.nodes[1];
  }
  return found;
}

/** By the list of rows: tables that differ in their fixed costs only share it. */
const indices = new WeakMap<readonly ProfileRow[], Index>();

/**
 * `share`: the part's nominal fraction, 1 = all of it; `macs`: its work, undefined = not known, then by the share. Undefined where the table does not reach. A table
 * with `runMs` is trusted a little beyond its smallest part, on the line of its last two; one without is not.
 */
export function profiledMs(table: ProfileTable, spec: Asked, share: number, macs?: number): number | undefined {
  const index = indexOf(table);
  const own = index.curves.get(keyOf(spec));
  if (own !== undefined) {
    const ms = at(table, own, workOf(own.wholeMacs, share, macs))?.ms;
    if (ms !== undefined) return ms;
  }
  const tiles = tilesOf(index, spec);
  if (tiles === undefined) return undefined;
  const wholeMacs = tiles.reduce((sum, tile) => sum + tile.wholeMacs, 0);
  const work = workOf(wholeMacs, share, macs);
  const points: (Point & { readonly context: number })[] = [];
  for (const tile of tiles) {
    const point = at(table, tile, tile.wholeMacs > 0 ? work : share);
    if (point === undefined) return undefined;
    points.push({ ...point, context: tile.context });
  }
  return composed(table, points);
}

function composed({ runMs = 0, boundaryMsPerByte = 0 }: ProfileTable, points: readonly (Point & { readonly context: number })[]): number {
  const [first] = points;
  const last = points.at(-1);
  if (first === undefined || last === undefined) return 0;
  if (points.length === 1) return first.ms;
  const ends = runMs + boundaryMsPerByte * (first.inBytes + last.outBytes);
  return points.reduce(
    (sum, { ms, inBytes, outBytes, context }) => sum + context * Math.max(0, ms - runMs - boundaryMsPerByte * (inBytes + outBytes)),
    ends,
  );
}

/** Never more than the whole: rounding of shares must not make a part dearer than what it is a part of. */
function workOf(wholeMacs: number, share: number, macs: number | undefined): number {
  return macs === undefined || wholeMacs <= 0 ? share : Math.min(1, macs / wholeMacs);
}

function at(table: ProfileTable, { points }: Curve, work: number): Point | undefined {
  const above = points.findIndex((point) => point.work >= work - 1e-9);
  const high = points[above];
  if (high === undefined) return undefined;
  if (Math.abs(high.work - work) < 1e-9) return high;
  const low = points[above - 1];
  if (low !== undefined) return between(low, high, work);
  const next = points[above + 1];
  if (table.runMs === undefined || next === undefined) return undefined;
  // Below the smallest part: on its line, but not faster than in proportion, and not below what a run costs.
  const line = between(high, next, work);
  return { ...line, ms: Math.max(Math.min(table.runMs, high.ms), (high.ms * work) / high.work, line.ms) };
}

function between(low: Point, high: Point, work: number): Point {
  const part = (work - low.work) / (high.work - low.work);
  const mixed = (figure: keyof Point): number => low[figure] + part * (high[figure] - low[figure]);
  return { work, ms: mixed('ms'), inBytes: Math.max(0, mixed('inBytes')), outBytes: Math.max(0, mixed('outBytes')) };
}

/** The measured runs that tile the range, from the front, always the longest; never the range itself. */
function tilesOf(index: Index, spec: Asked): readonly Curve[] | undefined {
  const key = keyOf(spec);
  if (index.tiled.has(key)) return index.tiled.get(key);
  const [start, end] = spec.nodes;
  let found: Curve[] | undefined = [];
  for (let from = start; from < end && found !== undefined; ) {
    const ends: readonly number[] = index.ends.get(`${from} ${spec.cut}`) ?? [];
    const to = ends.find((one) => one <= end && !(from === start && one === end));
    const curve = to === undefined ? undefined : index.curves.get(keyOf({ nodes: [from, to], cut: spec.cut }));
    found = curve === undefined ? undefined : [...found, curve];
    from = to ?? end;
  }
  const tiles = found?.length === 0 ? undefined : found;
  index.tiled.set(key, tiles);
  return tiles;
}

function indexOf({ rows }: ProfileTable): Index {
  const known = indices.get(rows);
  if (known !== undefined) return known;
  const made = makeIndex(rows);
  indices.set(rows, made);
  return made;
}

function makeIndex(rows: readonly ProfileRow[]): Index {
  const wholes = new Map(rows.filter((row) => row.parts === 1).map((row) => [row.nodes.join('-'), row]));
  const groups = new Map<string, ProfileRow[]>();
  for (const row of rows) {
    const key = keyOf(row);
    const whole = wholes.get(row.nodes.join('-'));
    const group = groups.get(key) ?? (whole === undefined || whole.cut === row.cut ? [] : [whole]);
    groups.set(key, group);
    group.push(row);
  }
  const curves = new Map<string, Curve>();
  const ends = new Map<string, number[]>();
  for (const [key, group] of groups) {
    const [first] = group;
    if (first === undefined) continue;
    curves.set(key, curveOf(group, wholes.get(first.nodes.join('-'))));
    const cut = key.split(' ')[1] ?? '';
    const begin = `${first.nodes[0]} ${cut}`;
    ends.set(
      begin,
      [...(ends.get(begin) ?? []), first.nodes[1]].sort((a, b) => b - a),
    );
  }
  const byNodes = new Map<string, ProfileRow[]>();
  for (const row of rows) byNodes.set(row.nodes.join('-'), [...(byNodes.get(row.nodes.join('-')) ?? []), row]);
  const shortestFirst = [...wholes.values()].sort((a, b) => a.nodes[1] - a.nodes[0] - (b.nodes[1] - b.nodes[0]));
  return { curves, ends, tiled: new Map(), wholes: shortestFirst, covered: new Map(), rows: byNodes };
}

function curveOf(rows: readonly ProfileRow[], whole: ProfileRow | undefined): Curve {
  const { macs: wholeMacs = 0, context = 1 } = whole ?? {};
  const points = rows.map(({ parts, macs, ms, inBytes = 0, outBytes = 0 }): Point => {
    const work = parts > 1 && macs !== undefined && wholeMacs > 0 ? Math.min(1, macs / wholeMacs) : 1 / parts;
    return { work, ms, inBytes, outBytes };
  });
  const byWork = new Map(points.sort((a, b) => a.work - b.work).map((point) => [point.work, point]));
  return { points: [...byWork.values()], wholeMacs, context };
}

function keyOf({ nodes, cut }: { readonly nodes: readonly [number, number]; readonly cut: CutKind }): string {
  return `${nodes[0]}-${nodes[1]} ${cut}`;
}

/** Cut blocks may seem to cost so much less than whole ones by the noise of their measurements. */
const NOISE = 0.15;

/**
 * What one frame costs at least, ms, wherever its blocks are computed: the whole model in one run, since parts repeat work and pay boundaries. Undefined where the table
 * does not know it, or knows parts that together cost clearly less than their whole (it swaps, or falls out of a cache): then only a search can tell.
 */
export function leastWorkMs(table: ProfileTable, blocks: readonly { readonly nodes: readonly [number, number] }[]): number | undefined {
  if (table.runMs === undefined) return undefined;
  const whole = profiledMs(table, { nodes: [0, blocks.at(-1)?.nodes[1] ?? 0], cut: 'whole' }, 1);
  const mine = new Set(blocks.map(({ nodes }) => nodes.join('-')));
  let alone = 0;
  const least = new Map<string, number>();
  for (const { nodes, parts, ms } of table.rows) {
    const key = nodes.join('-');
    if (!mine.has(key)) continue;
    if (parts === 1) alone += ms;
    least.set(key, Math.min(least.get(key) ?? Number.POSITIVE_INFINITY, parts * ms));
  }
  const together = [...least.values()].reduce((sum, ms) => sum + ms, 0);
  return whole === undefined || least.size < mine.size || together < (1 - NOISE) * alone ? undefined : whole;
}

export interface ProfiledPeaks {
  /** Above a process with an engine and no model. */
  readonly loadPeakBytes: number;
  readonly runPeakBytes: number;
}

/**
 * Peaks of memory as measured; of what was not measured itself: all weights, and beside them the most that one of its measured runs had beside its own. The next
 * larger measured part stands for a smaller one. Undefined where rows carry no peaks.
 */
export function profiledPeaks(table: ProfileTable, spec: Asked, share: number): ProfiledPeaks | undefined {
  const index = indexOf(table);
  const own = peaksAt(index, spec, share);
  if (own !== undefined) return own;
  const [start, end] = spec.nodes;
  let weights = 0;
  let load = 0;
  let run = 0;
  for (let from = start; from < end; ) {
    const to = (index.ends.get(`${from} ${spec.cut}`) ?? []).find((one) => one <= end && !(from === start && one === end));
    const tile = to === undefined ? undefined : peaksAt(index, { nodes: [from, to], cut: spec.cut }, share);
    if (tile === undefined || to === undefined) return undefined;
    weights += tile.weightBytes;
    load = Math.max(load, tile.loadPeakBytes - tile.weightBytes);
    run = Math.max(run, tile.runPeakBytes - tile.weightBytes);
    from = to;
  }
  return { loadPeakBytes: weights + load, runPeakBytes: weights + run };
}

function peaksAt({ rows }: Index, { nodes, cut }: Asked, share: number): (ProfiledPeaks & { readonly weightBytes: number }) | undefined {
  let found: ProfileRow | undefined;
  for (const row of rows.get(nodes.join('-')) ?? []) {
    if (row.cut !== cut && row.parts > 1) continue;
    if (1 / row.parts >= share - 1e-9 && (found === undefined || row.parts > found.parts)) found = row;
  }
  if (found?.loadPeakBytes === undefined || found.runPeakBytes === undefined) return undefined;
  return { loadPeakBytes: found.loadPeakBytes, runPeakBytes: found.runPeakBytes, weightBytes: found.weightBytes ?? 0 };
}
