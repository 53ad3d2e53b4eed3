/** How far a stage of one cut can reach from a node, and why not farther: what covers and planners choose stage ends from. */
import type { Model } from '../model.js';
import { cutWalk, isRefusal } from './cut.js';
import { indexOf } from './model-index.js';
import type { CutKind, StageCut } from './partition.js';
import { type Held, type Obstacle, StageWalk } from './stage.js';

export interface Region {
  readonly start: number;
  /** Ends at which `cutStage` would accept the stage `[start, end)`, ascending; empty when there is none. */
  readonly ends: readonly number[];
  /** What is in the way of a longer region (or of any). */
  readonly obstacle: Obstacle;
}

export interface RegionOptions {
  /** Go no farther than this node. Default: the end of the model. */
  readonly limit?: number;
  /**
   * End the region before a node that every part would have to compute whole when it is more than this share of the model's MACs
   * (it would be paid once per part). Default 0.02.
   */
  readonly replicatedMacsRatio?: number;
}

/** MACs of nodes `[start, end)` of the whole model, in constant time. */
export function macsBetween(model: Model, start: number, end: number): number {
  const before = indexOf(model).macsBefore;
  return (before[end] ?? 0) - (before[start] ?? 0);
}

/** Every end that a stage from `start` may have, independent of shares. One walk over the nodes: cheap. */
export function regionFrom(model: Model, start: number, cut: CutKind, held: Held = new Map(), options: RegionOptions = {}): Region {
  const ends: number[] = [];
  const walk = new StageWalk(model, cut, start, held);
  const obstacle = walkOn(walk, options, () => {
    if (walk.obstacle() === undefined) ends.push(walk.end);
  });
  // With no end at all, a node in the way says more than what the stage lacks; when the nodes ran out, the stage says what it lacks.
  const ranOut = obstacle.node >= Math.min(options.limit ?? model.nodes.length, model.nodes.length);
  return { start, ends, obstacle: ends.length === 0 && ranOut ? (walk.obstacle() ?? obstacle) : obstacle };
}

/**
 * The stage at every possible end, ascending, with its parts' exact MACs (halos included), so that a cover can stop where halos become too dear.
 * Each stage costs a walk back over its nodes. The generator returns what is in the way of a longer region.
 */
export function* growingStage(
  model: Model,
  start: number,
  cut: CutKind,
  shares: readonly number[],
  held: Held = new Map(),
  options: RegionOptions = {},
): Generator<StageCut, Obstacle> {
  const limit = options.limit ?? model.nodes.length;
  const region = regionFrom(model, start, cut, held, { ...options, limit });
  for (const end of region.ends) {
    // A walk of its own for each stage: parts refer to it when they are written.
    const walk = new StageWalk(model, cut, start, held);
    while (walk.end < end && walk.step() === undefined);
    const stage = cutWalk(walk, shares);
    if (isRefusal(stage)) return stage;
    yield stage;
  }
  return region.obstacle;
}

function walkOn(walk: StageWalk, options: RegionOptions, visit: () => void): Obstacle {
  const { macs, macsBefore, model } = walk.index;
  const limit = Math.min(options.limit ?? model.nodes.length, model.nodes.length);
  const tooDear = (options.replicatedMacsRatio ?? 0.02) * (macsBefore.at(-1) ?? 0);
  while (walk.end < limit) {
    const node = walk.end;
    const obstacle = walk.step();
    if (obstacle !== undefined) return obstacle;
    if (walk.cut !== 'whole' && walk.makings.at(-1)?.kind === 'whole' && (macs[node] ?? 0) > tooDear) {
      return { node, reason: 'every part would have to compute it whole' };
    }
    visit();
  }
  return { node: limit, reason: limit === model.nodes.length ? 'the model ends' : 'the limit is reached' };
}
