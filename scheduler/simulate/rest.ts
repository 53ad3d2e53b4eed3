/**
 * How far a device with a CPU quota is ahead of long work, as `busy` of planners/cost.ts reckons it: that grows while it rests, up to one period, and is used up at
 * full speed.
 */
import type { CpuQuota } from '../planners/problem.js';
import type { Clock } from './events.js';

export class Rest {
  readonly #clock: Clock;
  readonly #quota: CpuQuota;
  readonly #tired: () => void;
  #aheadMs: number;
  #sinceMs = 0;
  #working = false;
  /** An end that was foreseen before the latest change is void. */
  #version = 0;

  /** `tired`: from now on it works at the rate of its quota. */
  constructor(clock: Clock, quota: CpuQuota, tired: () => void) {
    this.#clock = clock;
    this.#quota = quota;
    this.#tired = tired;
    this.#aheadMs = quota.periodMs;
  }

  /** How much faster than long work it works now. */
  get factor(): number {
    return this.#aheadMs > 0 ? 1 / this.#quota.fullSpeed : 1;
  }

  /** It has something to do now, or has nothing any more. */
  set(working: boolean): void {
    if (working === this.#working) return;
    const { periodMs, fullSpeed } = this.#quota;
    const passedMs = this.#clock.nowMs - this.#sinceMs;
    // In each ms at full speed 1 / fullSpeed ms of long work are done.
    const gain = 1 / fullSpeed - 1;
    this.#aheadMs = working ? Math.min(periodMs, this.#aheadMs + passedMs) : Math.max(0, this.#aheadMs - passedMs * gain);
    this.#sinceMs = this.#clock.nowMs;
    this.#working = working;
    const version = ++this.#version;
    if (!working || this.#aheadMs === 0 || gain <= 0) return;
    this.#clock.after(this.#aheadMs / gain, () => {
      if (version !== this.#version) return;
      this.#aheadMs = 0;
      this.#sinceMs = this.#clock.nowMs;
      this.#tired();
    });
  }
}
