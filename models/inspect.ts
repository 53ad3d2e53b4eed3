/** What `mc inspect` shows: a model's blocks, their cost, and which cuts each allows. */
import type { TensorInfo } from '../broker/tensor.js';
import { blocksOf } from './blocks.js';
import type { Block, Model } from './model.js';
import { cutStage, isRefusal } from './slicing/cut.js';
import { CUT_KINDS, type CutKind } from './slicing/partition.js';
import { macsBetween, regionFrom } from './slicing/region.js';

export type BandCut = Exclude<CutKind, 'whole'>;

export interface BlockReport extends Block {
  /** Operators with their counts, most frequent first: `Conv 2, Relu 2`. */
  readonly ops: string;
  /**
   * For each cut the part (0 to 1) of the block's MACs that it can divide in two.
   * For `pair` the block together with the next one is looked at: a pair is two layers.
   */
  readonly cuts: Readonly<Record<BandCut, number>>;
  /** Why a cut covers less than half of the block: the first thing in its way. */
  readonly refusals: Readonly<Partial<Record<BandCut, string>>>;
}

export interface ModelReport {
  readonly path: string;
  readonly sha256: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly nodes: number;
  readonly macs: number;
  readonly params: number;
  readonly weightBytes: number;
  /** Tensors whose shape depends on the data: they cannot cross a cut. */
  readonly dynamic: readonly string[];
  readonly blocks: readonly BlockReport[];
}

export function inspectModel(model: Model): ModelReport {
  const blocks = blocksOf(model);
  const total = (of: (block: Block) => number) => blocks.reduce((sum, block) => sum + of(block), 0);
  return {
    path: model.path,
    sha256: model.sha256,
    inputs: model.inputs,
    outputs: model.outputs,
    nodes: model.nodes.length,
    macs: total((b) => b.macs),
    params: total((b) => b.params),
    weightBytes: total((b) => b.weightBytes),
    dynamic: [...(model.dynamic ?? [])],
    blocks: blocks.map((block) => reportBlock(model, block, blocks[block.index + 1])),
  };
}

function reportBlock(model: Model, block: Block, next: Block | undefined): BlockReport {
  const cuts: Record<BandCut, number> = { rows: 0, columns: 0, channels: 0, inputs: 0, pair: 0 };
  const refusals: Partial<Record<BandCut, string>> = {};
  for (const kind of CUT_KINDS) {
    if (kind === 'whole') continue;
    const [start, end] = block.nodes;
    const { ratio, reason } = divisible(model, kind, start, kind === 'pair' ? (next?.nodes[1] ?? end) : end);
    cuts[kind] = ratio;
    if (ratio < 0.5 && reason !== undefined) refusals[kind] = reason;
  }
  return { ...block, ops: opsOf(model, block), cuts, refusals };
}

function opsOf(model: Model, block: Block): string {
  const counts = new Map<string, number>();
  for (const { op } of model.nodes.slice(...block.nodes)) counts.set(op, (counts.get(op) ?? 0) + 1);
  const sorted = [...counts].sort(([, a], [, b]) => b - a);
  return sorted.map(([op, count]) => (count === 1 ? op : `${op} ${count}`)).join(', ');
}

/** Cuts nodes `[start, end)` in two halves, going on behind every node that is in the way. */
function divisible(model: Model, kind: BandCut, start: number, end: number): { ratio: number; reason: string | undefined } {
  const total = macsBetween(model, start, end);
  let covered = 0;
  let reason: string | undefined;
  for (let from = start; from < end; ) {
    const [to, obstacle] = longestCut(model, kind, from, end);
    reason ??= obstacle;
    covered += macsBetween(model, from, to);
    from = Math.max(to, from + 1);
    // Only work counts: a stage may as well begin with the next node that does some.
    while (from < end && macsBetween(model, from, from + 1) === 0) from++;
  }
  return { ratio: total === 0 ? 0 : covered / total, reason };
}

/** The end of the longest stage from `start` that can be cut so (`start` itself when none can), and what is in its way. */
function longestCut(model: Model, kind: BandCut, start: number, limit: number): [end: number, obstacle: string | undefined] {
  const region = regionFrom(model, start, kind, new Map(), { limit, replicatedMacsRatio: Number.POSITIVE_INFINITY });
  const end = region.ends.at(-1) ?? start;
  const obstacle = end === limit ? undefined : region.obstacle.reason;
  if (end === start) return [start, obstacle];
  const cut = cutStage(model, { nodes: [start, end], cut: kind, shares: [1, 1] });
  return [isRefusal(cut) || cut.parts.length < 2 ? start : end, obstacle];
}
