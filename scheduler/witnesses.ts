/**
 * Whose word counts when an agent says that a peer cannot be reached. A neighbour may be wrong, by its own bad link, or lie; the peer's next health tells. Whoever was the
 * only one to say so, and was contradicted again and again, is not believed alone for a while: what he says counts for nothing, what others and the scheduler see still
 * does. Doubt halves with time, as hold-down does (RFC 2439). Pure.
 */
import { DISPATCHER } from '../broker/topics.js';

/** Contradicted three times in a row, a reporter is not believed; the first has faded a little by then. */
const PATIENCE = 2.5;
/** However long somebody has lied, he is believed again so soon after his last lie: three half-lives and less. */
const MOST_DOUBT = 16;
const HALF_LIFE_MS = 300_000;
/** Not worth remembering. */
const NO_DOUBT = 0.1;

interface Doubt {
  amount: number;
  atMs: number;
  /** Contradictions so far. */
  times: number;
  /** The last peer that answered although. */
  peer: string;
}

export interface Doubted {
  readonly agent: string;
  readonly times: number;
  readonly peer: string;
}

export class Witnesses {
  readonly #doubts = new Map<string, Doubt>();
  /** By peer: who has said since it was last heard that it cannot be reached. */
  readonly #reports = new Map<string, Set<string>>();

  /** True when it counts that `by` cannot reach `peer`. The dispatcher's own lanes always do. */
  says(by: string, peer: string, nowMs: number): boolean {
    const reports = this.#reports.get(peer) ?? new Set();
    this.#reports.set(peer, reports.add(by));
    return by === DISPATCHER || this.#doubt(by, nowMs) < PATIENCE;
  }

  /** The peer was heard: whoever alone said otherwise was wrong. Two have met something, if only a switch. */
  heard(peer: string, nowMs: number): void {
    const reports = this.#reports.get(peer);
    if (reports === undefined) return;
    this.#reports.delete(peer);
    const [by = DISPATCHER] = reports;
    if (reports.size > 1 || by === DISPATCHER) return;
    const { times = 0 } = this.#doubts.get(by) ?? {};
    this.#doubts.set(by, { amount: Math.min(MOST_DOUBT, this.#doubt(by, nowMs) + 1), atMs: nowMs, times: times + 1, peer });
  }

  /** The peer is gone, or another process: nobody was wrong. */
  gone(peer: string): void {
    this.#reports.delete(peer);
  }

  /** Who is not believed now. */
  doubted(nowMs: number): Doubted[] {
    for (const agent of this.#doubts.keys()) if (this.#doubt(agent, nowMs) < NO_DOUBT) this.#doubts.delete(agent);
    return [...this.#doubts].flatMap(([agent, { times, peer }]) => (this.#doubt(agent, nowMs) < PATIENCE ? [] : [{ agent, times, peer }]));
  }

  #doubt(agent: string, nowMs: number): number {
    const doubt = this.#doubts.get(agent);
    return doubt === undefined ? 0 : doubt.amount * 0.5 ** ((nowMs - doubt.atMs) / HALF_LIFE_MS);
  }
}
