/**
 * Agents that are lost again and again (a loose plug, a power supply that is too weak, a crash at every start) are held back for ever longer: each of
 * their returns would move seats for nothing. As BGP damps routes (RFC 2439): a penalty of one for each loss, which halves with time. Pure.
 */

export interface HoldDownOptions {
  /** Hold-down after the second loss in a row, ms; doubles with each further one. 0 = nobody is held back. Default 2,000. */
  readonly baseMs?: number;
  /** Longest hold-down, ms. Default 120,000. */
  readonly mostMs?: number;
  /** The penalty halves in this time, ms. Default 300,000. */
  readonly halfLifeMs?: number;
}

interface Record {
  /** Losses so far. */
  losses: number;
  /** As of `atMs`. */
  penalty: number;
  atMs: number;
  untilMs: number;
}

export class HoldDown {
  readonly #records = new Map<string, Record>();
  readonly #baseMs: number;
  readonly #mostMs: number;
  readonly #halfLifeMs: number;

  constructor({ baseMs = 2000, mostMs = 120_000, halfLifeMs = 300_000 }: HoldDownOptions = {}) {
    this.#baseMs = baseMs;
    this.#mostMs = mostMs;
    this.#halfLifeMs = halfLifeMs;
  }

  /** The first loss costs nothing: a restart is no flapping. */
  lost(agent: string, nowMs: number): void {
    const { losses = 0, penalty = 0, atMs = nowMs } = this.#records.get(agent) ?? {};
    const grown = penalty * 0.5 ** ((nowMs - atMs) / this.#halfLifeMs) + 1;
    const step = Math.round(grown);
    const holdMs = step < 2 ? 0 : Math.min(this.#mostMs, this.#baseMs * 2 ** (step - 2));
    this.#records.set(agent, { losses: losses + 1, penalty: grown, atMs: nowMs, untilMs: nowMs + holdMs });
  }

  /** How long it gets no seats yet; 0 = it is not held back. */
  heldMs(agent: string, nowMs: number): number {
    return Math.max(0, (this.#records.get(agent)?.untilMs ?? 0) - nowMs);
  }

  losses(agent: string): number {
    return this.#records.get(agent)?.losses ?? 0;
  }

  forget(agent: string): void {
    this.#records.delete(agent);
  }
}
