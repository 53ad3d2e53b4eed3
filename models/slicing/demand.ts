/**
 * Demand propagation: from the intervals that a part must hold at the stage's end backwards to what it needs at its beginning.
 * Several readers of a tensor: the hull of what they need. What is demanded of entering tensors is the halo.
 */
import { type Box, tensorBytes, wholeBox } from '../../broker/tensor.js';
import { type Band, bandBox, compatible, extentOf, hull, type Interval, inUnits, isEmpty } from './interval.js';
import { operandOf, readsOf } from './model-index.js';
import type { InputNeed } from './rules/rule.js';
import type { Making, MakingCost, StageWalk } from './stage.js';

/** What a part has of a tensor: all of it, or an interval of a band. */
export type Extent = 'all' | { readonly band: Band; readonly interval: Interval };

/** What one part of a stage computes: the plan from which its graph is written. */
export interface PartDemand {
  readonly walk: StageWalk;
  /** Of every tensor that the part makes or takes in. */
  readonly extents: ReadonlyMap<string, Extent>;
  /** By index of `walk.makings`: the interval made or reduced; absent when this part leaves the node out. */
  readonly intervals: ReadonlyMap<number, Interval | 'all'>;
  /** Tensors that enter, in order of first use. */
  readonly entering: readonly string[];
  /** Tensors that leave, in order of making. */
  readonly leaving: readonly string[];
  /** Makings whose partial sums this part adds the bias to. */
  readonly biased: ReadonlySet<number>;
  /** Of a parity, by index of making: the intervals of the parts that it stands in for. Their weights are added up. */
  readonly sums?: ReadonlyMap<number, readonly Interval[]>;
}

/** What a part must hold at the end of its stage. */
export interface PartGoal {
  /** Interval of each leaving banded tensor. */
  readonly bands: ReadonlyMap<string, Interval>;
  /** Interval that each partial is summed over, by index of making. */
  readonly partials: ReadonlyMap<number, Interval>;
  /** Makings of which it is the first part that sums anything: it adds the bias. */
  readonly biased: ReadonlySet<number>;
}

export function demandOf(walk: StageWalk, goal: PartGoal): PartDemand {
  const demand = new Demand(walk);
  const leaving: string[] = [];
  for (const [tensor, holding] of walk.holdings) {
    if (!walk.leaves(tensor)) continue;
    if (holding.kind === 'whole') demand.add(tensor, 'all');
    const interval = goal.bands.get(tensor);
    if (holding.kind === 'band' && interval !== undefined && !isEmpty(interval)) demand.add(tensor, { band: holding.band, interval });
    else if (holding.kind === 'band') continue;
    leaving.push(tensor);
  }
  for (let i = walk.makings.length - 1; i >= 0; i--) {
    const making = walk.makings[i];
    if (making !== undefined) demand.make(i, making, goal.partials.get(i));
  }
  const made = (tensor: string) => demand.extents.has(tensor) || demand.partials.has(tensor);
  return {
    walk,
    extents: demand.extents,
    intervals: demand.intervals,
    entering: demand.entering(),
    leaving: leaving.filter(made),
    biased: goal.biased,
  };
}

class Demand {
  readonly extents = new Map<string, Extent>();
  readonly intervals = new Map<number, Interval | 'all'>();
  readonly partials = new Set<string>();
  readonly #walk: StageWalk;

  constructor(walk: StageWalk) {
    this.#walk = walk;
  }

  /** Widens what is demanded of a tensor. */
  add(tensor: string, more: Extent): void {
    const holding = this.#walk.holdings.get(tensor);
    if (holding?.kind === 'whole') {
      this.extents.set(tensor, 'all');
      return;
    }
    const now = this.extents.get(tensor);
    if (now === 'all') return;
    const band = holding?.kind === 'band' ? holding.band : now?.band;
    if (more === 'all' || (band !== undefined && !compatible(band, more.band))) {
      this.extents.set(tensor, 'all');
      return;
    }
    // Entering tensors take the band of their last reader (we walk backwards): it only decides the shape of the box.
    const own = band ?? more.band;
    const interval = hull(now?.interval, inUnits(more.interval, more.band, own));
    if (interval !== undefined) this.extents.set(tensor, { band: own, interval });
  }

  /** Passes the demand on a node's output to its inputs. */
  make(i: number, making: Making, reduced: Interval | undefined): void {
    const node = this.#walk.index.model.nodes[making.node];
    if (node === undefined) return;
    if (making.kind === 'whole') {
      if (!node.outputs.some((name) => this.extents.has(name))) return;
      this.intervals.set(i, 'all');
      for (const name of readsOf(node)) if (name !== '' && !this.#walk.index.model.weights.has(name)) this.add(name, 'all');
      return;
    }
    if (making.kind === 'partial') {
      if (reduced === undefined || isEmpty(reduced)) return;
      this.partials.add(node.outputs[0] ?? '');
      this.intervals.set(i, reduced);
      this.#pass(node.inputs, making.reducing.inputs, reduced);
      return;
    }
    const extent = this.extents.get(node.outputs[making.output] ?? '');
    if (extent === undefined || extent === 'all') return;
    this.intervals.set(i, extent.interval);
    this.#pass(node.inputs, making.banding.inputs, extent.interval);
  }

  #pass(names: readonly string[], needs: readonly InputNeed[], out: Interval): void {
    needs.forEach((need, j) => {
      const name = names[j] ?? '';
      if (name === '' || need === 'drop' || this.#walk.index.model.weights.has(name)) return;
      const interval = need === 'all' ? undefined : need.need(out);
      if (need === 'all') this.add(name, 'all');
      else if (interval !== undefined) this.add(name, { band: need.band, interval });
    });
  }

  /** In order of first use, so that equal parts name their ports in equal order. */
  entering(): string[] {
    const seen = new Set<string>();
    this.#walk.makings.forEach((making, i) => {
      const node = this.#walk.index.model.nodes[making.node];
      if (node === undefined || !this.intervals.has(i)) return;
      for (const name of readsOf(node)) if (this.extents.has(name) && !this.#walk.holdings.has(name)) seen.add(name);
    });
    return [...seen];
  }
}

/** The box of a tensor that an extent is. */
export function extentBox(dims: readonly number[], extent: Extent): Box {
  return extent === 'all' ? wholeBox(dims) : bandBox(dims, extent.band, extent.interval);
}

export interface PartCost {
  /** One per node of the stage. */
  readonly nodeMacs: readonly number[];
  readonly macs: number;
  readonly weightBytes: number;
  readonly activationBytes: number;
}

/** What a part costs: MACs in proportion to what it really computes, bytes of its weights, and the peak of live activations. */
export function costOf(part: PartDemand): PartCost {
  const { walk } = part;
  const nodeMacs = new Array<number>(walk.end - walk.start).fill(0);
  const shared = new Map<string, number>();
  let macs = 0;
  let weightBytes = 0;
  for (const [i, interval] of part.intervals) {
    const making = walk.makings[i];
    if (making === undefined) continue;
    const whole = wholeCost(walk, i, making);
    const times = denseness(part, i, making);
    const cost = whole.macs * (interval === 'all' ? 1 : unitsOf(making, interval) / whole.units) * times;
    nodeMacs[making.node - walk.start] = (nodeMacs[making.node - walk.start] ?? 0) + cost;
    macs += cost;
    weightBytes += addWeights(whole, interval, shared, times);
  }
  for (const bytes of shared.values()) weightBytes += bytes;
  return { nodeMacs, macs, weightBytes, activationBytes: peakBytes(part) };
}

/** Of a parity of several parts: how much more it computes than a part as long. */
function denseness({ sums }: PartDemand, i: number, making: Making): number {
  if (sums === undefined) return 1;
  const dense = making.kind === 'band' ? making.banding.parity : undefined;
  return dense !== undefined && (sums.get(i)?.length ?? 0) > 1 ? dense.groups : 1;
}

/** Of a band, what is computed of it or summed over. */
function unitsOf(making: Making, interval: Interval): number {
  const computed = making.kind === 'band' ? making.banding.computed?.(interval) : undefined;
  return computed ?? interval[1] - interval[0];
}

function wholeCost(walk: StageWalk, i: number, making: Making): MakingCost {
  const known = walk.costs[i];
  if (known !== undefined) return known;
  const { model, macs, weightReads } = walk.index;
  const node = model.nodes[making.node];
  const name = making.kind === 'band' ? node?.outputs[making.output] : making.kind === 'partial' ? reducedInput(walk, making) : undefined;
  const units = making.kind === 'whole' ? 1 : extentOf(making.band, operandOf(model, name ?? '')?.dims ?? []);
  const needs = making.kind === 'band' ? making.banding.inputs : making.kind === 'partial' ? making.reducing.inputs : undefined;
  const weights = (weightReads[making.node] ?? []).flatMap(({ input, weight, shared }): MakingCost['weights'] => {
    const need = needs?.[input] ?? 'all';
    if (need === 'drop') return [];
    const bytes = tensorBytes(weight.dtype, weight.dims);
    return [{ name: weight.name, bytes, need, units: need === 'all' ? 1 : extentOf(need.band, weight.dims), shared }];
  });
  const made = { macs: macs[making.node] ?? 0, units, weights };
  walk.costs[i] = made;
  return made;
}

/** The activation whose band a partial is summed over. */
export function reducedInput(walk: StageWalk, making: Making & { readonly kind: 'partial' }): string {
  const inputs = walk.index.model.nodes[making.node]?.inputs ?? [];
  const j = making.reducing.inputs.findIndex((need, i) => typeof need === 'object' && walk.index.model.tensors.has(inputs[i] ?? ''));
  return inputs[j] ?? '';
}

/** Bytes of the weights that only this making reads; the others are noted in `shared`, by what of them is read. */
function addWeights({ weights }: MakingCost, interval: Interval | 'all', shared: Map<string, number>, times: number): number {
  let sum = 0;
  for (const { name, bytes, need, units, shared: again } of weights) {
    const part = need === 'all' || interval === 'all' ? 'all' : need.need(interval);
    if (part === undefined) continue;
    const own = need === 'all' || part === 'all' ? bytes : (times * bytes * (part[1] - part[0])) / units;
    if (!again) sum += own;
    else shared.set(need === 'all' || part === 'all' ? name : `${name}\n${need.band.axis}:${part[0]}:${part[1]}`, own);
  }
  return sum;
}

function extentBytes(part: PartDemand, tensor: string): number {
  const { bytes, model } = part.walk.index;
  const whole = bytes.get(tensor) ?? 0;
  const extent = part.extents.get(tensor);
  if (extent === undefined || extent === 'all') return whole;
  return (whole * (extent.interval[1] - extent.interval[0])) / extentOf(extent.band, model.tensors.get(tensor)?.dims ?? []);
}

/** Largest sum of live activations: entering tensors live from the start to their last reader, others from their making. */
function peakBytes(part: PartDemand): number {
  const { walk } = part;
  let live = 0;
  for (const name of part.entering) live += extentBytes(part, name) * (1 + (walk.held.get(name)?.names.length ?? 0));
  let peak = live;
  let freed = walk.start;
  for (const [i, making] of walk.makings.entries()) {
    // A node may have several makings (the outputs of a Split): what it reads is free after the last of them.
    for (; freed < making.node; freed++)
      for (const name of walk.index.frees[freed] ?? []) if (part.extents.has(name)) live -= extentBytes(part, name);
    if (!part.intervals.has(i)) continue;
    const outputs = walk.index.model.nodes[making.node]?.outputs ?? [];
    if (making.kind === 'band') live += extentBytes(part, outputs[making.output] ?? '');
    else for (const name of outputs) live += extentBytes(part, name);
    if (live > peak) peak = live;
  }
  return peak;
}
