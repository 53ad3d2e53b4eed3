/**
 * Links that carry a fraction of what is known of them while something waits for them: which agent is behind it, and when it may be counted on again. Pure.
 *
 * Who sends sees it in the middle of a transfer (`busyMs` of LaneHealth). Lanes that share what is known (the link of an end that sends to many, or gets from many;
 * the air) are not slow: together they carry it. One slow link is seen from many ends: whoever has most counterparts that it is slow with is
 * behind it. The dispatcher talks with everybody: a lane of its own that is slow alone is the other end's. A pair of agents alone leaves it open: then the
 * dispatcher looks at both. A single peer's word moves nobody.
 *
 * An agent is left alone for a while, longer each time that it comes to this (as agents that flap, registry-hold-down.ts); then its link is measured, and again, until it
 * carries a good part of what it did, or many times what it did when it was slow. When it does not for a minute, what was measured is what it is, and plans reckon with it.
 */
import { DISPATCHER } from '../../broker/topics.js';
import { HoldDown } from '../registry-hold-down.js';
import { mbps, pairKey } from './table.js';

/** What an end says of a lane to another one, and what is known of that link otherwise. */
export interface Busy {
  readonly to: string;
  readonly busyMs: number;
  readonly bytesPerSecond: number;
  /** 0 = nothing. */
  readonly knownBytesPerSecond: number;
}

export interface Speed {
  readonly upBytesPerSecond: number;
  readonly downBytesPerSecond: number;
}

export type SlowStep =
  /** Frames and seats go elsewhere. */
  | { readonly do: 'avoid'; readonly agent: string; readonly why: string }
  /** What is known of this link does not hold now. */
  | { readonly do: 'doubt'; readonly from: string; readonly to: string; readonly bytesPerSecond: number }
  /** Its link to the dispatcher is to be measured; tell `measured`. */
  | { readonly do: 'measure'; readonly agent: string }
  /** It may be counted on again. `as`: as before, or as slow as was measured. */
  | { readonly do: 'trust'; readonly agent: string; readonly as: 'before' | 'measured' };

interface Slow {
  readonly from: string;
  readonly to: string;
  readonly bytesPerSecond: number;
  readonly knownBytesPerSecond: number;
  readonly sinceMs: number;
  readonly atMs: number;
  /** A step has said so. */
  doubted: boolean;
}

interface Avoided {
  readonly sinceMs: number;
  /** What it carried at best when it was found to be slow. */
  readonly seenBytesPerSecond: number;
  measureAtMs: number;
  pauseMs: number;
  measuring: boolean;
}

/** By how many times a link is slower than known, and for how long of three seconds: less is the affair of plans, which see it, too. */
const FACTOR = 6;
const LASTS_MS = 1000;
/** A word counts so long; and so long it says something of who is behind it. */
const FRESH_MS = 2500;
const MEMORY_MS = 30_000;
/** A pair that nothing explains is looked at after so long, and so often at most. */
const OPEN_MS = 2000;
const LOOK_AGAIN_MS = 15_000;
/** Left alone at least so long; measured again after pauses that grow. */
const LEAST_HOLD_MS = 5000;
const PAUSE_GROWS = 1.5;
const MOST_PAUSE_MS = 30_000;
/** Measured again it must carry at least this part of what it did; or so many times what it did when it was slow: then what was measured is what is known of it. */
const RECOVERED = 1 / 3;
const BETTER = 4;
const TRUTH_MS = 60_000;
/** The link of an agent that nobody reports is not the reason for everything: of those that are ready, at most this part is avoided. */
const MOST_AVOIDED = 0.5;
const MOST_PAIRS = 5000;

export class SlowLinks {
  readonly #pairs = new Map<string, Slow>();
  readonly #avoided = new Map<string, Avoided>();
  readonly #looks = new Map<string, number>();
  readonly #holdDown: HoldDown;

  constructor(holdDown = new HoldDown({ baseMs: 2 * LEAST_HOLD_MS })) {
    this.#holdDown = holdDown;
  }

  /** All that an end says of its lanes now. */
  see(from: string, lanes: readonly Busy[], nowMs: number): void {
    for (const { to, busyMs, bytesPerSecond, knownBytesPerSecond } of lanes) {
      const key = pairKey(from, to);
      if (busyMs < LASTS_MS || bytesPerSecond * FACTOR >= knownBytesPerSecond || this.#pairs.size >= MOST_PAIRS) continue;
      const before = this.#pairs.get(key);
      const sinceMs = before !== undefined && nowMs - before.atMs <= FRESH_MS ? before.sinceMs : nowMs;
      this.#pairs.set(key, { from, to, bytesPerSecond, knownBytesPerSecond, sinceMs, atMs: nowMs, doubted: false });
    }
  }

  /** What is to be done. `ready`: agents that can hold seats, and are counted on. */
  steps(ready: readonly string[], nowMs: number): SlowStep[] {
    for (const [key, { atMs }] of this.#pairs) if (nowMs - atMs > MEMORY_MS) this.#pairs.delete(key);
    for (const [agent, atMs] of this.#looks) if (nowMs - atMs > LOOK_AGAIN_MS) this.#looks.delete(agent);
    const due = [...this.#avoided].filter(([, { measuring, measureAtMs }]) => !measuring && nowMs >= measureAtMs);
    const steps: SlowStep[] = due.map(([agent, state]) => {
      state.measuring = true;
      return { do: 'measure', agent };
    });
    const all = [...this.#pairs.values()];
    const now = unshared(all.filter(({ atMs }) => nowMs - atMs <= FRESH_MS));
    for (const pair of now.filter(({ doubted }) => !doubted)) {
      const { from, to, bytesPerSecond } = pair;
      pair.doubted = true;
      steps.push({ do: 'doubt', from, to, bytesPerSecond });
    }
    const slow = now.filter(({ from, to }) => !this.#avoided.has(from) && !this.#avoided.has(to));
    // Who is avoided for the sake of one pair alone may not have been the reason.
    const seen = all.filter(({ doubted }) => doubted);
    const counterparts = counterpartsOf(seen);
    const sure = new Set([...this.#avoided.keys()].filter((agent) => (counterparts.get(agent)?.size ?? 0) > 1));
    const { behind, open } = whoIsBehind(
      slow,
      seen.filter(({ from, to }) => !sure.has(from) && !sure.has(to)),
    );
    const most = Math.floor(MOST_AVOIDED * (ready.length + this.#avoided.size));
    for (const agent of behind) {
      if (!ready.includes(agent) || this.#avoided.size >= most) continue;
      steps.push({ do: 'avoid', agent, why: this.#avoid(agent, slow, nowMs) });
    }
    for (const { from, to, sinceMs } of open) {
      if (nowMs - sinceMs < OPEN_MS) continue;
      for (const agent of [from, to]) {
        if (this.#looks.has(agent) || !ready.includes(agent)) continue;
        this.#looks.set(agent, nowMs);
        steps.push({ do: 'measure', agent });
      }
    }
    return steps;
  }

  #avoid(agent: string, slow: readonly Slow[], nowMs: number): string {
    this.#holdDown.lost(agent, nowMs);
    const pauseMs = Math.max(LEAST_HOLD_MS, this.#holdDown.heldMs(agent, nowMs));
    const own = slow.filter(({ from, to }) => from === agent || to === agent);
    const seenBytesPerSecond = Math.max(...own.map(({ bytesPerSecond }) => bytesPerSecond));
    this.#avoided.set(agent, { sinceMs: nowMs, seenBytesPerSecond, measureAtMs: nowMs + pauseMs, pauseMs, measuring: false });
    const least = own.reduce((worst, one) => (one.bytesPerSecond < worst.bytesPerSecond ? one : worst), own[0] ?? NONE);
    return `its link is slow: ${mbps(least.bytesPerSecond)} from ${least.from} to ${least.to}, where ${mbps(least.knownBytesPerSecond)} are known`;
  }

  /** The link between the dispatcher and an agent was measured, as it was asked to be; undefined = in vain. `known`: as it was before. */
  measured(agent: string, found: Speed | undefined, known: Speed, nowMs: number): SlowStep[] {
    const state = this.#avoided.get(agent);
    if (state === undefined) {
      // Of a pair that nothing explained: it is this end, or it is not.
      const busy = (bytesPerSecond: number, knownBytesPerSecond: number) => ({ busyMs: LASTS_MS, bytesPerSecond, knownBytesPerSecond });
      this.see(DISPATCHER, [{ to: agent, ...busy(found?.upBytesPerSecond ?? Number.POSITIVE_INFINITY, known.upBytesPerSecond) }], nowMs);
      this.see(
        agent,
        [{ to: DISPATCHER, ...busy(found?.downBytesPerSecond ?? Number.POSITIVE_INFINITY, known.downBytesPerSecond) }],
        nowMs,
      );
      return [];
    }
    const isBack =
      found !== undefined &&
      found.upBytesPerSecond >= RECOVERED * known.upBytesPerSecond &&
      found.downBytesPerSecond >= RECOVERED * known.downBytesPerSecond;
    const isBetter =
      found !== undefined && Math.min(found.upBytesPerSecond, found.downBytesPerSecond) >= BETTER * Math.max(1, state.seenBytesPerSecond);
    if (isBack || isBetter || (found !== undefined && nowMs - state.sinceMs >= TRUTH_MS)) {
      this.#avoided.delete(agent);
      this.#forgetPairs(agent);
      return [{ do: 'trust', agent, as: isBack ? 'before' : 'measured' }];
    }
    state.measuring = false;
    state.measureAtMs = nowMs + state.pauseMs;
    state.pauseMs = Math.min(MOST_PAUSE_MS, Math.max(LEAST_HOLD_MS, state.pauseMs * PAUSE_GROWS));
    return [];
  }

  /** The agent is gone, or elsewhere. How often its link was slow is remembered. */
  forget(agent: string): void {
    this.#avoided.delete(agent);
    this.#forgetPairs(agent);
  }

  get avoided(): readonly string[] {
    return [...this.#avoided.keys()];
  }

  /** How long until its link is measured again; 0 = it is not avoided, or being measured. */
  heldMs(agent: string, nowMs: number): number {
    return Math.max(0, (this.#avoided.get(agent)?.measureAtMs ?? 0) - nowMs);
  }

  #forgetPairs(agent: string): void {
    for (const [key, { from, to }] of this.#pairs) if (from === agent || to === agent) this.#pairs.delete(key);
  }
}

const NONE: Slow = { from: '', to: '', bytesPerSecond: 0, knownBytesPerSecond: 0, sinceMs: 0, atMs: 0, doubted: true };

/** Without the lanes of an end that carry together what one could; and if all of them do by half, without any: they share the air, or a switch. */
function unshared(slow: readonly Slow[]): readonly Slow[] {
  const [out, into] = [new Map<string, number>(), new Map<string, number>()];
  for (const { from, to, bytesPerSecond } of slow) {
    out.set(from, (out.get(from) ?? 0) + bytesPerSecond);
    into.set(to, (into.get(to) ?? 0) + bytesPerSecond);
  }
  const own = slow.filter(
    ({ from, to, knownBytesPerSecond }) => FACTOR * Math.max(out.get(from) ?? 0, into.get(to) ?? 0) < knownBytesPerSecond,
  );
  const all = own.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0);
  return own.some(({ knownBytesPerSecond }) => 2 * all >= knownBytesPerSecond) ? [] : own;
}

type Pair = Pick<Slow, 'from' | 'to'>;

/**
 * Whose links explain all slow pairs, and the pairs that no one end explains. `remembered` (with the slow ones of now): who had most counterparts. The dispatcher's own
 * link may be the reason, too: then nobody is to be avoided.
 */
export function whoIsBehind<T extends Pair>(
  slow: readonly T[],
  remembered: readonly Pair[],
): { readonly behind: string[]; readonly open: T[] } {
  const behind: string[] = [];
  const counterparts = counterpartsOf(remembered);
  let open = [...slow];
  for (;;) {
    const ends = [...new Set(open.flatMap(({ from, to }) => [from, to]))];
    let best = { end: '', count: 1 };
    for (const end of ends.sort((a, b) => Number(a === DISPATCHER) - Number(b === DISPATCHER) || (a < b ? -1 : 1))) {
      const count = counterparts.get(end)?.size ?? 0;
      if (count > best.count) best = { end, count };
    }
    const lone = open.find(({ from, to }) => from === DISPATCHER || to === DISPATCHER);
    const end = best.end || (lone === undefined ? '' : lone.from === DISPATCHER ? lone.to : lone.from);
    if (end === '') return { behind: behind.filter((one) => one !== DISPATCHER), open };
    behind.push(end);
    for (const others of counterparts.values()) others.delete(end);
    open = open.filter(({ from, to }) => from !== end && to !== end);
  }
}

function counterpartsOf(pairs: readonly Pair[]): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const { from, to } of pairs) {
    for (const [end, other] of [
      [from, to],
      [to, from],
    ] as const) {
      found.set(end, (found.get(end) ?? new Set()).add(other));
    }
  }
  return found;
}
