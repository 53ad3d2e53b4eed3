/**
 * Whether another plan is worth moving to. Pure: what a plan is worth is a rate (frames per second, or frames one after another per second), so a gain is a ratio,
 * and what a move saves or costs is time: of the horizon, the part in which the same frames would be done sooner; of the move, the time that is lost to it.
 */
import type { Estimate } from '../planners/estimate.js';
import type { Objective } from '../planners/problem.js';

export interface Want {
  readonly objective: Objective;
  readonly maxLatencyMs?: number;
  /** More frames come than are served: then their number counts, whatever the objective, since each waits for those before it (Little's law). */
  readonly pressed: boolean;
}

/** Frames per second; the larger the better. A plan that misses its bound of latency is worth less, the farther it does. */
export function worthOf({ latencyMs, fps }: Pick<Estimate, 'latencyMs' | 'fps'>, { objective, maxLatencyMs, pressed }: Want): number {
  const rate = objective === 'throughput' || pressed ? fps : 1000 / latencyMs;
  const late = maxLatencyMs === undefined ? 1 : Math.max(1, latencyMs / maxLatencyMs);
  return rate / late;
}

export interface MoveCost {
  /** Until the new plan serves: fetching and loading. */
  readonly prepareMs: number;
  /** No frame runs. */
  readonly pauseMs: number;
  readonly bytes: number;
}

export interface Choice {
  /** What the plan in force is worth by what is known now, and what the other would be. */
  readonly current: number;
  readonly candidate: number;
  readonly cost: MoveCost;
  /** Expected time until the next change. */
  readonly horizonMs: number;
  /** Moves that nobody asked for in the last minutes, see `Moves`. */
  readonly recent: number;
}

export interface Decision {
  readonly move: boolean;
  readonly why: string;
}

/** As for `auto`: what is predicted to be better by less than this may not be. */
export const LEAST_GAIN = 0.1;
/** While a plan is prepared, fetching takes bandwidth and loading CPU from the frames that run: this part of them. */
const DISTURBANCE = 0.5;
/** A move must save so many times what it costs: the horizon is a guess. */
const PAYS = 2;

/** A gain below what the last moves have not settled is noise: each of them doubles what the next one has to promise. */
export function decide({ current, candidate, cost, horizonMs, recent }: Choice): Decision {
  const gain = candidate / current - 1;
  const needed = LEAST_GAIN * 2 ** recent;
  const percent = (part: number): string => `${(100 * part).toFixed(0)} %`;
  if (!(gain >= needed)) {
    const after = recent === 0 ? '' : ` after ${recent} move${recent === 1 ? '' : 's'} in a short time`;
    return { move: false, why: `it gains ${percent(Math.max(0, gain))}; ${percent(needed)} are needed${after}` };
  }
  const savedMs = horizonMs * (1 - current / candidate);
  const costMs = cost.pauseMs + DISTURBANCE * cost.prepareMs;
  const sums = `it saves ${seconds(savedMs)} of the next ${seconds(horizonMs)} and costs ${seconds(costMs)}`;
  if (savedMs < PAYS * costMs) return { move: false, why: `${sums}: too little` };
  return { move: true, why: `${Number.isFinite(gain) ? `${percent(gain)} better` : 'it works at all'}; ${sums}` };
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
}

/** For so long a move makes the next one harder. */
const REMEMBERED_MS = 600_000;
/** The expected time until the next change: never below, never above. */
const LEAST_HORIZON_MS = 60_000;
export const USUAL_HORIZON_MS = 600_000;
const MOST_CHANGES = 16;

/** When one deployment's plan changed: how long the next one may be expected to last, and how many moves are still to prove themselves. */
export class Moves {
  readonly #changes: number[] = [];
  readonly #own: { readonly atMs: number; readonly left: string }[] = [];

  /** `own`: nobody asked for it, and no agent was lost or left; `left`: the key of the plan that was left for it. */
  add(nowMs: number, own: boolean, left: string): void {
    this.#changes.push(nowMs);
    if (this.#changes.length > MOST_CHANGES) this.#changes.shift();
    if (own) this.#own.push({ atMs: nowMs, left });
    if (this.#own.length > MOST_CHANGES) this.#own.shift();
  }

  /** Going back to a plan that was left counts as one more: it was not good enough then. */
  recent(nowMs: number, to = ''): number {
    const late = this.#own.filter(({ atMs }) => nowMs - atMs < REMEMBERED_MS);
    return late.length + (late.some(({ left }) => left === to) ? 1 : 0);
  }

  /** The mean time between changes of late, with one change that is yet to come; where there were few, the usual. */
  horizonMs(nowMs: number): number {
    const late = this.#changes.filter((ms) => nowMs - ms < 6 * USUAL_HORIZON_MS);
    const first = late[0];
    if (first === undefined || late.length < 3) return USUAL_HORIZON_MS;
    return Math.min(USUAL_HORIZON_MS, Math.max(LEAST_HORIZON_MS, (nowMs - first) / late.length));
  }
}
