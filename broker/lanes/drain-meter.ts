/**
 * How fast a connection carries what waits for it, while something does: told in the middle of a transfer, which on a slow link may take longer than anybody waits.
 * Fed with looks at the connection a few times a second. The time between two looks counts when bytes that the kernel had at the first were not all acknowledged at the
 * second: a fast link has carried them long since, unless it is full. Pure.
 */

/** What the kernel was given of the connection's bytes, and what of it the other machine had acknowledged. */
interface Look {
  readonly given: number;
  readonly taken: number;
  readonly atMs: number;
}

interface Interval {
  readonly endMs: number;
  readonly ms: number;
  readonly bytes: number;
}

/** What was seen counts for so long. */
const SPAN_MS = 3000;
/** Looks farther apart (this process stood still) say nothing of what was between them. */
const MOST_APART_MS = 1000;

export interface Draining {
  /** Of the last three seconds, how long bytes waited to be acknowledged; 0 = they did not, or it cannot be seen. */
  readonly busyMs: number;
  /** Acknowledged per second in that time. */
  readonly bytesPerSecond: number;
}

export class DrainMeter {
  #last: Look | undefined;
  #busy: Interval[] = [];

  /** Looks less than `leastMs` apart are one: what takes a round trip to be acknowledged does not wait. */
  look(given: number, taken: number, atMs: number, leastMs: number): void {
    const before = this.#last;
    if (before !== undefined && atMs - before.atMs < leastMs) return;
    this.#last = { given, taken, atMs };
    this.#busy = this.#busy.filter(({ endMs }) => atMs - endMs <= SPAN_MS);
    if (before === undefined || taken >= before.given || atMs - before.atMs > MOST_APART_MS) return;
    this.#busy.push({ endMs: atMs, ms: atMs - before.atMs, bytes: Math.max(0, taken - before.taken) });
  }

  /** There was a look since the last rest. */
  get isGoing(): boolean {
    return this.#last !== undefined;
  }

  /** Nothing waits, or nobody knows: what comes next is another matter. */
  rest(): void {
    this.#last = undefined;
  }

  read(nowMs: number): Draining {
    const late = this.#busy.filter(({ endMs }) => nowMs - endMs <= SPAN_MS);
    const busyMs = late.reduce((sum, { ms }) => sum + ms, 0);
    const bytes = late.reduce((sum, one) => sum + one.bytes, 0);
    return { busyMs, bytesPerSecond: busyMs === 0 ? 0 : (1000 * bytes) / busyMs };
  }
}
