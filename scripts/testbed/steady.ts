/**
 * Throughput of a closed loop: so many frames are outstanding, and each result lets the next frame in. Pure.
 *
 * At first frames are spread evenly, and whoever is quick answers quickly; only when those who are slow have all the frames waiting for them that they will ever have
 * does the loop do what it does for hours. Round robin over devices of speeds 1:2:4 gives more than twice its true rate until then. What shows it from outside: the
 * longest latency grows no more. From then on results come in a rhythm, that of the slowest seat; over few periods, first and last result say little of the rate (one of six
 * results that come together is a sixth of a period), so a line is laid through all of them: the omega counter of Rubiola et al., "The Omega Counter, a Frequency Counter
 * Based on the Linear Regression" (2016).
 */

/** Of each result, in the order they came: when it came, from the start of the load, and after how long. */
export interface Results {
  readonly endedAtMs: readonly number[];
  readonly latenciesMs: readonly number[];
}

/** What a count must hold at least. */
export interface Enough {
  readonly frames: number;
  readonly ms: number;
}

export interface SteadyCount {
  /** Results `[from, to]` are counted, numbers from 0. */
  readonly from: number;
  readonly to: number;
  readonly fps: number;
  readonly isEnough: boolean;
}

/** Steps of the slowest seat that a count is to hold: with fewer, its rhythm shows in the rate (2 % at eight). */
export const STEPS = 8;
/** A latency within this part of the longest is one of the longest: no two frames take equally long. */
const AS_LONG = 0.9;
/** A count is to take so many times the longest latency: where slow devices are nearly as quick as the others, it grows slowly. */
const LONGEST_LATENCIES = 3;

/** Counts the results that have come steadily, while frames still follow: what is outstanding at the end is computed while some have nothing to do any more. */
export function steadyCount({ endedAtMs, latenciesMs }: Results, enough: Enough): SteadyCount {
  const to = endedAtMs.length - 1;
  const longest = latenciesMs.reduce((most, ms) => Math.max(most, ms), 0);
  const from = Math.max(
    0,
    latenciesMs.findIndex((ms) => ms >= AS_LONG * longest),
  );
  const ms = (endedAtMs[to] ?? 0) - (endedAtMs[from] ?? 0);
  return {
    from,
    to,
    fps: slope(endedAtMs.slice(from, to + 1)) * 1000,
    isEnough: to - from >= enough.frames && ms >= Math.max(enough.ms, LONGEST_LATENCIES * longest),
  };
}

/** Where the time was over before: the later half, which is nearest to it. */
export function laterHalf({ endedAtMs }: Pick<Results, 'endedAtMs'>): SteadyCount {
  const from = Math.floor(endedAtMs.length / 2);
  return { from, to: endedAtMs.length - 1, fps: slope(endedAtMs.slice(from)) * 1000, isEnough: false };
}

/** Of the least squares line of number over time; NaN of fewer than two times. */
function slope(times: readonly number[]): number {
  const middle = (times.length - 1) / 2;
  const mean = times.reduce((sum, ms) => sum + ms, 0) / times.length;
  const [both, own] = times.reduce(([a, b], ms, i) => [a + (ms - mean) * (i - middle), b + (ms - mean) ** 2], [0, 0]);
  return own > 0 ? both / own : Number.NaN;
}
