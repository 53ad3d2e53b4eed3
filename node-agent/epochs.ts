/**
 * The epochs this agent holds: prepare (fetch, load, warm up), commit, release. Prepares run one after another, because they share memory, disk
 * and the engine; everything else goes on meanwhile, so that an older epoch keeps serving.
 * Long, because prepare, commit and release may cross each other at every await and share one table; seats, sessions and fetching are files of their own.
 */

import type { Buffers } from '../broker/buffers.js';
import { ChairError, isChairError } from '../broker/errors.js';
import type { Prepare, Progress } from '../broker/messages.js';
import type { BlobRef, SliceRef } from '../broker/plan.js';
import type { Session } from '../models/engine/engine.js';
import type { BlobFetcher } from './fetch.js';
import { type FrameBudget, JoinTable } from './join.js';
import { checkPorts, SeatTable } from './seats.js';
import { blobsOf, type SessionCache } from './sessions.js';
import type { BlobStore } from './store.js';

export interface EpochKey {
  readonly term: number;
  readonly deployment: string;
  readonly epoch: number;
}

export interface SeatStats {
  framesRun: number;
  /** Exponentially weighted mean; 0 before the first run. */
  runMs: number;
}

/** A prepared epoch. */
export interface Epoch extends EpochKey {
  readonly seats: SeatTable;
  readonly joins: JoinTable;
  readonly stats: readonly SeatStats[];
  /** By slice. */
  readonly sessions: ReadonlyMap<string, Session>;
  committed: boolean;
  released: boolean;
}

export interface Prepared {
  readonly fetchedBytes: number;
  readonly loadMs: number;
}

export interface EpochOptions {
  readonly agent: string;
  readonly store: BlobStore;
  readonly fetcher: BlobFetcher;
  readonly sessions: SessionCache;
  readonly budget: FrameBudget;
  readonly buffers: Buffers;
  readonly nowMs: () => number;
  readonly onProgress: (progress: Progress) => void;
  /** Seats can be fed: what came early may be delivered. */
  readonly onPrepared: (epoch: Epoch) => void;
  /** Memory is short for these slices: gives back what nothing that is served needs. True when something went. */
  readonly onMemoryShort: (slices: readonly SliceRef[]) => Promise<boolean>;
  /** Stops running the epoch's frames; resolves when none is in the engine. */
  readonly onReleased: (epoch: Epoch) => Promise<void>;
}

interface UnderWay {
  readonly key: EpochKey;
  readonly abort: AbortController;
  readonly done: Promise<Prepared>;
  timer: NodeJS.Timeout | undefined;
  deadlineAtMs: number;
}

const PROGRESS_EVERY_MS = 200;
/** Deployments whose last released epoch is remembered. */
const MAX_RELEASED = 1000;

export class Epochs {
  private readonly held = new Map<string, Epoch>();
  private readonly underWay = new Map<string, UnderWay>();
  /** Of each deployment, the newest epoch released: it and all before it are stale. */
  private readonly released = new Map<string, EpochKey>();
  private queue: Promise<unknown> = Promise.resolve();
  /** Of the work that gives way. */
  private yielding: AbortController | undefined;
  private order = 0;
  /** In epochs that are released. */
  private recoveredBefore = 0;

  constructor(private readonly options: EpochOptions) {}

  get all(): Iterable<Epoch> {
    return this.held.values();
  }

  /** Runs since the start that did without a part of a coded stage. */
  get recovered(): number {
    return [...this.held.values()].reduce((sum, epoch) => sum + epoch.joins.recovered, this.recoveredBefore);
  }

  get isPreparing(): boolean {
    return this.underWay.size > 0;
  }

  /** Epochs held or being prepared. */
  get size(): number {
    return this.held.size + this.underWay.size;
  }

  /** Held, or being prepared. */
  knows(key: EpochKey): boolean {
    return this.held.has(keyText(key)) || this.underWay.has(keyText(key));
  }

  find(key: EpochKey): Epoch | undefined {
    return this.held.get(keyText(key));
  }

  /** True after the epoch, or a later one of its deployment, was released. */
  isStale(key: EpochKey): boolean {
    const last = this.released.get(key.deployment);
    return last !== undefined && compare(key, last) <= 0 && !this.held.has(keyText(key));
  }

  /**
   * Makes the epoch ready to serve. The same epoch again joins what is under way, or is done at once. On failure nothing of it remains but
   * blobs on disk. `deadlineMs` 0 = none. Throws what stood in the way, coded.
   */
  async prepare(term: number, prepare: Prepare, deadlineMs: number): Promise<Prepared> {
    const key = { term, deployment: prepare.deployment, epoch: prepare.epoch };
    if (this.held.has(keyText(key))) return { fetchedBytes: 0, loadMs: 0 };
    if (this.isStale(key)) throw stale(key, 'prepare');
    const joined = this.underWay.get(keyText(key));
    if (joined !== undefined) {
      this.setDeadline(joined, deadlineMs);
      return joined.done;
    }
    this.yielding?.abort(giveWay());
    const abort = new AbortController();
    const turn = this.queue;
    const entry: UnderWay = {
      key,
      abort,
      done: turn.then(() => this.make(key, prepare, abort.signal)),
      timer: undefined,
      deadlineAtMs: 0,
    };
    this.queue = entry.done.catch(() => undefined);
    this.underWay.set(keyText(key), entry);
    this.setDeadline(entry, deadlineMs);
    try {
      return await entry.done;
    } finally {
      clearTimeout(entry.timer);
      this.underWay.delete(keyText(key));
    }
  }

  /** Does work that is not urgent: in turn with prepares, and aborted with AGENT_BUSY when one comes. */
  whenIdle<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const turn = this.queue.then(async () => {
      const abort = new AbortController();
      if (this.isPreparing) abort.abort(giveWay());
      this.yielding = abort;
      try {
        return await work(abort.signal);
      } finally {
        this.yielding = undefined;
      }
    });
    this.queue = turn.catch(() => undefined);
    return turn;
  }

  /** Throws EPOCH_STALE after release, SEAT_UNKNOWN when it was never prepared here. */
  commit(key: EpochKey): void {
    const epoch = this.held.get(keyText(key));
    if (epoch !== undefined) epoch.committed = true;
    else if (this.isStale(key)) throw stale(key, 'commit');
    else {
      throw new ChairError('SEAT_UNKNOWN', `commit of epoch ${key.epoch} of ${key.deployment}`, {
        expected: 'a prepared epoch',
        came: 'none of this number and term',
        todo: 'Prepare it again',
      });
    }
  }

  /**
   * Drops seats, waiting frames and sessions nobody else uses. Idempotent. A prepare of it under way is abandoned. A scheduler also clears away
   * what its predecessors left, of which it knows the number but not the term.
   */
  async release(key: EpochKey): Promise<void> {
    const same = [...this.held.values(), ...[...this.underWay.values()].map((entry) => entry.key)].filter(
      (other) => other.deployment === key.deployment && other.epoch === key.epoch && other.term <= key.term,
    );
    const exact = same.filter((other) => other.term === key.term);
    for (const one of exact.length > 0 ? exact : same) await this.releaseOne(one);
  }

  private async releaseOne(key: EpochKey): Promise<void> {
    const last = this.released.get(key.deployment);
    if (last === undefined || compare(last, key) < 0)
      this.released.set(key.deployment, { term: key.term, deployment: key.deployment, epoch: key.epoch });
    // Deployments come and go under ever new names; the oldest are no longer late.
    if (this.released.size > MAX_RELEASED) for (const name of [...this.released.keys()].slice(0, 1)) this.released.delete(name);
    const entry = this.underWay.get(keyText(key));
    if (entry !== undefined) {
      entry.abort.abort(stale(key, 'prepare'));
      await entry.done.catch(() => undefined);
    }
    const epoch = this.held.get(keyText(key));
    if (epoch === undefined) return;
    this.held.delete(keyText(key));
    this.recoveredBefore += epoch.joins.recovered;
    epoch.released = true;
    epoch.joins.clear();
    await this.options.onReleased(epoch);
    for (const slice of epoch.sessions.keys()) await this.options.sessions.release(slice);
  }

  /** Releases what belongs to terms before `term`: their scheduler is gone and will not do it. */
  async releaseBefore(term: number): Promise<void> {
    const old = [...this.held.values(), ...[...this.underWay.values()].map((entry) => entry.key)].filter((key) => key.term < term);
    for (const key of old) await this.releaseOne(key);
  }

  async releaseAll(): Promise<void> {
    await this.releaseBefore(Number.POSITIVE_INFINITY);
  }

  /** Drops frames whose deadline is over. */
  expire(nowMs: number): void {
    for (const epoch of this.held.values()) epoch.joins.expire(nowMs);
  }

  private setDeadline(entry: UnderWay, deadlineMs: number): void {
    const at = deadlineMs > 0 ? this.options.nowMs() + deadlineMs : Number.POSITIVE_INFINITY;
    if (at <= entry.deadlineAtMs) return;
    entry.deadlineAtMs = at;
    clearTimeout(entry.timer);
    if (at === Number.POSITIVE_INFINITY) return;
    entry.timer = setTimeout(() => {
      entry.abort.abort(
        new ChairError('REQUEST_TIMEOUT', `prepare of epoch ${entry.key.epoch} of ${entry.key.deployment}`, {
          expected: `slices fetched and loaded within ${deadlineMs} ms`,
          todo: 'What was fetched is kept; prepare again',
        }),
      );
    }, deadlineMs);
  }

  private async make(key: EpochKey, prepare: Prepare, signal: AbortSignal): Promise<Prepared> {
    signal.throwIfAborted();
    const { agent, sessions, store, budget } = this.options;
    const seats = new SeatTable(agent, prepare);
    const slices = slicesOf(seats, prepare);
    await this.makeMemory(slices, key.term);
    const refs = [...new Map(slices.flatMap(blobsOf).map((ref) => [ref.sha256, ref])).values()];
    const acquired = new Map<string, Session>();
    for (const ref of refs) store.pin(ref.sha256);
    try {
      const progress = this.progress(
        key,
        refs.reduce((sum, ref) => sum + ref.sizeBytes, 0),
      );
      let fetchedBytes = await this.fetchMissing(refs, signal, progress);
      const startedMs = this.options.nowMs();
      for (const slice of slices) {
        progress('load', 0);
        fetchedBytes += await this.load(slice, acquired, signal, progress);
      }
      for (const seat of seats.seats) checkPorts(seat, acquired.get(seat.slice));
      signal.throwIfAborted();
      const loadMs = this.options.nowMs() - startedMs;
      const joins = new JoinTable(seats, budget, () => this.order++, this.options.buffers);
      const stats = seats.seats.map(() => ({ framesRun: 0, runMs: 0 }));
      const epoch: Epoch = { ...key, seats, joins, stats, sessions: acquired, committed: false, released: false };
      this.held.set(keyText(key), epoch);
      progress('ready', 0);
      this.options.onPrepared(epoch);
      return { fetchedBytes, loadMs };
    } catch (error) {
      for (const slice of acquired.keys()) await sessions.release(slice).catch(() => undefined);
      throw error;
    } finally {
      for (const ref of refs) store.unpin(ref.sha256);
    }
  }

  /** What stands by, and seats of a former term, are kept only as long as their memory is not needed. */
  private async makeMemory(slices: readonly SliceRef[], term: number): Promise<void> {
    const { sessions, onMemoryShort } = this.options;
    try {
      sessions.checkMemory(slices);
    } catch (short) {
      const error = (await onMemoryShort(slices)) ? memoryError(sessions, slices) : short;
      if (error === undefined) return;
      const before = this.held.size;
      for (const old of [...this.held.values()]) if (old.term < term) await this.releaseOne(old);
      if (this.held.size === before) throw error;
      sessions.checkMemory(slices);
    }
  }

  /** A slice that does not load although its blobs were right once may have been spoilt on disk since: looked at again, once. */
  private async load(slice: SliceRef, acquired: Map<string, Session>, signal: AbortSignal, progress: Report): Promise<number> {
    const { sessions, store } = this.options;
    const sha256 = slice.graph.sha256;
    signal.throwIfAborted();
    try {
      acquired.set(sha256, await sessions.acquire(slice, () => progress('warm-up', 0)));
      return 0;
    } catch (error) {
      if (!isChairError(error, 'ENGINE_LOAD_FAILED')) throw error;
      for (const ref of blobsOf(slice)) store.distrust(ref.sha256);
      const fetched = await this.fetchMissing(blobsOf(slice), signal, progress);
      if (fetched === 0) throw error;
      acquired.set(sha256, await sessions.acquire(slice, () => progress('warm-up', 0)));
      return fetched;
    }
  }

  /** Bytes that came over the network. */
  private async fetchMissing(refs: readonly BlobRef[], signal: AbortSignal, progress: Report): Promise<number> {
    const { store, fetcher } = this.options;
    const missing: BlobRef[] = [];
    let here = 0;
    for (const ref of refs) {
      signal.throwIfAborted();
      if (await store.has(ref)) here += ref.sizeBytes;
      else missing.push(ref);
    }
    progress('fetch', here);
    await store.makeRoom(missing.reduce((sum, ref) => sum + ref.sizeBytes - Math.min(ref.sizeBytes, store.partBytes(ref.sha256)), 0));
    const fetched = missing.reduce((sum, ref) => sum + ref.sizeBytes - store.partBytes(ref.sha256), 0);
    await fetcher.fetchAll(missing, { signal, onBytes: (bytes) => progress('fetch', bytes) });
    return fetched;
  }

  /** Reports at most five times a second, and each new step. */
  private progress(key: EpochKey, totalBytes: number): Report {
    let doneBytes = 0;
    let lastMs = Number.NEGATIVE_INFINITY;
    let lastStep = '';
    return (step, bytes) => {
      doneBytes += bytes;
      const nowMs = this.options.nowMs();
      if (step === lastStep && nowMs - lastMs < PROGRESS_EVERY_MS) return;
      lastMs = nowMs;
      lastStep = step;
      const { deployment, epoch } = key;
      this.options.onProgress({
        agent: this.options.agent,
        deployment,
        epoch,
        step,
        doneBytes: Math.min(doneBytes, totalBytes),
        totalBytes,
      });
    };
  }
}

/** Undefined when they fit. */
function memoryError(sessions: SessionCache, slices: readonly SliceRef[]): unknown {
  try {
    sessions.checkMemory(slices);
    return undefined;
  } catch (error) {
    return error;
  }
}

function giveWay(): ChairError {
  return new ChairError('AGENT_BUSY', 'seats are prepared first');
}

type Report = (step: 'fetch' | 'load' | 'warm-up' | 'ready', bytes: number) => void;

/** The slices of my seats, each once. */
function slicesOf(seats: SeatTable, prepare: Prepare): SliceRef[] {
  const bySha = new Map(prepare.slices.map((slice) => [slice.graph.sha256, slice]));
  return [...new Set(seats.seats.map((seat) => seat.slice))].map((sha256) => {
    const slice = bySha.get(sha256);
    if (slice === undefined) {
      throw new ChairError('PLAN_INVALID', 'prepare names a slice it does not describe', {
        expected: `slice ${sha256} in its list`,
        came: 'none',
      });
    }
    return slice;
  });
}

function keyText(key: EpochKey): string {
  return `${key.term}/${key.epoch}/${key.deployment}`;
}

function compare(a: EpochKey, b: EpochKey): number {
  return a.term - b.term || a.epoch - b.epoch;
}

function stale(key: EpochKey, what: string): ChairError {
  return new ChairError('EPOCH_STALE', `${what} of epoch ${key.epoch} of ${key.deployment}, term ${key.term}`, {
    expected: 'an epoch that is not released',
    came: 'a released one',
  });
}

/** `22 seats of det, epoch 3` */
export function seatsText({ seats, deployment, epoch }: Epoch): string {
  const count = seats.seats.length;
  return `${count} seat${count === 1 ? '' : 's'} of ${deployment}, epoch ${epoch}`;
}
