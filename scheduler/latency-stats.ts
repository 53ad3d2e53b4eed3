/** Latencies of the last frames and how many finish per second. The clock is an argument. */
const KEPT = 512;
const RATE_WINDOW_MS = 10_000;

export class LatencyStats {
  readonly #latenciesMs: number[] = [];
  readonly #finishedAtMs: number[] = [];
  #next = 0;
  #since: number | undefined;
  /** Asked for again and again while nothing finishes. */
  #sorted: readonly number[] | undefined;

  add(latencyMs: number, nowMs: number): void {
    this.#sorted = undefined;
    this.#since ??= nowMs - latencyMs;
    this.#latenciesMs[this.#next] = latencyMs;
    this.#finishedAtMs[this.#next] = nowMs;
    this.#next = (this.#next + 1) % KEPT;
  }

  /** The latency that the fraction `q` of the last frames did not exceed; 0 when there was none. */
  quantileMs(q: number): number {
    if (this.#latenciesMs.length === 0) return 0;
    this.#sorted ??= [...this.#latenciesMs].sort((a, b) => a - b);
    const sorted = this.#sorted;
    return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? 0;
  }

  /** Frames finished per second over the last 10 s (or since the first one, or over as many as are kept). */
  framesPerSecond(nowMs: number): number {
    if (this.#since === undefined) return 0;
    let from = Math.max(this.#since, nowMs - RATE_WINDOW_MS);
    if (this.#finishedAtMs.length === KEPT) from = Math.max(from, Math.min(...this.#finishedAtMs));
    const finished = this.#finishedAtMs.filter((at) => at > from).length;
    return finished / Math.max(0.001, (nowMs - from) / 1000);
  }
}
