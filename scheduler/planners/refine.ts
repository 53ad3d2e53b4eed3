/**
 * Plans for latency made better step by step: the neighbours of a plan (a boundary between two stages elsewhere, two stages in one, one in two, a stage cut in another way or over
 * another team, all stages over another team) are added up from cells (cells.ts, states.ts), which is as exact as the estimate and hundreds of times as quick as cutting
 * each. What dynamic programming over teams (teams.ts) cannot see is found here: parts of whole rows, halos and messages as they are, links that are still
 * busy, quotas that were not used, and beginnings of stages inside of blocks, as covering cuts have them.
 */
import { type Cell, Cells, type Layout } from './cells.js';
import { slowdown } from './cost.js';
import { draft, nameOf } from './draft.js';
import { finer } from './finer.js';
import { sizes } from './options.js';
import { bySpeed, type Device, isRefusal, type PlanDraft, type PlanProblem, type SeatedStage } from './problem.js';
import { type State, States } from './states.js';

/** More devices than this do not shorten a frame's way any more. */
const MOST_DEVICES = 16;
/** Up to so many devices teams of every size are tried: bands of whole rows fall better on seven than on eight where there are 14 rows. */
const EVERY_SIZE = 8;
const CUTS = ['rows', 'columns', 'channels', 'inputs', 'pair'] as const;
/** A gain below this part is no gain. */
const WORTH = 1e-3;

/** One stage: it ends before block `end`, laid out as `layout` says. */
interface Gene {
  readonly end: number;
  readonly layout: number;
}

/** `effort`: about how many messages may be looked at. Undefined when nothing is gained, or the plan cannot be put together from cells (replicas, parities). */
export function refined(problem: PlanProblem, start: PlanDraft, effort: number): PlanDraft | undefined {
  const seats = start.stages.flatMap(({ agents }) => agents.flat());
  const devices = bySpeed(problem.devices).filter(({ agent }, i) => i < MOST_DEVICES || seats.includes(agent));
  const facts = finer(
    problem.facts,
    start.stages.map(({ spec }) => spec.nodes[0]),
  );
  const climb = new Climb({ ...problem, devices, facts }, start, effort);
  const stages = climb.run();
  if (stages === undefined) return undefined;
  const found = draft(problem, nameOf(stages), stages);
  return isRefusal(found) || found.estimate.latencyMs >= start.estimate.latencyMs ? undefined : found;
}

class Climb {
  readonly #problem: PlanProblem;
  readonly #layouts: Layout[] = [];
  readonly #indices = new Map<string, number>();
  /** The plan that it begins with; undefined when it cannot be said so. */
  readonly #first: readonly Gene[] | undefined;
  readonly #cells: Cells;
  readonly #states: States;
  #effort: number;

  constructor(problem: PlanProblem, start: PlanDraft, effort: number) {
    this.#problem = problem;
    this.#effort = effort;
    const { devices } = problem;
    this.#add({ cut: 'whole', shares: [1], devices: [[0]] });
    const teams = devices.length <= EVERY_SIZE ? devices.map((_, d) => d + 1).slice(1) : sizes(devices.length);
    for (const size of teams) {
      const shares = sharesOf(devices.slice(0, size));
      for (const cut of CUTS) this.#add({ cut, shares, devices: [shares.map((_, d) => d)] });
    }
    this.#first = this.#genes(start);
    // The other way round: bands at the ends have one halo less, and messages leave in the order of the parts.
    for (const layout of new Set(this.#first?.map((gene) => gene.layout))) {
      const { cut = 'whole', shares = [], devices: seats = [] } = this.#layouts[layout] ?? {};
      if (shares.length > 1) this.#add({ cut, shares: shares.toReversed(), devices: seats.map((replica) => replica.toReversed()) });
    }
    this.#cells = new Cells(problem, this.#layouts);
    this.#states = new States(problem, this.#cells);
  }

  /** Stages of the best plan that was found; undefined when there is none better. */
  run(): SeatedStage[] | undefined {
    if (this.#first === undefined) return undefined;
    let genes = this.#first;
    let way = this.#walk(genes, [], Number.POSITIVE_INFINITY);
    if (way === undefined) return undefined;
    let gained = false;
    // Few and likely steps first, and from the start again after each gain.
    for (let steps = this.#steps(genes); this.#effort > 0; ) {
      const { value: next, done } = steps.next();
      if (done === true) break;
      const better = this.#walk(next, way, (way.at(-1)?.value ?? 0) * (1 - WORTH));
      if (better === undefined) continue;
      [genes, way, gained] = [next, better, true];
      steps = this.#steps(genes);
    }
    return gained ? way.slice(0, -1).flatMap(({ cell }) => cell?.stage ?? []) : undefined;
  }

  *#steps(genes: readonly Gene[]): Generator<readonly Gene[], undefined> {
    for (const s of genes.keys()) yield* this.#shifted(genes, s);
    yield* this.#together(genes);
    for (const s of genes.keys()) yield* this.#relaid(genes, s);
    for (const s of genes.keys()) yield* this.#split(genes, s);
    return undefined;
  }

  /** The states after each stage and after delivery, as far as those of `before` are the same; undefined when it does not fit, or is not below `bound`. */
  #walk(genes: readonly Gene[], before: readonly State[], bound: number): State[] | undefined {
    const way: State[] = [];
    let state = this.#states.first();
    let from = 0;
    for (const { end, layout } of genes) {
      const cell = this.#cells.one(from, end, layout);
      if (cell === undefined) {
        this.#effort--;
        return undefined;
      }
      const known = before[way.length];
      const same = known?.cell === cell && known.before === (way.at(-1) ?? known.before);
      const next = same ? known : this.#extended(state, cell, bound);
      if (next === undefined) return undefined;
      way.push(next);
      state = next;
      from = end;
    }
    const last = this.#states.deliver(state, bound);
    return last === undefined ? undefined : [...way, last];
  }

  #extended(state: State, cell: Cell, bound: number): State | undefined {
    this.#effort -= cell.parts.length + this.#cells.crossing(state.cell, cell).flows.length;
    return this.#states.extend(state, cell, bound);
  }

  /** Stage `s` and the next in one, or the boundary between them elsewhere, nearest first. */
  *#shifted(genes: readonly Gene[], s: number): Generator<readonly Gene[]> {
    const [gene, after] = genes.slice(s, s + 2);
    if (gene === undefined || after === undefined) return;
    const { end, layout } = gene;
    for (const kept of new Set([layout, after.layout])) yield genes.toSpliced(s, 2, { end: after.end, layout: kept });
    const from = genes[s - 1]?.end ?? 0;
    const ends = Array.from({ length: after.end - from - 1 }, (_, i) => from + 1 + i).filter((other) => other !== end);
    for (const other of ends.sort((a, b) => Math.abs(a - end) - Math.abs(b - end))) yield genes.with(s, { end: other, layout });
  }

  *#relaid(genes: readonly Gene[], s: number): Generator<readonly Gene[]> {
    const gene = genes[s];
    if (gene === undefined) return;
    for (const layout of this.#layouts.keys()) if (layout !== gene.layout) yield genes.with(s, { ...gene, layout });
  }

  *#split(genes: readonly Gene[], s: number): Generator<readonly Gene[]> {
    const gene = genes[s];
    if (gene === undefined) return;
    for (let middle = (genes[s - 1]?.end ?? 0) + 1; middle < gene.end; middle++) {
      for (const layout of this.#layouts.keys()) {
        yield genes.toSpliced(s, 1, { end: middle, layout }, gene);
        if (layout !== gene.layout) yield genes.toSpliced(s, 1, { ...gene, end: middle }, { ...gene, layout });
      }
    }
  }

  /** Bands stay where they are when all stages move to another team at once. */
  *#together(genes: readonly Gene[]): Generator<readonly Gene[]> {
    const sizeOf = (layout: number): number => this.#layouts[layout]?.shares.length ?? 1;
    const used = new Set(genes.map(({ layout }) => sizeOf(layout)).filter((size) => size > 1));
    for (const old of used) {
      for (const size of new Set([...this.#layouts.keys()].map(sizeOf))) {
        if (size < 2 || size === old) continue;
        yield genes.map((gene) => {
          const own = this.#layouts[gene.layout];
          if (own === undefined || own.shares.length !== old) return gene;
          const layout = this.#layouts.findIndex(({ cut, shares }) => cut === own.cut && shares.length === size);
          return layout < 0 ? gene : { ...gene, layout };
        });
      }
    }
  }

  #add(layout: Layout): number {
    const key = JSON.stringify(layout);
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    this.#indices.set(key, this.#layouts.length);
    return this.#layouts.push(layout) - 1;
  }

  #genes({ stages, cut }: PlanDraft): Gene[] | undefined {
    const { devices, facts } = this.#problem;
    const index = new Map(devices.map(({ agent }, d) => [agent, d]));
    const blockAt = new Map(facts.blocks.map((block, b) => [block.nodes[1], b + 1]));
    const genes: Gene[] = [];
    for (const [s, { spec, agents }] of stages.entries()) {
      const end = blockAt.get(spec.nodes[1]);
      // Parts that are empty were dropped.
      const kept = cut.stages[s]?.partShares ?? [];
      const seats = kept.map((share) => index.get(agents[0]?.[share] ?? '') ?? -1);
      if (end === undefined || agents.length !== 1 || (spec.redundancy ?? 0) > 0 || seats.includes(-1)) return undefined;
      const shares = kept.map((share) => spec.shares[share] ?? 0);
      const total = shares.reduce((sum, share) => sum + share, 0);
      genes.push({ end, layout: this.#add({ cut: spec.cut, shares: shares.map((share) => share / total), devices: [seats] }) });
    }
    return genes;
  }
}

function sharesOf(devices: readonly Device[]): number[] {
  const speeds = devices.map((device) => device.macsPerSecond / slowdown(device));
  const total = speeds.reduce((sum, speed) => sum + speed, 0);
  return speeds.map((speed) => speed / total);
}
