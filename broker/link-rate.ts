/**
 * From timed rounds of two sizes to what a link carries. Pure.
 *
 * A round takes the way there and back, whatever is fixed about it, its bytes over the link's rate, and what the processors at both ends are late: a CPU quota stops them for 8 of 10 ms, or
 * for 80 of 100. That is not the link's: planners count it with the processors. It only ever makes a round longer, so of several rounds of one size the quickest are
 * the link's. And what is fixed, or given away, as the burst that a shaper lets through after a pause, is in rounds of both sizes: their difference is bytes over rate.
 */

/** A round of so many bytes. */
export interface Round {
  readonly bytes: number;
  readonly tookMs: number;
}

/** With so many rounds of a size the second quickest counts: one may have found its bytes sent ahead. */
const SECOND_OF = 5;
/** What is fixed about a round, besides its way, is no more than this part of a large one: the noise of a small round makes no link quicker than that. */
const FIXED_PART = 0.25;

/** Bytes per second, of rounds with at least one byte. NaN of none. */
export function linkRate(rounds: readonly Round[], roundTripMs: number): number {
  const sizes = [...new Set(rounds.map(({ bytes }) => bytes))].sort((a, b) => a - b);
  const [large = Number.NaN] = sizes.slice(-1);
  const longMs = withoutWay(quick(rounds, large), roundTripMs);
  const [small = large] = sizes;
  if (small === large) return (large / longMs) * 1000;
  const shortMs = Math.min(Math.max(0, quick(rounds, small) - roundTripMs), longMs * Math.max(FIXED_PART, small / large));
  return ((large - small) / (longMs - shortMs)) * 1000;
}

/** The time that the bytes took: without the way there and back, but never less than a quarter of what was seen (the round trip has noise, too). */
function withoutWay(tookMs: number, roundTripMs: number): number {
  return Math.max(tookMs - roundTripMs, tookMs / 4);
}

function quick(rounds: readonly Round[], size: number): number {
  const sorted = rounds.flatMap(({ bytes, tookMs }) => (bytes === size ? [tookMs] : [])).sort((a, b) => a - b);
  return sorted[sorted.length >= SECOND_OF ? 1 : 0] ?? Number.NaN;
}
