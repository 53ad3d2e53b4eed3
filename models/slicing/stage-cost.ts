/** Which stages a covering cut may choose from, and what each costs in multiply-accumulates of one device. */
import { type Box, boxElements, intersectBoxes, itemBytes, tensorBytes } from '../../broker/tensor.js';
import type { Model } from '../model.js';
import { bandKindOf, bandsOf } from './bands.js';
import { cutWalk, isRefusal } from './cut.js';
import { bandBox, extentOf, shareIntervals } from './interval.js';
import { indexOf, readsOf } from './model-index.js';
import type { CutKind, StageCut } from './partition.js';
import { StageWalk } from './stage.js';

export interface StageCost {
  /** What a byte on a wire costs, in MACs. */
  readonly macsPerByte: number;
  /** What a stage costs for being one (messages, wake-ups), in MACs. */
  readonly macsPerStage: number;
}

/**
 * A Raspberry Pi 4 on gigabit Ethernet, roughly: 28 GMAC/s on its four cores (VGG16 in 547 ms) beside 110 MB/s, and 3 to 4 ms per exchange: sockets, joins and two
 * changes of thread take about a millisecond of a core that computes 100 GMAC/s (docs/benchmarks.md, "Where the time goes"), four times that here.
 */
export const DEFAULT_COST: StageCost = { macsPerByte: 250, macsPerStage: 100e6 };

export interface CandidateRules {
  /** Cut whatever can be cut, whether it pays or not. */
  readonly must: boolean;
  readonly maxRecompute: number;
  readonly cost: StageCost;
}

/** A tensor that a stage takes in, with the bytes that have to travel for it. */
export interface Supply {
  /** Node that makes it; -1 for an input of the model. */
  readonly producer: number;
  /** To the part that misses most, when every part already holds its own band. */
  readonly halo: number;
  /** To the part that needs most, when none holds anything. */
  readonly most: number;
  /** To all parts together. */
  readonly all: number;
}

/** One possible stage: nodes `[start, end)`. */
export interface Candidate {
  readonly start: number;
  readonly end: number;
  readonly cut: CutKind;
  /** In MACs, without what its inputs cost to bring. */
  readonly cost: number;
  readonly supplies: readonly Supply[];
}

/** A node counts as covered when every part does less than this of it. */
export const COVERED_BELOW = 0.7;
/** What uncovered work costs when everything that can be cut must be. */
const UNCOVERED_WEIGHT = 100;
/** Stages of more candidate positions than this are not looked at: halos have long made them dear. */
const MAX_SPAN = 16;

type Cut = Exclude<CutKind, 'whole'>;

/** `legal[p]`: a stage may begin at node p. Values that are no tensors of a fixed-size type (sequences, strings) cannot cross. */
export function legalPositions(model: Model): boolean[] {
  const { lastUse } = indexOf(model);
  const legal = new Array<boolean>(model.nodes.length + 1).fill(true);
  model.nodes.forEach((node, i) => {
    for (const name of node.outputs) {
      const last = lastUse.get(name);
      if (name === '' || last === undefined || model.tensors.has(name)) continue;
      for (let p = i + 1; p <= Math.min(last, model.nodes.length - 1); p++) legal[p] = false;
    }
  });
  return legal;
}

/** Every stage worth considering, and the whole stage of each gap between two positions. */
export function candidates(model: Model, cuts: readonly Cut[], shares: readonly number[], rules: CandidateRules): Candidate[] {
  const positions = stagePositions(model, cuts);
  const { macsBefore } = indexOf(model);
  const found: Candidate[] = [];
  positions.slice(0, -1).forEach((start, i) => {
    const end = positions[i + 1] ?? start;
    const macs = (macsBefore[end] ?? 0) - (macsBefore[start] ?? 0);
    // Whole neighbours become one stage: the price of being one is the path's to add.
    found.push({ start, end, cut: 'whole', cost: macs * (rules.must ? UNCOVERED_WEIGHT : 1), supplies: wholeSupplies(model, start, end) });
    for (const cut of cuts) found.push(...stagesFrom(model, cut, shares, rules, positions.slice(i)));
  });
  return found;
}

/** All stages of one kind that begin at the first of `positions`. */
function stagesFrom(model: Model, cut: Cut, shares: readonly number[], rules: CandidateRules, positions: readonly number[]): Candidate[] {
  const [start = 0, ...ends] = positions;
  const { macs, macsBefore } = indexOf(model);
  const walk = new StageWalk(model, cut, start, new Map());
  const found: Candidate[] = [];
  const near = ends.slice(0, MAX_SPAN);
  const before = macsBefore[start] ?? 0;
  const longest = (macsBefore[near.at(-1) ?? start] ?? 0) - before;
  for (const end of near) {
    while (walk.end < end) if (walk.step() !== undefined) return found;
    const analysed = cutWalk(walk, shares);
    if (isRefusal(analysed)) continue;
    const whole = (macsBefore[end] ?? 0) - before;
    const all = analysed.parts.reduce((sum, part) => sum + part.macs, 0);
    const heavierThan = (least: number): number => macs.slice(start, end).filter((m) => m > least).length;
    // Not monotonic: small nodes that every part repeats weigh less as the stage grows.
    if (heavierThan(whole / 100) > 1 && all > whole * rules.maxRecompute) {
      // What is computed twice in these nodes is computed twice in any longer stage: more than the longest may have is too much in all of them.
      if (heavierThan(longest / 100) > 1 && all - whole > longest * (rules.maxRecompute - 1)) break;
      continue;
    }
    found.push(priced(model, analysed, rules));
  }
  return found;
}

function priced(model: Model, stage: StageCut, { cost, must }: CandidateRules): Candidate {
  const { cut, nodes } = stage.spec;
  const [start, end] = nodes;
  const { macs, producer } = indexOf(model);
  let slowest = 0;
  for (const part of stage.parts) slowest = Math.max(slowest, part.macs);
  let uncovered = 0;
  for (let i = start; i < end; i++) if (!covered(stage, i - start, macs[i] ?? 0)) uncovered += macs[i] ?? 0;
  let partials = 0;
  const supplies = new Map<string, { producer: number; halo: number; most: number; all: number }>();
  stage.parts.forEach((part, p) => {
    for (const port of part.inputs) {
      const bytes = boxBytes(port.box, itemBytes(port.dtype));
      const own = ownBox(model, cut, stage.spec.shares, stage.partShares[p] ?? 0, port.tensor);
      const common = own && intersectBoxes(own, port.box);
      const missing = bytes - (common === undefined ? 0 : boxBytes(common, itemBytes(port.dtype)));
      const supply = supplies.get(port.tensor) ?? { producer: producer.get(port.tensor) ?? -1, halo: 0, most: 0, all: 0 };
      supply.halo = Math.max(supply.halo, missing);
      supply.most = Math.max(supply.most, bytes);
      supply.all += bytes;
      supplies.set(port.tensor, supply);
    }
    for (const port of part.outputs) if (port.tensor !== port.name) partials += boxBytes(port.box, itemBytes(port.dtype));
  });
  return {
    start,
    end,
    cut,
    cost: slowest + (must ? UNCOVERED_WEIGHT * uncovered : 0) + cost.macsPerByte * partials + cost.macsPerStage,
    supplies: [...supplies.values()],
  };
}

/** What a whole stage takes in: all of each tensor. */
function wholeSupplies(model: Model, start: number, end: number): Supply[] {
  const { producer } = indexOf(model);
  const names = new Set(model.nodes.slice(start, end).flatMap((node) => readsOf(node)));
  return [...names].flatMap((name): Supply[] => {
    const info = model.tensors.get(name);
    const from = producer.get(name) ?? -1;
    if (info === undefined || from >= start) return [];
    const bytes = tensorBytes(info.dtype, info.dims);
    return [{ producer: from, halo: 0, most: bytes, all: bytes }];
  });
}

/** True when every part does less than COVERED_BELOW of a node. Nodes without MACs are covered by definition. */
export function covered(stage: StageCut, node: number, macs: number): boolean {
  return macs === 0 || (stage.parts.length > 0 && stage.parts.every((part) => (part.nodeMacs[node] ?? 0) < COVERED_BELOW * macs));
}

/** What part `share` would hold of a tensor that a stage of the same cut made. */
function ownBox(model: Model, cut: CutKind, shares: readonly number[], share: number, tensor: string): Box | undefined {
  const info = model.tensors.get(tensor);
  if (cut === 'whole' || info === undefined) return undefined;
  const band = bandsOf(model, bandKindOf(cut)).band(tensor);
  const made = indexOf(model).producer.has(tensor);
  if (band === undefined || band.outer !== 1 || !made) return undefined;
  const interval = shareIntervals(extentOf(band, info.dims), shares)[share];
  return interval === undefined ? undefined : bandBox(info.dims, band, interval);
}

function boxBytes(box: Box, itemSize: number): number {
  return boxElements(box) * itemSize;
}

/**
 * Where stages may begin and end: before each node that computes (its followers stay with it; for cuts that end with a sum also behind it), before
 * windows (pools and the like widen halos), and wherever a walk from another position cannot go on.
 */
function stagePositions(model: Model, cuts: readonly Cut[]): number[] {
  const { macs, rules } = indexOf(model);
  const legal = legalPositions(model);
  const n = model.nodes.length;
  const positions = new Set([0, n]);
  const sums = cuts.includes('inputs') || cuts.includes('pair');
  model.nodes.forEach((node, i) => {
    const heavy = (macs[i] ?? 0) > 0;
    if (heavy || /Pool|LRN|Resize|Upsample|Concat|Flatten|Reshape|Reduce/.test(node.op)) positions.add(i);
    if (rules[i] === undefined || (heavy && sums)) positions.add(i).add(i + 1);
  });
  const seen = new Set<number>();
  for (let open = [...positions]; open.length > 0; open = [...positions].filter((p) => !seen.has(p))) {
    for (const start of open) {
      seen.add(start);
      if (start >= n || !legal[start]) continue;
      for (const cut of cuts) {
        const walk = new StageWalk(model, cut, start, new Map());
        while (walk.end < n && walk.step() === undefined);
        positions.add(Math.min(n, walk.end === start ? start + 1 : walk.end));
      }
    }
  }
  return [...positions].filter((p) => p === n || legal[p]).sort((a, b) => a - b);
}
