/**
 * Slices at hand for the case that other agents are lost: on disk, and loaded where memory is left over. Nothing that is served waits for it: seats that are
 * prepared interrupt it and take its memory, and blobs on disk that are not loaded may be evicted. A list that is not asked for again within its lease is given
 * up, so that no farewell has to reach the agent.
 */
import { ChairError, isChairError, toChairError } from '../broker/errors.js';
import type { Standby as Asked, Standing } from '../broker/messages.js';
import type { SliceRef } from '../broker/plan.js';
import type { BlobFetcher } from './fetch.js';
import { Pace } from './pace.js';
import { blobsOf, type Memory, type SessionCache } from './sessions.js';
import type { BlobStore } from './store.js';

/** Of the memory limit, what loaded slices may take with all else; the rest is for frames, and for the file cache. */
const MEMORY_SHARE = 0.85;
/** Of the time, fetching may take so much: frames come over the same links, and the gateway has others to serve. */
const FETCH_SHARE = 0.5;
/** While seats of this agent run, whose processor it takes, too; they do when one ran so short a time ago, ms. */
const SERVING_FETCH_SHARE = 0.1;
const SERVING_MS = 5000;

export interface StandbyOptions {
  readonly store: BlobStore;
  readonly fetcher: BlobFetcher;
  readonly sessions: SessionCache;
  readonly memory: () => Memory;
  /** Runs work when no seats are being prepared, and aborts it when some are. */
  readonly whenIdle: <T>(work: (signal: AbortSignal) => Promise<T>) => Promise<T>;
  /** Grows with each run of a seat. */
  readonly activity: () => number;
  readonly nowMs: () => number;
  readonly log: (line: string) => void;
}

interface Wanted {
  readonly slices: readonly SliceRef[];
  readonly untilMs: number;
}

export class Standby {
  private readonly wanted = new Map<string, Wanted>();
  /** Loaded for this alone; each holds one reference of the session cache. */
  private readonly held = new Map<string, SliceRef>();
  private last: Promise<unknown> = Promise.resolve();
  private waiting = 0;
  private stopped = false;
  /** Aborted when a list comes that somebody waits for. */
  private unhurried = new AbortController();
  /** A fetch waits for a broker that is away as long as it takes: not beyond the end of the agent. */
  private readonly ending = new AbortController();

  private readonly pace: Pace;
  private seen = { activity: 0, changedMs: Number.NEGATIVE_INFINITY };

  constructor(private readonly options: StandbyOptions) {
    this.pace = new Pace(
      () => (this.isServing() ? SERVING_FETCH_SHARE : FETCH_SHARE),
      () => performance.now(),
    );
  }

  /** Resolves when all of the list was tried. Never throws: what could not be had is said in the answer. */
  set({ deployment, slices, leaseMs, urgent }: Asked): Promise<Standing> {
    if (slices.length === 0) this.wanted.delete(deployment);
    else this.wanted.set(deployment, { slices, untilMs: this.options.nowMs() + leaseMs });
    this.waiting++;
    if (urgent) {
      this.unhurried.abort(new ChairError('AGENT_BUSY', 'other slices are needed sooner'));
      this.unhurried = new AbortController();
    }
    const patience = urgent ? undefined : this.unhurried.signal;
    const turn = this.last.then(() => this.bring(slices, patience)).finally(() => this.waiting--);
    this.last = turn;
    return turn;
  }

  /** Something is fetched or loaded, or is about to be. */
  get isBusy(): boolean {
    return this.waiting > 0;
  }

  /** Gives up lists whose lease is over. */
  expire(nowMs: number): void {
    let over = false;
    for (const [deployment, { untilMs }] of this.wanted) {
      if (nowMs < untilMs) continue;
      this.wanted.delete(deployment);
      over = true;
    }
    if (!over) return;
    this.last = this.last.then(() => this.drop());
  }

  /** Memory is short: whatever is not in `needed` goes. True when something went. */
  async giveWay(needed: readonly SliceRef[]): Promise<boolean> {
    const kept = new Set(needed.map(({ graph }) => graph.sha256));
    return this.release((sha256) => kept.has(sha256));
  }

  /** Idempotent: nothing more is begun; resolves when nothing is under way. Sessions go with their engine. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.wanted.clear();
    this.ending.abort(new ChairError('STOPPED', 'the agent stops'));
    await this.last;
  }

  /** `patience`: nobody waits for it, until this is aborted; undefined = somebody does. */
  private async bring(slices: readonly SliceRef[], patience: AbortSignal | undefined): Promise<Standing> {
    await this.drop();
    const loaded: string[] = [];
    const stored: string[] = [];
    const why: string[] = [];
    for (const slice of slices) {
      if (this.stopped) break;
      try {
        patience?.throwIfAborted();
        (await this.have(slice, patience)) ? loaded.push(slice.graph.sha256) : stored.push(slice.graph.sha256);
      } catch (error) {
        const { code, message } = toChairError(error);
        why.push(`${slice.graph.sha256.slice(0, 8)}: ${code} ${message}`);
      }
    }
    return { loaded, stored, why: why.join('; ').slice(0, 2000) };
  }

  /** True when it is loaded, false when it is on disk. */
  private async have(slice: SliceRef, patience: AbortSignal | undefined): Promise<boolean> {
    for (;;) {
      let interrupted = false;
      try {
        return await this.options.whenIdle(async (signal) => {
          signal.addEventListener('abort', () => {
            interrupted = true;
          });
          const signals = [signal, this.ending.signal, ...(patience === undefined ? [] : [patience])];
          await this.fetch(slice, AbortSignal.any(signals), patience === undefined ? undefined : this.pace);
          return this.load(slice);
        });
      } catch (error) {
        // What was fetched is kept: it goes on where it was.
        if (!interrupted || this.stopped || patience?.aborted === true) throw error;
      }
    }
  }

  private async fetch(slice: SliceRef, signal: AbortSignal, pace: Pace | undefined): Promise<void> {
    const { store, fetcher } = this.options;
    const refs = blobsOf(slice);
    for (const ref of refs) store.pin(ref.sha256);
    try {
      const missing = [];
      for (const ref of refs) {
        signal.throwIfAborted();
        if (!(await store.has(ref))) missing.push(ref);
      }
      await store.makeRoom(missing.reduce((sum, ref) => sum + ref.sizeBytes - Math.min(ref.sizeBytes, store.partBytes(ref.sha256)), 0));
      await fetcher.fetchAll(missing, { signal, onBytes: () => undefined, ...(pace === undefined ? {} : { pace }) });
    } finally {
      for (const ref of refs) store.unpin(ref.sha256);
    }
  }

  private async load(slice: SliceRef): Promise<boolean> {
    const { sessions, memory, store, log } = this.options;
    const { sha256 } = slice.graph;
    if (this.held.has(sha256)) return true;
    if (this.stopped || !this.isWanted(sha256)) return false;
    const { limitBytes, usedBytes } = memory();
    const shared = sessions.loaded.includes(sha256);
    // Weights are read from their files: they do not count as used, but a plan that reads them from the disk with each frame would not be one.
    const needed = shared ? 0 : usedBytes + sessions.weightBytes + slice.weightBytes + slice.activationBytes;
    if (needed > MEMORY_SHARE * limitBytes) return false;
    try {
      await sessions.acquire(slice);
    } catch (error) {
      // Spoilt on disk since it was hashed: the next list looks again.
      if (isChairError(error, 'ENGINE_LOAD_FAILED')) for (const ref of blobsOf(slice)) store.distrust(ref.sha256);
      throw error;
    }
    this.held.set(sha256, slice);
    if (!shared) log(`slice ${sha256.slice(0, 8)} is loaded in case that another agent is lost`);
    return true;
  }

  /** Gives up what no list names. */
  private async drop(): Promise<void> {
    await this.release((sha256) => this.isWanted(sha256));
  }

  private async release(isKept: (sha256: string) => boolean): Promise<boolean> {
    const gone = [...this.held.keys()].filter((sha256) => !isKept(sha256));
    for (const sha256 of gone) {
      this.held.delete(sha256);
      await this.options.sessions.release(sha256);
    }
    return gone.length > 0;
  }

  private isServing(): boolean {
    const [activity, now] = [this.options.activity(), this.options.nowMs()];
    if (activity !== this.seen.activity) this.seen = { activity, changedMs: now };
    return now - this.seen.changedMs < SERVING_MS;
  }

  private isWanted(sha256: string): boolean {
    for (const { slices } of this.wanted.values()) if (slices.some(({ graph }) => graph.sha256 === sha256)) return true;
    return false;
  }
}
