/**
 * Covering a model with one kind of cut: which stages to make so that as much of the model as possible is cut, without a stage per node and without
 * computing halos twice and thrice. A shortest path over the places where a stage may begin or end; the price of a stage is its slowest part, what its
 * wires bring, and a constant. It decides *where* a cut goes; whether devices are worth it is the planner's concern.
 */
import type { Model } from '../model.js';
import { balancedStarts } from './balance.js';
import { cutStage, type Held, heldAfter, isRefusal } from './cut.js';
import { indexOf } from './model-index.js';
import type { CoverKind } from './parse-cut.js';
import type { CutKind, StageSpec } from './partition.js';
import { StageWalk } from './stage.js';
import { type Candidate, candidates, DEFAULT_COST, legalPositions, type StageCost } from './stage-cost.js';

export { COVER_KINDS, type CoverKind, type ParsedCut, parseCut } from './parse-cut.js';
export { DEFAULT_COST, type StageCost } from './stage-cost.js';

export interface CoverOptions {
  /** What a stage costs; default: DEFAULT_COST, less for models below 10 GMAC. */
  readonly cost?: Partial<StageCost>;
  /** Work of all parts over work of the whole that a stage of several heavy nodes may have (halos computed twice). Default 1.2. */
  readonly maxRecompute?: number;
}

/** Nodes that stay whole, and why. */
export interface CoverRefusal {
  /** `[start, end)` */
  readonly nodes: readonly [number, number];
  readonly reason: string;
}

export interface CoverResult {
  /** Tile all nodes, in order; can be given to `partition` as they are. */
  readonly stages: readonly StageSpec[];
  readonly refusals: readonly CoverRefusal[];
}

/** The kinds a stage may be cut by, best first where costs are equal. */
const AUTO_KINDS: readonly Exclude<CutKind, 'whole'>[] = ['rows', 'columns', 'channels', 'inputs', 'pair'];

/**
 * Stages that cut as much of the model as `kind` can cover; what it cannot is in stages `whole`, with the reasons. `shares`: one per part (see parseCut).
 * - rows, columns, channels, inputs, pair: everything that can be cut is cut, at the smallest cost.
 * - stages: as many whole stages as shares (fewer when the model has fewer places to cut), balanced by MACs.
 * - auto: per region the kind with the smallest cost, or whole where nothing pays.
 */
export function coverCut(model: Model, kind: CoverKind, shares: readonly number[], options: CoverOptions = {}): CoverResult {
  const n = model.nodes.length;
  if (kind === 'whole' || n === 0) return { stages: n === 0 ? [] : [wholeStage(0, n)], refusals: [] };
  if (kind === 'stages') return coverStages(model, shares);
  const kinds = kind === 'auto' ? AUTO_KINDS : [kind];
  const cost = { ...defaultCost(model), ...options.cost };
  const rules = { must: kind !== 'auto', maxRecompute: options.maxRecompute ?? 1.2, cost };
  const path = shortestPath(model, candidates(model, kinds, shares, rules), cost);
  const stages = settle(model, path, shares);
  return { stages, refusals: refusalsOf(model, kinds, stages) };
}

/** DEFAULT_COST, shrunk with models below 10 GMAC: where to cut is asked here, not whether a model is large enough to be worth it. */
function defaultCost(model: Model): StageCost {
  const scale = Math.min(1, (indexOf(model).macsBefore.at(-1) ?? 0) / 10e9);
  return { macsPerByte: DEFAULT_COST.macsPerByte * scale, macsPerStage: DEFAULT_COST.macsPerStage * scale };
}

function wholeStage(start: number, end: number): StageSpec {
  return { nodes: [start, end], cut: 'whole', shares: [1] };
}

function coverStages(model: Model, shares: readonly number[]): CoverResult {
  const { macsBefore } = indexOf(model);
  const bounds = [...cheapPositions(model), model.nodes.length];
  const loads = bounds.slice(1).map((end, i) => (macsBefore[end] ?? 0) - (macsBefore[bounds[i] ?? 0] ?? 0));
  const starts = balancedStarts(loads, shares).map((i) => bounds[i] ?? 0);
  const stages = starts.map((start, i) => wholeStage(start, starts[i + 1] ?? model.nodes.length));
  const wanted = shares.filter((s) => s > 0).length;
  if (stages.length >= wanted) return { stages, refusals: [] };
  const reason = `the model has only ${stages.length} places where a stage can begin, ${wanted} were asked for`;
  return { stages, refusals: [{ nodes: [0, model.nodes.length], reason }] };
}

/**
 * Where a pipeline stage may begin: one position behind each node that computes (later nodes without MACs stay with it), at the position with the fewest bytes alive.
 */
function cheapPositions(model: Model): number[] {
  const { macs, producer, lastUse } = indexOf(model);
  const legal = legalPositions(model);
  const alive = new Array<number>(model.nodes.length + 1).fill(0);
  for (const info of model.tensors.values()) {
    const from = (producer.get(info.name) ?? -1) + 1;
    const size = info.dims.reduce((a, b) => a * b, 1);
    for (let p = from; p <= Math.min(lastUse.get(info.name) ?? -1, model.nodes.length); p++) alive[p] = (alive[p] ?? 0) + size;
  }
  const positions = [0];
  let best = -1;
  let computed = false;
  for (let p = 1; p < model.nodes.length; p++) {
    computed ||= (macs[p - 1] ?? 0) > 0;
    if (computed && legal[p] && (best < 0 || (alive[p] ?? 0) < (alive[best] ?? 0))) best = p;
    if ((macs[p] ?? 0) > 0 && best > 0) {
      positions.push(best);
      best = -1;
      computed = false;
    }
  }
  // Models without MACs: every legal position will do.
  return positions.length > 1 ? positions : [...legal.keys()].filter((p) => legal[p] && p < model.nodes.length);
}

interface Reached {
  readonly cost: number;
  readonly last?: Candidate;
  readonly before?: Reached;
}

/** Cheapest chain of candidates from node 0 to the end; one way is kept for each (position, kind of the stage that ends there). */
function shortestPath(model: Model, all: readonly Candidate[], { macsPerByte, macsPerStage }: StageCost): Candidate[] {
  const reached = new Map<number, Map<CutKind | 'start', Reached>>([[0, new Map([['start', { cost: 0 }]])]]);
  for (const candidate of [...all].sort((a, b) => a.start - b.start || a.end - b.end)) {
    for (const before of reached.get(candidate.start)?.values() ?? []) {
      // Whole neighbours become one stage; the first of them is one more exchange.
      const stage = candidate.cut === 'whole' && before.last?.cut !== 'whole' ? macsPerStage : 0;
      const cost = before.cost + candidate.cost + stage + macsPerByte * bytesToBring(candidate, before);
      const there = reached.get(candidate.end) ?? new Map<CutKind | 'start', Reached>();
      reached.set(candidate.end, there);
      const known = there.get(candidate.cut);
      if (known === undefined || cost < known.cost) there.set(candidate.cut, { cost, last: candidate, before });
    }
  }
  let end: Reached | undefined;
  for (const option of reached.get(model.nodes.length)?.values() ?? []) if (end === undefined || option.cost < end.cost) end = option;
  const path: Candidate[] = [];
  for (let at = end; at?.last !== undefined; at = at.before) path.unshift(at.last);
  return path;
}

/** Bytes on the busiest end of a stage's wires: what is held in the same bands stays, from a single holder everything leaves through one door. */
function bytesToBring(candidate: Candidate, before: Reached): number {
  let bytes = 0;
  for (const supply of candidate.supplies) {
    let maker: Reached | undefined = before;
    while (maker?.last !== undefined && maker.last.start > supply.producer) maker = maker.before;
    const kind = maker?.last?.cut;
    if (kind === candidate.cut) bytes += supply.halo;
    else bytes += kind === undefined || kind === 'whole' ? supply.all : supply.most;
  }
  return bytes;
}

/** Joins whole neighbours, and checks every stage once more with what the stages before it really left behind. */
function settle(model: Model, path: readonly Candidate[], shares: readonly number[]): StageSpec[] {
  const stages: StageSpec[] = [];
  let held: Held = new Map();
  for (const { start, end, cut } of path) {
    let spec: StageSpec = cut === 'whole' ? wholeStage(start, end) : { nodes: [start, end], cut, shares };
    const last = stages.at(-1);
    const analysed = cut === 'whole' ? undefined : cutStage(model, spec, held);
    if (analysed !== undefined && !isRefusal(analysed)) held = heldAfter(analysed, held);
    else spec = wholeStage(start, end);
    if (spec.cut === 'whole' && last?.cut === 'whole') stages[stages.length - 1] = wholeStage(last.nodes[0], end);
    else stages.push(spec);
  }
  return stages;
}

/** Of the nodes in whole stages: what is in the way of the kinds asked for. */
function refusalsOf(model: Model, kinds: readonly Exclude<CutKind, 'whole'>[], stages: readonly StageSpec[]): CoverRefusal[] {
  const refusals: CoverRefusal[] = [];
  for (const stage of stages) {
    if (stage.cut !== 'whole') continue;
    const [start, end] = stage.nodes;
    for (let at = start; at < end; at++) {
      const reason = kinds.length === 1 && kinds[0] !== undefined ? whyNot(model, kinds[0], at) : 'no kind of cut pays here';
      const last = refusals.at(-1);
      if (last !== undefined && last.nodes[1] === at && last.reason === reason)
        refusals[refusals.length - 1] = { nodes: [last.nodes[0], at + 1], reason };
      else refusals.push({ nodes: [at, at + 1], reason });
    }
  }
  return refusals;
}

function whyNot(model: Model, kind: Exclude<CutKind, 'whole'>, node: number): string {
  const walk = new StageWalk(model, kind, node, new Map());
  const dear = `cut by ${kind}, some part would still do nearly all of its work, or too much would be done twice`;
  if (kind !== 'inputs' && kind !== 'pair') return walk.step()?.reason ?? walk.obstacle()?.reason ?? dear;
  // These end with a sum: what is in the way may stand further on.
  while (walk.end < model.nodes.length) {
    const reason = walk.step()?.reason;
    if (reason !== undefined) return reason;
    if (walk.obstacle() === undefined) return dear;
  }
  return walk.obstacle()?.reason ?? dear;
}
