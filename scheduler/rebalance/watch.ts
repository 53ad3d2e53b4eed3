/**
 * When it is time to ask a planner for a better plan: planning takes the gateway's CPU for seconds, so not at every tick. A pure state machine over signals: what is
 * other than when the plan was made. A signal must last before it counts, and looks that found nothing make the next one later, until something new is seen.
 */

export interface Signal {
  readonly kind: 'slower' | 'faster' | 'link' | 'pressed' | 'agents' | 'demand' | 'known';
  /** For people. */
  readonly why: string;
}

/** How long a signal must last: agents join in bursts, measured times rise and fall. */
const LASTS_MS: Readonly<Record<Signal['kind'], number>> = {
  slower: 8000,
  faster: 30_000,
  link: 8000,
  // The meter of demand has waited already.
  pressed: 0,
  demand: 8000,
  agents: 3000,
  known: 15_000,
};
/** After any change of the plan, what is measured is still of the old one. */
export const SETTLE_MS = 15_000;
const AGAIN_MS = 15_000;
const MOST_AGAIN_MS = 240_000;
const SPARING = 20;

/** A signal that comes and goes is the same one until it was away for so long. */
const FORGOTTEN_MS = 60_000;

interface Known {
  /** Since when it is there without a break; undefined = it is not. */
  fromMs: number | undefined;
  why: string;
  lastMs: number;
  /** A look was about it. */
  seen: boolean;
}

export class Watch {
  readonly #signals = new Map<Signal['kind'], Known>();
  #settledMs: number;
  #nextMs = Number.NEGATIVE_INFINITY;
  #againMs = AGAIN_MS;
  /** What is new waits until then, too. */
  #freshMs = Number.NEGATIVE_INFINITY;

  constructor(nowMs: number) {
    this.#settledMs = nowMs + SETTLE_MS;
  }

  /** The plan changed: everything is as it was predicted, as far as anybody knows. */
  changed(nowMs: number): void {
    this.#signals.clear();
    this.#settledMs = nowMs + SETTLE_MS;
    this.#nextMs = Number.NEGATIVE_INFINITY;
    this.#againMs = AGAIN_MS;
  }

  /** All signals of now. Returns what there is to look for, if it is time to. */
  observe(signals: readonly Signal[], nowMs: number): Signal | undefined {
    this.#note(signals, nowMs);
    if (nowMs < this.#settledMs) return undefined;
    const ripe = signals.filter(({ kind }) => nowMs - (this.#signals.get(kind)?.fromMs ?? nowMs) >= LASTS_MS[kind]);
    const fresh = nowMs < this.#freshMs ? undefined : ripe.find(({ kind }) => this.#signals.get(kind)?.seen === false);
    const signal = fresh ?? (nowMs >= this.#nextMs ? ripe[0] : undefined);
    if (signal === undefined) return undefined;
    if (fresh !== undefined) this.#againMs = AGAIN_MS;
    for (const { kind } of ripe) {
      const known = this.#signals.get(kind);
      if (known !== undefined) known.seen = true;
    }
    this.#nextMs = nowMs + this.#againMs;
    this.#againMs = Math.min(MOST_AGAIN_MS, 2 * this.#againMs);
    return signal;
  }

  /** The last look took so long: planning must not take more than a twentieth of the gateway's time. */
  took(ms: number, nowMs: number): void {
    this.#nextMs = Math.max(this.#nextMs, nowMs + SPARING * ms);
    this.#freshMs = nowMs + SPARING * ms;
  }

  #note(signals: readonly Signal[], nowMs: number): void {
    for (const { kind, why } of signals) {
      const known = this.#signals.get(kind);
      // Another reason of the same kind (another agent joined) is a new one.
      if (known === undefined || (kind === 'agents' && known.why !== why)) {
        this.#signals.set(kind, { fromMs: nowMs, why, lastMs: nowMs, seen: false });
      } else {
        known.fromMs ??= nowMs;
        known.lastMs = nowMs;
      }
    }
    for (const [kind, known] of this.#signals) {
      if (signals.some((signal) => signal.kind === kind)) continue;
      known.fromMs = undefined;
      if (nowMs - known.lastMs > FORGOTTEN_MS) this.#signals.delete(kind);
    }
  }
}
