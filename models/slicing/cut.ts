/** Cutting one stage, and a whole model into stages. Analysis only: no weight is read, so that planners can make thousands. */
import { ChairError } from '../../broker/errors.js';
import type { Port } from '../../broker/plan.js';
import { wholeBox } from '../../broker/tensor.js';
import type { Model } from '../model.js';
import { costOf, demandOf, extentBox, type PartDemand, reducedInput } from './demand.js';
import { extentOf, type Interval, isEmpty, shareIntervals } from './interval.js';
import { partialPort } from './part-graph.js';
import type { CutRefusal, PartCut, Partition, StageCut, StageSpec } from './partition.js';
import { type Held, nameOf, type PartialHold, StageWalk } from './stage.js';
import { bytesMoved, type PartialTaker, wire } from './wiring.js';

export type { Held, PartialHold } from './stage.js';

/** A part that knows what it computes. Copies of it do not: planners keep thousands of them. */
class Analysed implements PartCut {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly nodeMacs: readonly number[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
  readonly #demand: PartDemand;

  constructor(inputs: readonly Port[], outputs: readonly Port[], demand: PartDemand) {
    const { nodeMacs, macs, weightBytes, activationBytes } = costOf(demand);
    this.inputs = inputs;
    this.outputs = outputs;
    this.nodeMacs = nodeMacs;
    this.macs = macs;
    this.weightBytes = weightBytes;
    this.activationBytes = activationBytes;
    this.#demand = demand;
  }

  static demandOf(part: PartCut): PartDemand | undefined {
    return part instanceof Analysed ? part.#demand : undefined;
  }
}

/** What a part computes, for `write.ts`. */
export function demandOfPart(part: PartCut): PartDemand {
  const demand = Analysed.demandOf(part);
  if (demand === undefined) throw new ChairError('INTERNAL', 'a part that was not made by cutStage');
  return demand;
}

export function isRefusal(cut: StageCut | CutRefusal): cut is CutRefusal {
  return 'refused' in cut;
}

/** What is wrong with a specification itself, or undefined. */
function invalid(model: Model, { nodes: [start, end], cut, shares, redundancy = 0 }: StageSpec): string | undefined {
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end > model.nodes.length || start > end) {
    return `nodes [${start}, ${end}) of a model of ${model.nodes.length}`;
  }
  if (start === end && model.nodes.length > 0) return `an empty stage at node ${start}`;
  if (shares.length === 0 || !shares.every((s) => Number.isFinite(s) && s >= 0) || shares.every((s) => s === 0))
    return `shares ${shares.join(',')}`;
  if (redundancy !== 0 && (redundancy !== 1 || cut !== 'channels')) return `cut by ${cut} with redundancy ${redundancy}`;
  if (cut === 'whole' && shares.length !== 1) return `a whole stage with ${shares.length} shares`;
  return undefined;
}

/**
 * Cuts nodes `[start, end)` into parts. `held` names the tensors of earlier stages that are held as partials.
 * Throws CUT_INVALID for a specification that makes no sense; returns a refusal where the graph is in the way.
 */
export function cutStage(model: Model, spec: StageSpec, held: Held = new Map()): StageCut | CutRefusal {
  const problem = invalid(model, spec);
  if (problem !== undefined) throw new ChairError('CUT_INVALID', `a stage cannot be ${problem}`);
  const walk = new StageWalk(model, spec.cut, spec.nodes[0], held, spec.redundancy);
  while (walk.end < spec.nodes[1]) {
    const obstacle = walk.step();
    if (obstacle !== undefined) return { refused: true, ...obstacle };
  }
  return cutWalk(walk, spec.shares);
}

/** Cuts what a walk has covered. The walk may go on afterwards only when the cut is not used any more. */
export function cutWalk(walk: StageWalk, shares: readonly number[]): StageCut | CutRefusal {
  const obstacle = walk.obstacle();
  if (obstacle !== undefined) return { refused: true, ...obstacle };
  const { redundancy } = walk;
  const spec: StageSpec = { nodes: [walk.start, walk.end], cut: walk.cut, shares, ...(redundancy > 0 ? { redundancy } : {}) };
  const goals = goalsOf(walk, shares);
  const parts: PartCut[] = [];
  const partShares: number[] = [];
  goals.forEach((goal, i) => {
    if (!goal.busy) return;
    parts.push(makePart(walk, goal, parts.length));
    partShares.push(i);
  });
  if (redundancy > 0) {
    const thin = parts.find((part) => part.outputs.length !== parts[0]?.outputs.length);
    // Then not every part has a box of each tensor, and the parity would stand in for nothing.
    if (thin !== undefined)
      return { refused: true, node: walk.start, reason: `too few channels for ${shares.length} parts of every tensor` };
    parts.push(makeParity(walk, goals, parts));
    partShares.push(shares.length);
  }
  return { spec, parts, partShares };
}

/** The part that computes with the sum of the other parts' weights. */
function makeParity(walk: StageWalk, goals: readonly Goal[], others: readonly PartCut[]): PartCut {
  const bands = new Map<string, Interval>();
  for (const goal of goals) {
    for (const [tensor, [start, end]] of goal.bands) bands.set(tensor, [0, Math.max(bands.get(tensor)?.[1] ?? 0, end - start)]);
  }
  const demand = demandOf(walk, { bands, partials: new Map(), biased: new Set() });
  const made = others.map((part) => demandOfPart(part).intervals);
  const sums = new Map<number, readonly Interval[]>();
  for (const [i, interval] of demand.intervals) {
    if (interval === 'all') continue;
    sums.set(
      i,
      made.flatMap((intervals) => {
        const own = intervals.get(i);
        return own === undefined || own === 'all' ? [] : [own];
      }),
    );
  }
  return partOf(walk, { ...demand, sums }, others.length);
}

interface Goal {
  readonly bands: Map<string, Interval>;
  readonly partials: Map<number, Interval>;
  readonly biased: Set<number>;
  /** False when the part would hold nothing of its own: it is dropped. */
  busy: boolean;
}

/** Every part's share of every tensor that leaves in bands, and of every band that is summed over. */
function goalsOf(walk: StageWalk, shares: readonly number[]): Goal[] {
  const goals = shares.map((): Goal => ({ bands: new Map(), partials: new Map(), biased: new Set(), busy: walk.cut === 'whole' }));
  const tensors = walk.index.model.tensors;
  for (const [tensor, holding] of walk.holdings) {
    if (holding.kind !== 'band' || !walk.leaves(tensor)) continue;
    const extent = extentOf(holding.band, tensors.get(tensor)?.dims ?? []);
    shareIntervals(extent, shares).forEach((interval, i) => {
      const goal = goals[i];
      if (goal === undefined || isEmpty(interval)) return;
      goal.bands.set(tensor, interval);
      goal.busy = true;
    });
  }
  walk.makings.forEach((making, m) => {
    if (making.kind !== 'partial') return;
    const extent = extentOf(making.band, tensors.get(reducedInput(walk, making))?.dims ?? []);
    let biased = false;
    shareIntervals(extent, shares).forEach((interval, i) => {
      const goal = goals[i];
      if (goal === undefined || isEmpty(interval)) return;
      if (!biased) goal.biased.add(m);
      biased = true;
      goal.partials.set(m, interval);
      goal.busy = true;
    });
  });
  return goals;
}

function makePart(walk: StageWalk, goal: Goal, index: number): PartCut {
  return partOf(walk, demandOf(walk, goal), index);
}

function partOf(walk: StageWalk, demand: PartDemand, index: number): PartCut {
  const { model } = walk.index;
  const inputs = demand.entering.flatMap((tensor): Port[] => {
    const info = model.tensors.get(tensor);
    if (info === undefined) return [];
    const box = extentBox(info.dims, demand.extents.get(tensor) ?? 'all');
    const names = walk.held.get(tensor)?.names ?? [tensor];
    return names.map((name) => ({ name, tensor: name, dtype: info.dtype, box }));
  });
  const outputs = demand.leaving.flatMap((tensor): Port[] => {
    const info = model.tensors.get(tensor);
    if (info === undefined) return [];
    if (walk.holdings.get(tensor)?.kind === 'partial') {
      const name = partialPort(walk.index, tensor);
      return [{ name, tensor: `${name}:${index}`, dtype: info.dtype, box: wholeBox(info.dims) }];
    }
    const box = extentBox(info.dims, demand.extents.get(tensor) ?? 'all');
    // A parity is no part of the tensor: nobody may take it for one.
    return [{ name: tensor, tensor: demand.sums === undefined ? tensor : `${tensor}${walk.index.mark}parity`, dtype: info.dtype, box }];
  });
  return new Analysed(inputs, outputs, demand);
}

/** What later stages find of this stage's tensors: those left as partials. */
export function heldAfter(stage: StageCut, before: Held): Map<string, PartialHold> {
  const held = new Map(before);
  const found = new Map<string, string[]>();
  stage.parts.forEach((part) => {
    const { walk, leaving } = demandOfPart(part);
    for (const tensor of leaving) {
      const holding = walk.holdings.get(tensor);
      if (holding?.kind !== 'partial') continue;
      const name = part.outputs.find((port) => port.name === partialPort(walk.index, tensor))?.tensor ?? '';
      const names = found.get(tensor) ?? [];
      names.push(name);
      found.set(tensor, names);
      held.set(tensor, { merge: holding.merge, names });
    }
  });
  return held;
}

/**
 * Cuts a model into stages, which must cover all nodes in order, and wires them.
 * Throws CUT_INVALID when stages do not follow each other, CUT_NOT_POSSIBLE with the reason when one cannot be cut as asked.
 */
export function partition(model: Model, specs: readonly StageSpec[]): Partition {
  let at = 0;
  let held: Held = new Map();
  const stages: StageCut[] = [];
  for (const [i, spec] of specs.entries()) {
    if (spec.nodes[0] !== at)
      throw new ChairError('CUT_INVALID', `stage ${i + 1} must begin where the last one ended`, {
        expected: `node ${at}`,
        came: `node ${spec.nodes[0]}`,
      });
    const cut = cutStage(model, spec, held);
    if (isRefusal(cut)) throw refusalError(model, i, spec, cut);
    stages.push(cut);
    held = heldAfter(cut, held);
    at = spec.nodes[1];
  }
  if (at !== model.nodes.length)
    throw new ChairError('CUT_INVALID', 'the stages must cover the model', { expected: `${model.nodes.length} nodes`, came: `${at}` });
  const ends = { inputs: model.inputs, outputs: model.outputs };
  const wired = stages.map(({ spec: { cut, redundancy = 0 }, parts }) => ({ cut, parts, redundancy }));
  const { wires, missing, partial } = wire(wired, ends);
  const [taker] = partial;
  if (taker !== undefined) throw partialError(stages, taker);
  const hole = missing[0];
  if (hole !== undefined) {
    throw new ChairError(
      'INTERNAL',
      `stage ${hole.stage + 1} part ${hole.part + 1} input ${hole.input}: nobody holds [${hole.box.start}]..[${hole.box.end}]`,
    );
  }
  return { model, stages, wires, ...ends, bytesMoved: bytesMoved(wired, ends, wires) };
}

/** A parity stands in for a part only where all parts meet. */
function partialError(stages: readonly StageCut[], { stage, part, input, tensor }: PartialTaker): ChairError {
  const name = stages[stage]?.parts[part]?.inputs[input]?.tensor ?? tensor;
  return new ChairError(
    'CUT_NOT_POSSIBLE',
    `stage ${stage + 1} takes only some channels of ${name}, which is coded: a missing part could not be recovered`,
    {
      todo: 'Cut that stage otherwise, or the coded one without redundancy.',
    },
  );
}

function refusalError(model: Model, stage: number, spec: StageSpec, refusal: CutRefusal): ChairError {
  return new ChairError(
    'CUT_NOT_POSSIBLE',
    `stage ${stage + 1} (nodes [${spec.nodes.join(', ')})) cannot be cut by ${spec.cut}: ${refusal.reason}`,
    {
      todo: `End the stage before ${nameOf(model.nodes[refusal.node])}, or cut it otherwise.`,
    },
  );
}
