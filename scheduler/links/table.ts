/**
 * What is known of the lanes between agents (and the dispatcher), one row a direction. Changes only by `measured`, `live` and `forget`; no clock, no I/O.
 *
 * A measurement sets a row. Live traffic moves it only where it says something: a message that came faster proves that the lane can do it; one that came
 * slower may only have shared the lane with others, so it makes the row doubtful (measured again before the next plan) and counts by itself only while nothing
 * better can be had.
 */
import { type ChairError, toChairError } from '../../broker/errors.js';
import { checkLink } from '../../broker/link-bounds.js';
import type { LinkMeasurement, LinkStatus } from '../../broker/messages.js';
import type { SavedLink } from './file.js';

export interface LinkEntry {
  readonly from: string;
  readonly to: string;
  /** `direct`, `relay`, `local`. */
  readonly lane: string;
  readonly bytesPerSecond: number;
  readonly latencyMs: number;
  /** Median deviation of the throughput / its median. */
  readonly spread: number;
  readonly source: 'measured' | 'live';
  readonly atMs: number;
  /** Live traffic was much slower than this row says: since then, and how fast. */
  readonly doubt: { readonly sinceMs: number; readonly bytesPerSecond: number } | undefined;
  /** What came last and was refused; '' when the last was good. */
  readonly problem: string;
}

/** What an end says about messages that came from a peer, and about the round trip of its keep-alive. 0 = nothing known. */
export interface LiveLink {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

/** Live throughput below this part of the known one is doubt, above its inverse is news. */
const DOUBT = 0.7;
const NEWS = 1.1;
/** A keep-alive is one message among others: only a latency that is clearly longer is news. A shorter one comes with the next measurement. */
const LATER = 2;
const LATER_MS = 2;
/** Weight of one health message. */
const LIVE_WEIGHT = 0.3;
/** A row is forgotten this long after anything was heard. */
const FORGET_MS = 24 * 3_600_000;
const MOST_ROWS = 50_000;

export const pairKey = (from: string, to: string): string => `${from}>${to}`;

export class LinkTable {
  readonly #rows = new Map<string, LinkEntry>();

  /** Throws LINK_IMPLAUSIBLE; the rows then keep what they had, and say so. */
  measured(from: string, measurement: LinkMeasurement, nowMs: number): void {
    const { peer, lane, roundTripMs, upBytesPerSecond, upSpread, downBytesPerSecond, downSpread } = measurement;
    const row = { lane, latencyMs: roundTripMs / 2, source: 'measured' as const, atMs: nowMs, doubt: undefined, problem: '' };
    this.#put({ ...row, from, to: peer, bytesPerSecond: upBytesPerSecond, spread: upSpread });
    this.#put({ ...row, from: peer, to: from, bytesPerSecond: downBytesPerSecond, spread: downSpread });
  }

  /** What `to` saw of messages from `from`. Throws LINK_IMPLAUSIBLE as `measured`. */
  live(from: string, to: string, { bytesPerSecond, roundTripMs }: LiveLink, nowMs: number): void {
    const known = this.#rows.get(pairKey(from, to));
    if (known === undefined) {
      // A round trip alone is no link.
      if (bytesPerSecond === 0 || roundTripMs === 0) return;
      const row = { from, to, lane: 'direct', bytesPerSecond, latencyMs: roundTripMs / 2, spread: 0, source: 'live' as const };
      this.#put({ ...row, atMs: nowMs, doubt: undefined, problem: '' });
      return;
    }
    const latencyMs =
      roundTripMs === 0 || roundTripMs / 2 < LATER * known.latencyMs + LATER_MS ? known.latencyMs : eased(known.latencyMs, roundTripMs / 2);
    const seen = bytesPerSecond === 0 ? known.bytesPerSecond : bytesPerSecond;
    this.#check(known, { bytesPerSecond: seen, latencyMs });
    const ratio = seen / known.bytesPerSecond;
    if (ratio > NEWS) {
      const raised = known.bytesPerSecond + LIVE_WEIGHT * (Math.min(seen, 2 * known.bytesPerSecond) - known.bytesPerSecond);
      this.#put({ ...known, bytesPerSecond: raised, latencyMs, source: 'live', atMs: nowMs, doubt: undefined, problem: '' });
    } else if (ratio < DOUBT && bytesPerSecond > 0) {
      const before = known.doubt?.bytesPerSecond ?? seen;
      const doubt = { sinceMs: known.doubt?.sinceMs ?? nowMs, bytesPerSecond: before + LIVE_WEIGHT * (seen - before) };
      this.#put({ ...known, latencyMs, doubt });
    } else this.#put({ ...known, latencyMs, doubt: bytesPerSecond > 0 ? undefined : known.doubt });
  }

  get(from: string, to: string): LinkEntry | undefined {
    return this.#rows.get(pairKey(from, to));
  }

  /** Who sends from `from` to `to` sees it carry so little, while more waits. */
  doubt(from: string, to: string, bytesPerSecond: number, nowMs: number): void {
    const known = this.#rows.get(pairKey(from, to));
    if (known === undefined || bytesPerSecond >= DOUBT * known.bytesPerSecond) return;
    this.#rows.set(pairKey(from, to), { ...known, doubt: { sinceMs: known.doubt?.sinceMs ?? nowMs, bytesPerSecond } });
  }

  /** The agent's link carries what it did: nothing is held against its rows. */
  trust(agent: string): void {
    for (const [key, row] of this.#rows) if (row.from === agent || row.to === agent) this.#rows.set(key, { ...row, doubt: undefined });
  }

  /** True when nothing better than what is here can be expected of a new measurement. */
  isFresh(a: string, b: string, nowMs: number, maxAgeMs: number): boolean {
    return [this.get(a, b), this.get(b, a)].every((row) => row !== undefined && row.doubt === undefined && nowMs - row.atMs <= maxAgeMs);
  }

  /** The agent is elsewhere now. */
  forget(agent: string): void {
    for (const [key, { from, to }] of this.#rows) if (from === agent || to === agent) this.#rows.delete(key);
  }

  all(): LinkEntry[] {
    return [...this.#rows.values()];
  }

  /** As it was known before a restart, at least `leastAgeMs` old: whoever plans takes it until it is measured again. What cannot be is left out. */
  restore(rows: readonly SavedLink[], nowMs: number, leastAgeMs: number): void {
    for (const { ageMs, ...row } of rows) {
      try {
        this.#put({ ...row, atMs: nowMs - Math.max(ageMs, leastAgeMs), doubt: undefined, problem: '' });
      } catch {
        // Said when it was measured, and it will be again.
      }
    }
  }

  /** For `restore`. */
  saved(nowMs: number): SavedLink[] {
    return this.all().map(({ from, to, lane, bytesPerSecond, latencyMs, spread, source, atMs }) => ({
      ...{ from, to, lane, bytesPerSecond, latencyMs, spread, source, ageMs: Math.max(0, nowMs - atMs) },
    }));
  }

  status(nowMs: number): LinkStatus[] {
    return this.all().map(({ from, to, lane, bytesPerSecond, latencyMs, spread, source, atMs, doubt, problem }) => ({
      ...{ from, to, lane, bytesPerSecond, latencyMs, spread, source, ageMs: Math.max(0, nowMs - atMs) },
      problem: problem !== '' || doubt === undefined ? problem : `live traffic came at ${mbps(doubt.bytesPerSecond)}`,
    }));
  }

  #put(row: LinkEntry): void {
    this.#check(this.#rows.get(pairKey(row.from, row.to)) ?? row, row);
    if (this.#rows.size >= MOST_ROWS) this.#forgetOld(row.atMs);
    this.#rows.set(pairKey(row.from, row.to), row);
  }

  #check(known: LinkEntry, link: { readonly bytesPerSecond: number; readonly latencyMs: number }): void {
    try {
      checkLink(`the link from ${known.from} to ${known.to}`, link);
    } catch (thrown) {
      const error: ChairError = toChairError(thrown);
      const key = pairKey(known.from, known.to);
      if (this.#rows.has(key)) this.#rows.set(key, { ...known, problem: `${error.code}: ${error.message}` });
      throw error;
    }
  }

  #forgetOld(nowMs: number): void {
    for (const [key, { atMs }] of this.#rows) if (nowMs - atMs > FORGET_MS) this.#rows.delete(key);
    const first = this.#rows.keys().next().value;
    if (this.#rows.size >= MOST_ROWS && first !== undefined) this.#rows.delete(first);
  }
}

function eased(from: number, to: number): number {
  return from + LIVE_WEIGHT * (to - from);
}

/** `94.1 Mbit/s`. */
export function mbps(bytesPerSecond: number): string {
  const mbit = (bytesPerSecond * 8) / 1e6;
  // Three digits: the next one is another with each measurement.
  if (mbit >= 999.5) return `${(mbit / 1000).toPrecision(3)} Gbit/s`;
  return `${mbit.toFixed(mbit >= 99.5 ? 0 : mbit >= 9.95 ? 1 : 2)} Mbit/s`;
}
