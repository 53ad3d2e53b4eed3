/**
 * Search over all plans made of cells (cells.ts), for problems small enough to look at all of it. Blocks are done in order; a state is what matters of the
 * stages so far (states.ts): loads, memory, and when what becomes free. Three things are dropped, and none of them can lose the best plan: states that cannot
 * beat `bound` any more, states that are no better in anything than another whose output lies in the same place, and all but one of those that differ only in
 * which of several equal devices they use. So the answer is the best plan of these cells, unless more states are left than `width`: then `complete` is false.
 */
import { type Cell, Cells, type Layout } from './cells.js';
import { classKeys, type PlanProblem, type SeatedStage } from './problem.js';
import { type State, States } from './states.js';

export interface ExactLimits {
  /** Plans no better than this are not wanted: ms, or ms per frame. */
  readonly bound: number;
  readonly finalists: number;
  /** States kept at each number of blocks. */
  readonly width: number;
  /** Stages that may be priced; then only few states are followed further. */
  readonly effort: number;
  /** A state within this of another in everything, relative to `bound`, is dropped for it. 0 = lossless. */
  readonly slack?: number;
}

export interface ExactAnswer {
  /** Best first, by the incremental costs. */
  readonly plans: readonly { readonly stages: readonly SeatedStage[]; readonly value: number }[];
  readonly complete: boolean;
  readonly priced: number;
}

export function exact(problem: PlanProblem, layouts: readonly Layout[], limits: ExactLimits): ExactAnswer {
  return new Exact(problem, layouts, limits).run();
}

/** Where not all are kept anyway, a state is compared with so many others of its layout: comparing each with each takes longer than following some in vain. */
const COMPARED = 40;
/** Followed after the effort is spent. */
const NARROW = 30;

class Exact {
  readonly #limits: ExactLimits;
  readonly #cells: Cells;
  readonly #states: States;
  /** Of each device, in the order of the problem: equal ones have equal keys. */
  readonly #classes: readonly string[];
  readonly #blocks: number;
  #priced = 0;
  #complete = true;

  constructor(problem: PlanProblem, layouts: readonly Layout[], limits: ExactLimits) {
    this.#limits = limits;
    this.#cells = new Cells(problem, layouts);
    this.#states = new States(problem, this.#cells);
    this.#classes = classKeys(problem.devices, problem.links);
    this.#blocks = problem.facts.blocks.length;
  }

  run(): ExactAnswer {
    const count = this.#blocks;
    const states: State[][] = Array.from({ length: count + 1 }, () => []);
    states[0]?.push(this.#states.first());
    let bound = this.#limits.bound;
    const finished: State[] = [];
    for (let done = 0; done < count; done++) {
      const kept = this.#kept(states[done] ?? [], this.#priced > this.#limits.effort ? NARROW : this.#limits.width);
      states[done] = [];
      for (const state of kept) {
        if (state.value >= bound) continue;
        for (let end = done + 1; end <= count; end++) {
          for (const cell of this.#cells.at(done, end)) {
            if (this.#redundant(state, cell)) continue;
            this.#priced++;
            const next = this.#states.extend(state, cell, bound);
            if (next === undefined) continue;
            if (end < count) {
              states[end]?.push(next);
              continue;
            }
            const delivered = this.#states.deliver(next, bound);
            if (delivered === undefined) continue;
            finished.push(delivered);
            finished.sort((a, b) => a.value - b.value);
            if (finished.length > this.#limits.finalists) finished.pop();
            // What is better than the worst finalist stays in the race.
            if (finished.length === this.#limits.finalists) bound = Math.min(bound, finished.at(-1)?.value ?? bound);
          }
        }
        for (let end = done + 1; end < count; end++) {
          const list = states[end] ?? [];
          if (list.length > 8 * this.#limits.width) states[end] = this.#kept(list, 2 * this.#limits.width);
        }
        if (this.#priced > this.#limits.effort && kept.indexOf(state) >= NARROW) {
          this.#complete = false;
          break;
        }
      }
    }
    return {
      plans: finished.map((state) => ({ stages: stagesOf(state), value: state.value })),
      complete: this.#complete,
      priced: this.#priced,
    };
  }

  /**
   * Of devices that are equal in themselves and in all that was done so far, only the first ones are tried: the others give the same plans under other names.
   * (Equal devices stand beside each other and parts come in the order of the devices, so taking one for another is a mere renaming.)
   */
  #redundant(state: State, cell: Cell): boolean {
    const n = this.#classes.length;
    const used = cell.stage.agents.length > 1 ? cell.seats.flat() : (cell.seats[0] ?? []);
    for (let j = 1; j < n; j++) {
      const position = used.indexOf(j);
      if (position < 0) continue;
      for (let i = 0; i < j; i++) {
        if (this.#classes[i] !== this.#classes[j]) continue;
        const other = used.indexOf(i);
        if (other >= 0 && other < position) continue;
        if (this.#states.alike(state, i, j)) return true;
      }
    }
    return false;
  }

  /**
   * What no other is better than in everything. Of more than `width`, half are the best by value; the others come in turn from each layout, as the best so far
   * may have taken memory or devices that later blocks need.
   */
  #kept(states: readonly State[], width: number): State[] {
    const ranked = [...states].sort((a, b) => a.value - b.value);
    // Where not all can be kept, those first that leave room for every block to come.
    const roomy = Number.isFinite(width) && this.#states.limited ? ranked.filter((state) => this.#states.leavesRoom(state)) : ranked;
    const sorted = roomy.length < width ? ranked : roomy;
    const byPlace = new Map<number, State[]>();
    const slack = (this.#limits.slack ?? 0) * (Number.isFinite(this.#limits.bound) ? this.#limits.bound : 0);
    const kept: State[] = [];
    for (const state of sorted) {
      const place = state.cell?.layout ?? -1;
      const rivals = byPlace.get(place) ?? [];
      byPlace.set(place, rivals);
      if (this.#dominated(state, rivals, slack, Number.isFinite(width) ? COMPARED : rivals.length)) continue;
      rivals.push(state);
      kept.push(state);
      if (kept.length >= 2 * width) break;
    }
    if (kept.length <= width) return kept;
    this.#complete = false;
    const chosen = new Set(kept.slice(0, Math.ceil(width / 2)));
    for (let rank = 0; chosen.size < width; rank++) {
      for (const rivals of byPlace.values()) {
        const state = rivals[rank];
        if (state !== undefined && chosen.size < width) chosen.add(state);
      }
    }
    return [...chosen].sort((a, b) => a.value - b.value);
  }

  /** By one of the first `among` rivals. */
  #dominated(state: State, rivals: readonly State[], slack: number, among: number): boolean {
    for (let i = 0; i < Math.min(among, rivals.length); i++) {
      const rival = rivals[i];
      if (rival !== undefined && this.#states.dominates(rival, state, slack)) return true;
    }
    return false;
  }
}

function stagesOf(state: State): SeatedStage[] {
  const stages: SeatedStage[] = [];
  for (let at: State | undefined = state; at !== undefined; at = at.before) if (at.cell !== undefined) stages.unshift(at.cell.stage);
  return stages;
}
