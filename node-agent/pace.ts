/**
 * How fast work may go on that nobody waits for: it is under way for a share of the time only. Measured by how long each step took, so it takes the same share
 * of a fast link and of a slow one, and of a processor that is throttled. Pure but for the clock it is given.
 */

/** No pause is longer, ms: a step that took a minute because the broker was away says nothing of the link. */
const MOST_MS = 5000;

export class Pace {
  private freeAtMs = Number.NEGATIVE_INFINITY;

  /** `share`: of the time, above 0 and at most 1; asked after each step. */
  constructor(
    private readonly share: () => number,
    private readonly nowMs: () => number,
  ) {}

  /** A step has ended that took so long, ms. */
  took(ms: number): void {
    this.freeAtMs = this.nowMs() + Math.min(MOST_MS, ms * (1 / this.share() - 1));
  }

  /** Until the next step may begin, ms; 0 = now. */
  get waitMs(): number {
    return Math.max(0, this.freeAtMs - this.nowMs());
  }
}
