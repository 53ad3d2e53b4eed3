/** Lanes as all that is known of them says: the sender's health, the receiver's, and what was measured. Pure. */
import type { LaneHealth, LinkStatus, PlanReport, StatusReport } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import { type History, isGone } from './history.js';

export interface Lane {
  readonly from: string;
  readonly to: string;
  /** direct, relay, local, down; `gone`: an end is not there; '' = the sender has not said yet. */
  readonly lane: string;
  /** Why it is not direct; '' otherwise. */
  readonly why: string;
  /** One way; 0 = unknown. */
  readonly ms: number;
  /** What goes along it now. */
  readonly bytesPerSecond: number;
  /** What it can carry, as measured or seen; 0 = unknown. */
  readonly capacity: number;
  readonly bytesSent: number;
  /** Of one frame; 0 = it carries nothing of the plan. */
  readonly bytesPerFrame: number;
}

/** By sender and receiver: without a word for each pair, of which there may be thousands. */
type Pairs<T> = ReadonlyMap<string, ReadonlyMap<string, T>>;

function pairsOf<T>(rows: Iterable<readonly [from: string, to: string, value: T]>): Pairs<T> {
  const pairs = new Map<string, Map<string, T>>();
  for (const [from, to, value] of rows) {
    const mine = pairs.get(from);
    if (mine === undefined) pairs.set(from, new Map([[to, value]]));
    else mine.set(to, value);
  }
  return pairs;
}

export class Lanes {
  readonly #health: Pairs<LaneHealth>;
  readonly #links: Pairs<LinkStatus>;
  readonly #gone: ReadonlySet<string>;
  readonly #history: History;

  constructor(report: StatusReport, history: History) {
    const byPeer = (lanes: readonly LaneHealth[]): Map<string, LaneHealth> => new Map(lanes.map((lane) => [lane.peer, lane]));
    this.#health = new Map([
      [DISPATCHER, byPeer(report.lanes)],
      ...report.agents.map(({ agent, health }) => [agent, byPeer(health?.lanes ?? [])] as const),
    ]);
    this.#links = pairsOf(report.links.map((link) => [link.from, link.to, link]));
    this.#gone = new Set(report.agents.flatMap(({ agent, state }) => (isGone(state) ? [agent] : [])));
    this.#history = history;
  }

  between(from: string, to: string, bytesPerFrame = 0): Lane {
    const [there, back, link] = [this.#health.get(from)?.get(to), this.#health.get(to)?.get(from), this.#links.get(from)?.get(to)];
    const gone = this.#gone.has(from) || this.#gone.has(to);
    // The keep-alive of the connection that carries both ways is asked on one of its ends.
    const roundTripMs = there?.lane === 'direct' ? there.roundTripMs || back?.roundTripMs || 0 : 0;
    const measured = link !== undefined && (there === undefined || link.lane === there.lane);
    const rates = from === DISPATCHER ? this.#history.rates : this.#history.agents.get(from)?.rates;
    return {
      from,
      to,
      lane: gone ? 'gone' : (there?.lane ?? ''),
      why: gone ? '' : (there?.why ?? ''),
      ms: roundTripMs > 0 ? roundTripMs / 2 : measured ? (link?.latencyMs ?? 0) : 0,
      bytesPerSecond: gone ? 0 : (rates?.get(to) ?? 0),
      capacity: (measured ? link?.bytesPerSecond : undefined) ?? back?.receivedBytesPerSecond ?? 0,
      bytesSent: there?.bytesSent ?? 0,
      bytesPerFrame,
    };
  }

  /** Every lane that somebody told of, between two that are there; by name. `plans`: what they carry of a frame. */
  all(plans: readonly PlanReport[]): Lane[] {
    const sums = new Map<string, Map<string, number>>();
    for (const { from, to, bytesPerFrame } of plans.flatMap(({ links }) => links)) {
      const mine = sums.get(from) ?? new Map<string, number>();
      sums.set(from, mine.set(to, (mine.get(to) ?? 0) + bytesPerFrame));
    }
    const senders = [...this.#health.keys()].filter((from) => !this.#gone.has(from)).sort(byName);
    return senders.flatMap((from) =>
      [...(this.#health.get(from)?.keys() ?? [])]
        .filter((to) => to !== from && !this.#gone.has(to))
        .sort(byName)
        .map((to) => this.between(from, to, sums.get(from)?.get(to) ?? 0)),
    );
  }
}

const collator = new Intl.Collator('en', { numeric: true });

/** pi-2 before pi-10. */
export function byName(a: string, b: string): number {
  return collator.compare(a, b);
}
