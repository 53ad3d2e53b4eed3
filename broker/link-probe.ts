/**
 * Measures the lane to a peer as frames would use it: direct or relayed, with both ends' own event loops in it. One end asks; the other echoes and
 * sends on request. Only the asking end's clock is read.
 *
 *   round trip   small messages one after another: lower quartile, and the median distance from the median
 *   throughput   rounds of 64, 256 and 1,024 KB: the next size as soon as one was too short to be timed well, then the last and the first size in turn (link-rate.ts)
 *
 * What a processor under a CPU quota takes for it is not the link's: both ends rest before each message and before each round, so that they have their quota to begin with,
 * and the quickest rounds count, if they agree: where they do not, it takes a little longer. Nor is it a shaper's burst: the difference of two sizes counts, wherever the
 * link is fast enough for two.
 *
 * A round ends when its last message has been received, so what a socket's buffer swallows does not count as sent.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { decode, encode } from './codec.js';
import { ChairError } from './errors.js';
import type { LaneMessage, Lanes, Segments } from './lanes/lane.js';
import { checkLink } from './link-bounds.js';
import { linkRate, type Round } from './link-rate.js';
import type { LinkMeasurement, Probe } from './messages.js';
import { discard, joinSegments } from './segments.js';
import type { Topics } from './topics.js';
import { Waitress } from './waitress.js';

export interface ProbeBudget {
  /** No round starts after it. */
  readonly budgetMs: number;
  /** Bytes in both directions together. */
  readonly budgetBytes: number;
}

export const PROBE_BUDGET: ProbeBudget = { budgetMs: 1500, budgetBytes: 16 * 2 ** 20 };

export interface LinkProbeOptions {
  readonly name: string;
  readonly lanes: Lanes;
  readonly topics: () => Topics;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** A message that cannot be answered; never called for what a peer may send. */
  readonly onRefused?: (error: Error) => void;
}

const ECHOES = 11;
const MESSAGE_BYTES = 64 * 1024;
/** The second only where the first takes long already. */
const ROUND_BYTES = [64 * 1024, 128 * 1024, 256 * 1024, 1024 * 1024] as const;
const [, SLOW_BYTES, , LARGEST_BYTES] = ROUND_BYTES;
/** A round of this length is long against timers and scheduling. */
const ENOUGH_MS = 60;
/** Of the largest size that is used: so many short ones, or so many long ones. */
const SHORT_ROUNDS = 6;
const LONG_ROUNDS = 3;
const LEAST_ROUNDS = 2;
/** Rounds within this factor. */
const AGREE = 1.3;
/** So many times what the small rounds say. */
const ODD = 3;
/** Both ends' processors rest so long before an echo and before a round: a tenth of a core gets back what that takes. */
const ECHO_REST_MS = 3;
const ROUND_REST_MS = 25;
/** So much longer where no two rounds agree. */
const UNSURE_MS = 750;
/** A link of less than half a Mbit/s, or something is wrong: another round would take as long. */
const VERY_LONG_MS = 1000;
const ECHO_MS = 2000;
const ROUND_MS = 5000;
/** What a peer may ask this end to send at once. */
const MAX_REQUESTED_BYTES = 2 * LARGEST_BYTES;

export class LinkProbe {
  readonly #o: LinkProbeOptions;
  readonly #replies = new Waitress<Probe>();
  /** Payload of the rounds, made when first needed. Not zeros: a tunnel on the way may compress. */
  #filling: Uint8Array | undefined;
  #serving = false;
  #measuring: string | undefined;
  #off: (() => void) | undefined;

  constructor(options: LinkProbeOptions) {
    this.#o = options;
  }

  /** Answers peers from now on. */
  start(): void {
    this.#off ??= this.#o.lanes.on(this.#o.topics().probe(this.#o.name), (message) => this.#receive(message));
  }

  async stop(): Promise<void> {
    this.#off?.();
    this.#off = undefined;
    this.#replies.cancelAll(new ChairError('STOPPED', 'the link probe was stopped'));
  }

  /**
   * One measurement at a time. Throws AGENT_BUSY, LANE_DOWN, REQUEST_TIMEOUT (the peer does not answer, or a round takes more than 5 s),
   * LINK_IMPLAUSIBLE, STOPPED.
   */
  async measure(peer: string, { budgetMs, budgetBytes }: ProbeBudget): Promise<LinkMeasurement> {
    if (this.#measuring !== undefined) {
      throw new ChairError('AGENT_BUSY', `${this.#o.name} is measuring the link to ${this.#measuring}`, { todo: 'Ask again later.' });
    }
    this.#measuring = peer;
    try {
      return await this.#measure(peer, this.#o.nowMs() + budgetMs, budgetBytes);
    } finally {
      this.#measuring = undefined;
    }
  }

  async #measure(peer: string, untilMs: number, budgetBytes: number): Promise<LinkMeasurement> {
    const { nowMs } = this.#o;
    const startedMs = nowMs();
    const echoes: number[] = [];
    // The first one may wait for the lane to come up, and warms both ends.
    await this.#timed(peer, 'echo', 0);
    while (echoes.length < ECHOES && (echoes.length < 3 || nowMs() < untilMs)) {
      await delay(ECHO_REST_MS);
      echoes.push(await this.#timed(peer, 'echo', 0));
    }
    const roundTripMs = lowerQuartile(echoes);
    // Half of the time for each: what is left over by the one may be nothing.
    const halfMs = (nowMs() + untilMs) / 2;
    const up = await this.#direction(peer, 'fill', roundTripMs, halfMs, budgetBytes / 2);
    const down = await this.#direction(peer, 'drain', roundTripMs, untilMs, budgetBytes / 2);
    const latencyMs = roundTripMs / 2;
    checkLink(`the measured link from ${this.#o.name} to ${peer}`, { bytesPerSecond: up.bytesPerSecond, latencyMs });
    checkLink(`the measured link from ${peer} to ${this.#o.name}`, { bytesPerSecond: down.bytesPerSecond, latencyMs });
    return {
      peer,
      lane: this.#o.lanes.health().find((lane) => lane.peer === peer)?.lane ?? 'direct',
      roundTripMs,
      roundTripSpreadMs: deviation(echoes),
      upBytesPerSecond: up.bytesPerSecond,
      upSpread: up.spread,
      downBytesPerSecond: down.bytesPerSecond,
      downSpread: down.spread,
      bytes: up.bytes + down.bytes,
      tookMs: nowMs() - startedMs,
    };
  }

  /** Always at least two rounds, however short the time, unless the first took very long. */
  async #direction(peer: string, kind: 'fill' | 'drain', roundTripMs: number, untilMs: number, budgetBytes: number) {
    const { nowMs } = this.#o;
    // Also where the other direction took all of the time.
    const sureByMs = Math.max(untilMs, nowMs()) + UNSURE_MS;
    let bytes = 0;
    let large = MESSAGE_BYTES;
    let rounds: Round[] = [];
    const of = (size: number): number[] => rounds.flatMap((round) => (round.bytes === size ? [round.tookMs] : []));
    for (let count = 0; ; count++) {
      // What is as large as it gets, and in turn the smallest, which tells what is fixed about it.
      const size = of(MESSAGE_BYTES).length < of(large).length ? MESSAGE_BYTES : large;
      const [first = 0, ...more] = of(large);
      // One round of the larger size that stood still is not its speed.
      const isOdd = more.length === 0 && first > (ODD * Math.min(...of(MESSAGE_BYTES)) * large) / MESSAGE_BYTES;
      // Nor is one that waited for a turn of a quota: the link is as slow as that only when the quickest say so together.
      const isSlow = Math.min(...of(MESSAGE_BYTES)) >= ENOUGH_MS;
      const isSure = agree(of(large), isSlow ? LONG_ROUNDS : LEAST_ROUNDS) || nowMs() >= sureByMs;
      const isEnough = (count >= LEAST_ROUNDS && !isOdd && isSure) || of(MESSAGE_BYTES).some((ms) => ms >= VERY_LONG_MS);
      if (bytes > 0 && ((isEnough && nowMs() >= untilMs) || bytes + size > budgetBytes)) break;
      if (count > 0) await delay(ROUND_REST_MS);
      const tookMs = await this.#timed(peer, kind, size);
      bytes += size;
      rounds.push({ bytes: size, tookMs });
      if (size !== large) continue;
      const quickMs = Math.min(...of(size));
      const next = larger(size, quickMs, untilMs - nowMs());
      // Long rounds that agree need not be many.
      const isSteady = quickMs >= ENOUGH_MS && Math.max(...of(size)) <= AGREE * quickMs;
      if (next === size && of(size).length >= (isSteady ? LONG_ROUNDS : SHORT_ROUNDS)) break;
      large = next;
    }
    // The last size may not have been reached in the time; those between were only steps to it.
    large = Math.max(...rounds.map((round) => round.bytes));
    rounds = rounds.filter((round) => round.bytes === MESSAGE_BYTES || round.bytes === large);
    return { bytesPerSecond: linkRate(rounds, roundTripMs), spread: deviation(of(large)) / median(of(large)), bytes };
  }

  /** One exchange: how long until its answer is here. */
  async #timed(peer: string, kind: 'echo' | 'fill' | 'drain', sizeBytes: number): Promise<number> {
    const { nowMs, name } = this.#o;
    const id = randomUUID();
    const messages = Math.ceil(sizeBytes / MESSAGE_BYTES);
    const wait = this.#replies.wait(id, kind === 'echo' ? ECHO_MS : ROUND_MS, `a probe of the lane from ${peer}`);
    const startedMs = nowMs();
    try {
      if (kind === 'fill') await this.#fill(peer, id, messages);
      await this.#send(peer, { id, from: name, kind: kind === 'drain' ? 'drain' : 'echo', messages, messageBytes: MESSAGE_BYTES });
      const reply = await wait.reply;
      if (reply.kind !== 'done') throw new ChairError('AGENT_BUSY', `${peer} answers another probe`, { todo: 'Ask again later.' });
      return nowMs() - startedMs;
    } finally {
      wait.cancel(new ChairError('STOPPED', 'the probe is over'));
    }
  }

  #receive(message: LaneMessage): void {
    const probe = decode('Probe', joinSegments(message.payload)) as Probe;
    discard(message.payload);
    // Nobody has us answer somebody else.
    if (message.from !== probe.from) return;
    if (probe.kind === 'done' || probe.kind === 'busy') this.#replies.settle(probe.id, probe);
    else if (probe.kind === 'echo') this.#answer(probe, 'done');
    else if (probe.kind === 'drain') void this.#serve(probe);
    // A fill is only to be received.
  }

  /** Sends what a peer asked for. One peer at a time, and no more than a round. */
  async #serve(probe: Probe): Promise<void> {
    const { messages, messageBytes } = probe;
    if (this.#serving || messageBytes !== MESSAGE_BYTES || messages < 1 || messages * messageBytes > MAX_REQUESTED_BYTES) {
      this.#answer(probe, 'busy');
      return;
    }
    this.#serving = true;
    try {
      await this.#fill(probe.from, probe.id, messages);
      this.#answer(probe, 'done');
    } catch {
      // The lane broke: the asking end sees it by itself.
    } finally {
      this.#serving = false;
    }
  }

  async #fill(peer: string, id: string, messages: number): Promise<void> {
    this.#filling ??= Uint8Array.from({ length: MESSAGE_BYTES }, (_, i) => ((i * 2654435761) >>> 13) & 0xff);
    const fill = { id, from: this.#o.name, kind: 'fill', messages, messageBytes: MESSAGE_BYTES, data: this.#filling };
    const payload: Segments = [encode('Probe', fill)];
    const { lanes, topics } = this.#o;
    await Promise.all(Array.from({ length: messages }, () => lanes.send(peer, topics().probe(peer), payload)));
  }

  #answer({ id, from }: Probe, kind: 'done' | 'busy'): void {
    this.#send(from, { id, from: this.#o.name, kind, messages: 0, messageBytes: 0 }).catch(() => {
      // The asking end has its own deadline.
    });
  }

  async #send(peer: string, probe: Omit<Probe, 'data'>): Promise<void> {
    const { lanes, topics } = this.#o;
    await lanes.send(peer, topics().probe(peer), [encode('Probe', { ...probe, data: NOTHING })]);
  }
}

const NOTHING = new Uint8Array(0);

/** The size of the next rounds, after one of `size`: a larger one where this was too short to be timed well, or where there is time for it. */
function larger(size: number, tookMs: number, leftMs: number): number {
  const isShort = tookMs < ENOUGH_MS;
  const next = ROUND_BYTES.find((bytes) => bytes > (isShort ? Math.max(size, SLOW_BYTES) : size)) ?? size;
  const isTimely = LEAST_ROUNDS * tookMs * (next / size) <= leftMs || (size === MESSAGE_BYTES && tookMs < VERY_LONG_MS / 2);
  return isShort || isTimely ? next : size;
}

/** So many of them, the quickest, do. */
function agree(values: readonly number[], count: number): boolean {
  const sorted = [...values].sort((a, b) => a - b);
  const [quickest, last] = [sorted[0], sorted[count - 1]];
  return quickest !== undefined && last !== undefined && last <= AGREE * quickest;
}

function lowerQuartile(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 4)] ?? Number.NaN;
}

/** NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** Median distance from the median. */
function deviation(values: readonly number[]): number {
  const middle = median(values);
  return median(values.map((value) => Math.abs(value - middle)));
}
