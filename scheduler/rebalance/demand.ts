/** What the clients of one deployment ask for: frames per second, and whether more come than are served. Changes only by `observe`; no clock. */

export interface DemandSample {
  /** Frames that arrived since the deployment was made. */
  readonly submitted: number;
  /** Frames that wait to be admitted now. */
  readonly queued: number;
}

/** Time constants of the rate and of the backlog: a burst of a second or two moves neither far. */
const RATE_MS = 10_000;
const BACKLOG_MS = 5000;
/** Of the last seconds, the part during which frames waited: from here on a deployment is pressed, and below the other it is not any more. */
const PRESSED_FROM = 0.8;
const PRESSED_UNTIL = 0.2;

export class DemandMeter {
  #last: { readonly submitted: number; readonly atMs: number } | undefined;
  #rate = 0;
  #backlog = 0;
  #pressed = false;
  #sinceMs = 0;

  observe({ submitted, queued }: DemandSample, nowMs: number): void {
    const last = this.#last;
    this.#last = { submitted, atMs: nowMs };
    if (last === undefined) {
      this.#sinceMs = nowMs;
      return;
    }
    const passedMs = nowMs - last.atMs;
    // A counter that went back belongs to a deployment of the same name that was made anew.
    if (!(passedMs > 0) || submitted < last.submitted) return;
    const keptRate = Math.exp(-passedMs / RATE_MS);
    this.#rate = this.#rate * keptRate + ((submitted - last.submitted) / passedMs) * 1000 * (1 - keptRate);
    const kept = Math.exp(-passedMs / BACKLOG_MS);
    this.#backlog = this.#backlog * kept + (queued > 0 ? 1 - kept : 0);
    if (this.#backlog >= PRESSED_FROM) this.#pressed = true;
    else if (this.#backlog <= PRESSED_UNTIL) this.#pressed = false;
  }

  /** Frames per second offered; 0 before the second sample. What began a moment ago counts in full. */
  ratePerSecond(nowMs: number): number {
    const full = 1 - Math.exp(-Math.max(0, nowMs - this.#sinceMs) / RATE_MS);
    return full > 0 ? this.#rate / full : 0;
  }

  /** Frames have waited nearly all the time for some eight seconds, and not yet ceased to. */
  get pressed(): boolean {
    return this.#pressed;
  }
}
