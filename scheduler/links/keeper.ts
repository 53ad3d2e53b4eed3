/**
 * Measures links when a plan is about to use them, and keeps what is known up to date from health messages. One measurement at a time in the whole cluster,
 * of a few MB and a second or so; never while frames run on one of its ends, unless asked for; never again what was measured lately.
 */
import { type ChairError, toChairError } from '../../broker/errors.js';
import { MIN_BYTES_PER_SECOND } from '../../broker/link-bounds.js';
import type { ProbeBudget } from '../../broker/link-probe.js';
import type { Health, LaneHealth, LinkMeasurement, LinkStatus } from '../../broker/messages.js';
import { DISPATCHER } from '../../broker/topics.js';
import type { AccessLink, Links } from '../planners/problem.js';
import type { LinkFile } from './file.js';
import { linkModel, linksOf } from './model.js';
import { LinkTable, mbps, pairKey } from './table.js';

export type Pair = readonly [string, string];

export interface LinkKeeperOptions {
  /** What the gateway was told of links that nobody measured. */
  readonly told: Links;
  /** One end asks the other; throws coded errors. */
  readonly measure: (from: string, to: string, budget: ProbeBudget, evenIfBusy: boolean) => Promise<LinkMeasurement>;
  /** Frames run on this end, or did a moment ago. */
  readonly isBusy: (end: string) => boolean;
  readonly sameHost: (a: string, b: string) => boolean;
  /** From one turn of an end's CPU quota to the next, ms; 0 = it has none. Default: nobody has. */
  readonly turnMs?: (end: string) => number;
  readonly now: () => number;
  readonly log: (kind: string, text: string) => void;
  /** Keeps what is known over restarts; default: nothing does. */
  readonly file?: Pick<LinkFile, 'load' | 'changed'> | undefined;
}

export interface MeasureLimits {
  /** No measurement starts after so many ms. */
  readonly budgetMs: number;
  /** What is older is measured again. */
  readonly maxAgeMs: number;
  readonly evenIfBusy?: boolean;
}

export const PLAN_LIMITS: MeasureLimits = { budgetMs: 5000, maxAgeMs: 10 * 60_000 };
/** Large messages seen before a link that was never measured gets a row. */
const FIRST_SAMPLES = 5;
/** A message of so many bytes may be held up for a turn of its sender's quota, which its receiver cannot see: what comes at this rate or more is not slow. */
const TURN_BYTES = 512 * 1024;
/** A pair that could not be measured is left alone this long. */
const FAILED_MS = 60_000;
/** Long enough for three rounds of 1 MB each way at 100 Mbit/s, and for six with pauses where links are faster. */
const BUDGET: ProbeBudget = { budgetMs: 1000, budgetBytes: 16 * 2 ** 20 };

export class LinkKeeper {
  readonly #o: LinkKeeperOptions;
  readonly #table = new LinkTable();
  readonly #failed = new Map<string, number>();
  /** Live samples of each row that were seen already. */
  readonly #samples = new Map<string, number>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: LinkKeeperOptions) {
    this.#o = options;
  }

  /** What was known before a restart counts until it is measured again, which it is before the next plan that uses it. */
  async load(): Promise<void> {
    const rows = (await this.#o.file?.load()) ?? [];
    this.#table.restore(rows, this.#o.now(), 2 * PLAN_LIMITS.maxAgeMs);
  }

  /** Measures of these pairs what is not known well, in their order. Resolves with how many were measured. Never throws: what fails keeps its last value. */
  ensure(pairs: readonly Pair[], limits: MeasureLimits = PLAN_LIMITS): Promise<number> {
    const turn = this.#turn.then(() => this.#ensure(pairs, limits));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** An agent's own view of its lanes. */
  health({ agent, lanes }: Pick<Health, 'agent' | 'lanes'>): void {
    for (const lane of lanes) this.#live(agent, lane);
  }

  /** The agent may be elsewhere now. */
  forget(agent: string): void {
    this.#table.forget(agent);
    for (const key of this.#failed.keys()) if (key.split('>').includes(agent)) this.#failed.delete(key);
  }

  /** What a link carries as far as it is known, whatever is held against it now; bytes/s. */
  known(from: string, to: string): number {
    const row = this.#table.get(from, to);
    if (row !== undefined) return row.bytesPerSecond;
    const { told, sameHost } = this.#o;
    const rows = this.#table.all().map((one) => ({ ...one, doubt: undefined }));
    const { gateway, agents } = linkModel(rows, told.usual, sameHost);
    const end = (name: string): AccessLink | undefined => (name === DISPATCHER ? gateway : agents.get(name));
    const { bytesPerSecond: usual } = told.usual;
    return Math.min(end(from)?.upBytesPerSecond ?? usual, end(to)?.downBytesPerSecond ?? usual);
  }

  /** See `LinkTable`. */
  doubt(from: string, to: string, bytesPerSecond: number): void {
    if (bytesPerSecond > 0) this.#table.doubt(from, to, Math.max(MIN_BYTES_PER_SECOND, bytesPerSecond), this.#o.now());
  }

  trust(agent: string): void {
    this.#table.trust(agent);
  }

  /** A measurement that was made for another reason, between the dispatcher and `agent`: it counts as any. */
  accept(agent: string, found: LinkMeasurement): void {
    this.#table.measured(DISPATCHER, { ...found, peer: agent }, this.#o.now());
    this.#changed(true);
  }

  /** For planners: the gateway's link and the pairs that differ, and each agent's own link. */
  links(): { readonly links: Links; readonly access: ReadonlyMap<string, AccessLink> } {
    const { told, sameHost } = this.#o;
    const model = linkModel(this.#table.all(), told.usual, sameHost);
    return { links: linksOf(model, told), access: model.agents };
  }

  status(): LinkStatus[] {
    return this.#table.status(this.#o.now());
  }

  async #ensure(pairs: readonly Pair[], { budgetMs, maxAgeMs, evenIfBusy = false }: MeasureLimits): Promise<number> {
    const { now, isBusy } = this.#o;
    const untilMs = now() + budgetMs;
    let measured = 0;
    for (const [a, b] of pairs) {
      if (now() >= untilMs) break;
      if (this.#table.isFresh(a, b, now(), maxAgeMs)) continue;
      const failedMs = this.#failed.get(pairKey(a, b));
      if (failedMs !== undefined && now() - failedMs < FAILED_MS && !evenIfBusy) continue;
      if (!evenIfBusy && (isBusy(a) || isBusy(b))) continue;
      if (await this.#one(a, b, evenIfBusy)) measured++;
    }
    return measured;
  }

  async #one(a: string, b: string, evenIfBusy: boolean): Promise<boolean> {
    const { now, log, measure } = this.#o;
    const key = pairKey(a, b);
    const [from, to] = b === DISPATCHER ? [b, a] : [a, b];
    try {
      // An agent may say that it measured another link: it was asked for this one.
      const found = { ...(await measure(from, to, BUDGET, evenIfBusy)), peer: to };
      this.#table.measured(from, found, now());
      this.#failed.delete(key);
      this.#changed(true);
      const { upBytesPerSecond: up, downBytesPerSecond: down, roundTripMs } = found;
      log('link', `${from} to ${to}: ${mbps(up)} there, ${mbps(down)} back, round trip ${roundTripMs.toFixed(2)} ms (${found.lane})`);
      return true;
    } catch (thrown) {
      const error: ChairError = toChairError(thrown);
      if (!this.#failed.has(key)) log('link', `${from} to ${to} was not measured: ${error.code}: ${error.message}`);
      this.#failed.set(key, now());
      return false;
    }
  }

  #changed(measured: boolean): void {
    const { file, now } = this.#o;
    file?.changed(() => this.#table.saved(now()), measured);
  }

  /** Bytes per second of a sender that its quota holds up. */
  #leastOf(sender: string): number {
    const turnMs = this.#o.turnMs?.(sender) ?? 0;
    return turnMs > 0 ? (TURN_BYTES / turnMs) * 1000 : Number.POSITIVE_INFINITY;
  }

  #live(to: string, { peer, lane, receivedBytesPerSecond, receivedSamples, roundTripMs }: LaneHealth): void {
    const { now, log } = this.#o;
    if (lane === 'local' || lane === 'down') return;
    const key = pairKey(peer, to);
    const fresh = receivedSamples !== (this.#samples.get(key) ?? 0);
    if (fresh) this.#samples.set(key, receivedSamples);
    if (this.#samples.size > 50_000) this.#samples.clear();
    const known = this.#table.get(peer, to);
    // The first messages tell too little to begin a row with.
    if (known === undefined ? receivedSamples < FIRST_SAMPLES : !fresh && roundTripMs === 0) return;
    const isHeldUp = receivedBytesPerSecond < (known?.bytesPerSecond ?? 0) && receivedBytesPerSecond >= this.#leastOf(peer);
    try {
      this.#table.live(peer, to, { bytesPerSecond: fresh && !isHeldUp ? receivedBytesPerSecond : 0, roundTripMs }, now());
      this.#changed(false);
    } catch (thrown) {
      // Once: the row itself says it from then on.
      if (known?.problem === '') log('link', toChairError(thrown).message);
    }
  }
}

/**
 * The pairs of a draft, those that carry most first, both directions as one. Of each agent to others than the dispatcher at most `most`: two counterparts tell what an
 * end can do, and a hundred agents that all exchange halos must not measure for minutes.
 */
export function pairsOf(
  links: readonly { readonly from: string; readonly to: string; readonly bytesPerFrame: number }[],
  most = 2,
): Pair[] {
  const bytes = new Map<string, { readonly pair: Pair; sum: number }>();
  for (const { from, to, bytesPerFrame } of links) {
    const pair: Pair = from < to ? [from, to] : [to, from];
    const known = bytes.get(pairKey(...pair)) ?? { pair, sum: 0 };
    known.sum += bytesPerFrame;
    bytes.set(pairKey(...pair), known);
  }
  const sorted = [...bytes.values()].sort((a, b) => b.sum - a.sum || (a.pair.join() < b.pair.join() ? -1 : 1)).map(({ pair }) => pair);
  const gateway = sorted.filter((pair) => pair.includes(DISPATCHER));
  const counts = new Map<string, number>();
  const between = sorted.filter((pair) => {
    if (pair.includes(DISPATCHER)) return false;
    if (pair.every((end) => (counts.get(end) ?? 0) >= most)) return false;
    for (const end of pair) counts.set(end, (counts.get(end) ?? 0) + 1);
    return true;
  });
  return [...gateway, ...between];
}
