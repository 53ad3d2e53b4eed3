/**
 * How long computing takes at least where nobody measured: each node is limited by its MACs or by the bytes that it moves, whichever takes longer, and nodes run one after
 * another. So a fully connected layer that reads 400 MB is not hidden behind convolutions beside it. Nodes of about the same MACs for each byte are limited by the same thing: they are
 * added up on one rung of a ladder, and a ladder is all that is kept of them.
 */

/** Rungs of 1/2, 1, 2, ... 32 MACs for each byte; below and above all are alike (no device is limited by the bytes of the uppermost, or by the MACs of the lowest). */
const RUNGS = 8;
const LOWEST = -2;

/** MACs and bytes of each rung in turn. */
export type Ladder = readonly number[];

/** Which rung a node stands on, by what the whole of it does: its parts stay there, so that ladders of parts of any size can be compared. */
export function rungOf(macs: number, bytes: number): number {
  if (!(macs > 0)) return 0;
  return Math.max(0, Math.min(RUNGS - 1, Math.floor(Math.log2(macs / Math.max(1, bytes))) - LOWEST));
}

export function emptyLadder(): number[] {
  return new Array<number>(2 * RUNGS).fill(0);
}

export function addTo(ladder: number[], rung: number, macs: number, bytes: number): void {
  ladder[2 * rung] = (ladder[2 * rung] ?? 0) + macs;
  ladder[2 * rung + 1] = (ladder[2 * rung + 1] ?? 0) + bytes;
}

/** Figure by figure, of two ladders. */
export function mixed(a: Ladder, b: Ladder, mix: (a: number, b: number) => number): Ladder {
  return a.map((value, i) => mix(value, b[i] ?? 0));
}

export function ladderMs(ladder: Ladder, macsPerSecond: number, bytesPerSecond: number): number {
  let seconds = 0;
  for (let i = 0; i < ladder.length; i += 2) seconds += Math.max((ladder[i] ?? 0) / macsPerSecond, (ladder[i + 1] ?? 0) / bytesPerSecond);
  return 1000 * seconds;
}
