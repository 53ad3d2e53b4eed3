/** How long the runs of the last seconds took, from complete inputs to outputs. The clock is an argument; memory is bounded. */
const KEPT = 512;
const WINDOW_MS = 10_000;

export class RunTimes {
  readonly #rows: { readonly ms: number; readonly atMs: number }[] = [];
  #next = 0;

  add(ms: number, atMs: number): void {
    this.#rows[this.#next] = { ms, atMs };
    this.#next = (this.#next + 1) % KEPT;
  }

  /** For each of `quantiles` (0 to 1) the time that such a part of the runs did not exceed, of the last 10 s and at most 512 runs; 0 when there was none. */
  read(quantiles: readonly number[], nowMs: number): number[] {
    const recent: number[] = [];
    for (const { ms, atMs } of this.#rows) if (nowMs - atMs <= WINDOW_MS) recent.push(ms);
    recent.sort((a, b) => a - b);
    return quantiles.map((q) => recent[Math.max(0, Math.ceil(q * recent.length) - 1)] ?? 0);
  }
}
