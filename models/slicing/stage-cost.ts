/** Which stages a covering cut may choose from, and what each costs in multiply-accumulates of one device. */
import { type Box, boxDims, elementCount, intersectBoxes, itemBytes, wholeBox } from '../../broker/tensor.js';
import type { Model } from '../model.js';
import { bandKindOf, bandsOf } from './bands.js';
import { cutWalk, isRefusal } from './cut.js';
import { bandBox, extentOf, shareIntervals } from './interval.js';
import { indexOf, USED_BY_MODEL } from './model-index.js';
import type { CutKind, StageCut } from './partition.js';
import { StageWalk } from './stage.js';

export interface StageCost {
  /** What a byte on a wire costs, in MACs. */
  readonly macsPerByte: number;
  /** What a stage costs for being one (messages, wake-ups), in MACs. */
  readonly macsPerStage: number;
}

/** About 4 GMAC/s beside 40 MB/s and half a millisecond per exchange. */
export const DEFAULT_COST: StageCost = { macsPerByte: 100, macsPerStage: 2e6 };

export interface CandidateRules {
  /** Cut whatever can be cut, whether it pays or not. */
  readonly must: boolean;
  readonly maxRecompute: number;
  readonly cost: StageCost;
}

/** One possible stage: nodes `[start, end)`. All costs in MACs. */
export interface Candidate {
  readonly start: number;
  readonly end: number;
  readonly cut: CutKind;
  /** Without what its inputs cost to bring. */
  readonly cost: number;
  /** Bringing its inputs when the stage before was cut the same way, and when it was not. */
  readonly halo: number;
  readonly gather: number;
}

/** A node counts as covered when every part does less than this of it. */
export const COVERED_BELOW = 0.7;
/** What uncovered work costs when everything that can be cut must be. */
const UNCOVERED_WEIGHT = 100;
/** Stages of more candidate positions than this are not looked at: halos have long made them dear. */
const MAX_SPAN = 24;

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
    const gather = rules.cost.macsPerByte * aliveBytes(model, start);
    found.push({
      start,
      end,
      cut: 'whole',
      cost: macs * (rules.must ? UNCOVERED_WEIGHT : 1) + (rules.must ? rules.cost.macsPerStage : 0),
      halo: 0,
      gather,
    });
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
  for (const end of ends.slice(0, MAX_SPAN)) {
    while (walk.end < end) if (walk.step() !== undefined) return found;
    const analysed = cutWalk(walk, shares);
    if (isRefusal(analysed)) continue;
    const whole = (macsBefore[end] ?? 0) - (macsBefore[start] ?? 0);
    const all = analysed.parts.reduce((sum, part) => sum + part.macs, 0);
    const heavy = macs.slice(start, end).filter((m) => m > whole / 100).length;
    if (heavy > 1 && all > whole * rules.maxRecompute) return found;
    found.push(priced(model, analysed, rules));
  }
  return found;
}

function priced(model: Model, stage: StageCut, { cost, must }: CandidateRules): Candidate {
  const { cut, nodes } = stage.spec;
  const [start, end] = nodes;
  const { macs } = indexOf(model);
  let slowest = 0;
  for (const part of stage.parts) slowest = Math.max(slowest, part.macs);
  let uncovered = 0;
  for (let i = start; i < end; i++) if (!covered(stage, i - start, macs[i] ?? 0)) uncovered += macs[i] ?? 0;
  let halo = 0;
  let gather = 0;
  let partials = 0;
  stage.parts.forEach((part, p) => {
    let missing = 0;
    for (const port of part.inputs) {
      const bytes = boxBytes(port.box, itemBytes(port.dtype));
      const own = ownBox(model, cut, stage.spec.shares, stage.partShares[p] ?? 0, port.tensor);
      const common = own && intersectBoxes(own, port.box);
      missing += bytes - (common === undefined ? 0 : boxBytes(common, itemBytes(port.dtype)));
      gather += bytes;
    }
    halo = Math.max(halo, missing);
    for (const port of part.outputs) if (port.tensor !== port.name) partials += boxBytes(port.box, itemBytes(port.dtype));
  });
  return {
    start,
    end,
    cut,
    cost: slowest + (must ? UNCOVERED_WEIGHT * uncovered : 0) + cost.macsPerByte * partials + cost.macsPerStage,
    halo: halo * cost.macsPerByte,
    gather: gather * cost.macsPerByte,
  };
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
  return elementCount(boxDims(box)) * itemSize;
}

/** Bytes of the tensors that are made before node `position` and read at or after it. */
function aliveBytes(model: Model, position: number): number {
  const { producer, lastUse } = indexOf(model);
  let sum = 0;
  for (const info of model.tensors.values()) {
    const last = lastUse.get(info.name) ?? -1;
    if ((producer.get(info.name) ?? -1) < position && last >= position && last !== USED_BY_MODEL)
      sum += boxBytes(wholeBox(info.dims), itemBytes(info.dtype));
  }
  return sum;
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
    if (heavy || /Pool|Resize|Upsample|Concat|Flatten|Reshape|Reduce/.test(node.op)) positions.add(i);
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
