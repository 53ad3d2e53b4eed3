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
/** Quicker ones came out of a buffer rather than over the link, or waited for a CPU quota (handed out every 10 ms or so) longer than for the link. */
const LEAST_MS = 20;
/** A message still on its way may overlap one that is here: wait this long before judging. */
const SETTLE_MS = 1000;
/** Of so many messages the median. */
const KEPT = 9;
const MOST_WAITING = 256;

export class ReceiveMeter {
  #waiting: Arrival[] = [];
  readonly #rates = new Map<string, { readonly kept: number[]; samples: number }>();

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

  /** `bytesPerSecond` 0 = nothing known yet. */
  read(peer: string, nowMs: number): { readonly bytesPerSecond: number; readonly samples: number } {
    const settled = this.#waiting.filter((arrival) => nowMs - arrival.endMs >= SETTLE_MS);
    if (settled.length > 0) {
      this.#waiting = this.#waiting.filter((arrival) => nowMs - arrival.endMs < SETTLE_MS);
      this.#judge(settled);
    }
    const known = this.#rates.get(peer);
    if (known === undefined) return { bytesPerSecond: 0, samples: 0 };
    const sorted = [...known.kept].sort((a, b) => a - b);
    return { bytesPerSecond: sorted[Math.floor((sorted.length - 1) / 2)] ?? 0, samples: known.samples };
  }

  forget(peer: string): void {
    this.#rates.delete(peer);
  }

  #judge(arrivals: readonly Arrival[]): void {
    for (const { peer, bytes, startMs, endMs, shared } of arrivals) {
      if (shared || endMs - startMs < LEAST_MS) continue;
      const known = this.#rates.get(peer) ?? { kept: [], samples: 0 };
      this.#rates.set(peer, known);
      known.samples++;
      known.kept.push((bytes / (endMs - startMs)) * 1000);
      if (known.kept.length > KEPT) known.kept.shift();
    }
  }
}
