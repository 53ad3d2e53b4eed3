/**
 * How fast large messages came in, by peer: what live traffic tells of a link. A message counts only when no other large one was coming in at the same time (they
 * would have shared this end's link), and when it took long enough to be timed. That another receiver shared the sender's link cannot be seen from here. Pure.
 */

interface Arrival {
  readonly peer: string;
  readonly bytes: number;
  readonly startMs: number;
  readonly endMs: number;
  shared: boolean;
}

/** Smaller messages sit in one buffer of the kernel. */
const LEAST_BYTES = 64 * 1024;
/** Quicker ones came out of a buffer rather than over the link. */
const LEAST_MS = 20;
/** Or waited for a turn of a CPU quota longer than for the link: what takes so many turns is off by a fourth at most. */
const LEAST_TURNS = 4;
/** A message still on its way may overlap one that is here: wait this long before judging. */
const SETTLE_MS = 1000;
/** Of so many messages the median. */
const KEPT = 9;
const MOST_WAITING = 256;
/** The rate of a message that was too quick to be timed. */
const QUICK = Number.POSITIVE_INFINITY;

export class ReceiveMeter {
  #waiting: Arrival[] = [];
  readonly #rates = new Map<string, { readonly kept: number[]; samples: number }>();
  readonly #leastMs: number;

  /** `turnMs`: from one turn of this process's CPU quota to the next; 0 = it has none. */
  constructor(turnMs = 0) {
    this.#leastMs = Math.max(LEAST_MS, LEAST_TURNS * turnMs);
  }

  /** A message is here: its first bytes came at `startMs`. */
  add(peer: string, bytes: number, startMs: number, endMs: number): void {
    if (peer === '' || bytes < LEAST_BYTES) return;
    const arrival: Arrival = { peer, bytes, startMs, endMs, shared: false };
    for (const other of this.#waiting) {
      if (other.endMs <= startMs) continue;
      other.shared = true;
      arrival.shared = true;
    }
    this.#waiting.push(arrival);
    if (this.#waiting.length > MOST_WAITING) this.#judge(this.#waiting.splice(0, MOST_WAITING / 2));
  }

  /** `bytesPerSecond` 0 = nothing known yet, or messages are too quick to tell. `samples`: those that could be timed. */
  read(peer: string, nowMs: number): { readonly bytesPerSecond: number; readonly samples: number } {
    const settled = this.#waiting.filter((arrival) => nowMs - arrival.endMs >= SETTLE_MS);
    if (settled.length > 0) {
      this.#waiting = this.#waiting.filter((arrival) => nowMs - arrival.endMs < SETTLE_MS);
      this.#judge(settled);
    }
    const known = this.#rates.get(peer);
    if (known === undefined) return { bytesPerSecond: 0, samples: 0 };
    const sorted = [...known.kept].sort((a, b) => a - b);
    const middle = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
    return { bytesPerSecond: middle === QUICK ? 0 : middle, samples: known.samples };
  }

  forget(peer: string): void {
    this.#rates.delete(peer);
  }

  #judge(arrivals: readonly Arrival[]): void {
    for (const { peer, bytes, startMs, endMs, shared } of arrivals) {
      if (shared) continue;
      const known = this.#rates.get(peer) ?? { kept: [], samples: 0 };
      this.#rates.set(peer, known);
      const tookMs = endMs - startMs;
      const isQuick = tookMs < this.#leastMs;
      if (!isQuick) known.samples++;
      known.kept.push(isQuick ? QUICK : (bytes / tookMs) * 1000);
      if (known.kept.length > KEPT) known.kept.shift();
    }
  }
}
