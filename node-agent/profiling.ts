/**
 * Measures one slice for the scheduler: fetched like any other, then loaded and run in a process of its own, so that peaks of memory are true, the
 * sessions that serve are untouched, and a slice that does not fit takes nothing down with it. One after another; given up when the agent drains.
 */
import type { Bus } from '../broker/bus.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { Profile, ProfileResult } from '../broker/messages.js';
import type { BlobFetcher } from './fetch.js';
import { blobsOf, type Memory } from './sessions.js';
import type { BlobStore } from './store.js';

export interface MeasureOptions {
  readonly threads: number;
  readonly runs: number;
  readonly budgetMs: number;
  /** Runs shorter than this are measured in batches of about so long: a CPU quota is handed out in periods, and a short run would not see it. */
  readonly batchMs: number;
  /** Cores that a CPU quota leaves this process; 0 = no quota. */
  readonly cpuLimit: number;
  readonly prepack: boolean | 'auto';
}

export type Measurement = Pick<ProfileResult, 'loadMs' | 'samplesMs' | 'emptyBytes' | 'loadPeakBytes' | 'runPeakBytes'>;

/** Loads and runs the slice file. Rejects with what stood in the way, coded; with the signal's reason when that is given. */
export type Measure = (file: string, options: MeasureOptions, signal: AbortSignal) => Promise<Measurement>;

export interface ProfilerOptions {
  readonly store: BlobStore;
  readonly fetcher: BlobFetcher;
  /** undefined = this agent cannot. */
  readonly measure: Measure | undefined;
  readonly memory: () => Memory;
  /** Changes when frames run or seats are prepared. */
  readonly activity: () => number;
  /** Frames run or wait, or seats are being prepared. */
  readonly isBusy: () => boolean;
  readonly device: () => Pick<ProfileResult, 'engine' | 'engineVersion' | 'fingerprint'>;
  readonly threads: number;
  /** Most that may be asked for. */
  readonly cores: number;
  readonly batchMs: number;
  readonly cpuLimit: number;
  readonly prepack: boolean | 'auto';
}

/** The measuring process itself: Node with an engine. */
const PROCESS_BYTES = 112 * 2 ** 20;
const MAX_WAITING = 8;
/** Answers of so many jobs are remembered: a command may come twice. */
const REMEMBERED = 32;
/** A broker that was lost is found again by then, unless it stays away. */
const CUT_OFF_MS = 10_000;

export class Profiler {
  private readonly jobs = new Map<string, Promise<ProfileResult>>();
  /** Of those that are not over, by id. */
  private readonly aborts = new Map<string, AbortController>();
  private queue: Promise<unknown> = Promise.resolve();
  private stopped: ChairError | undefined;

  constructor(private readonly options: ProfilerOptions) {}

  /** The same id again joins the job, or gets its answer. `deadlineMs` 0 = none. */
  run(id: string, job: Profile, deadlineMs: number): Promise<ProfileResult> {
    const known = this.jobs.get(id);
    if (known !== undefined) return known;
    if (this.stopped !== undefined) return Promise.reject(this.stopped);
    if (this.aborts.size >= MAX_WAITING) {
      const todo = 'Ask again when they are done';
      return Promise.reject(new ChairError('AGENT_BUSY', `${MAX_WAITING} measurements wait already`, { todo }));
    }
    const abort = new AbortController();
    this.aborts.set(id, abort);
    const timer = deadlineMs > 0 ? setTimeout(() => abort.abort(late(deadlineMs)), deadlineMs) : undefined;
    const done = this.queue
      .then(() => this.measure(job, abort.signal))
      .finally(() => {
        clearTimeout(timer);
        this.aborts.delete(id);
      });
    this.queue = done.catch(() => undefined);
    this.jobs.set(id, done);
    done.catch(() => undefined);
    for (const old of [...this.jobs.keys()].slice(0, -REMEMBERED)) this.jobs.delete(old);
    return done;
  }

  /** Ends one measurement at once, under way or waiting; one that is over or unknown is left. */
  giveUp(id: string, why: string): void {
    this.aborts.get(id)?.abort(cancelled(`the measurement was given up: ${why}`));
  }

  giveUpAll(why: string): void {
    for (const id of this.aborts.keys()) this.giveUp(id, why);
  }

  /** Gives up what is under way and takes nothing more. Idempotent; resolves when no measuring process is left. */
  async stop(why: string): Promise<void> {
    this.stopped ??= cancelled(`the agent does not measure any more: ${why}`, 'Measure on another one.');
    for (const abort of this.aborts.values()) abort.abort(this.stopped);
    await this.queue;
  }

  private async measure(job: Profile, signal: AbortSignal): Promise<ProfileResult> {
    const { store, measure, threads, prepack, batchMs, cpuLimit } = this.options;
    signal.throwIfAborted();
    if (measure === undefined) throw new ChairError('PROFILE_FAILED', 'this agent has no engine that can be measured');
    const wanted = this.checked(job);
    const refs = blobsOf(job.slice);
    for (const ref of refs) store.pin(ref.sha256);
    try {
      await this.fetch(refs, signal);
      this.checkMemory(job);
      const before = this.options.activity();
      const busyBefore = this.options.isBusy();
      const options = { threads: wanted, runs: job.runs, budgetMs: job.budgetMs, batchMs, cpuLimit, prepack };
      const measured = await measure(store.path(job.slice.graph.sha256), options, signal);
      const busy = busyBefore || this.options.isBusy() || this.options.activity() !== before;
      return { ...this.options.device(), threads: wanted || threads, ...measured, busy };
    } catch (error) {
      // Whatever ends after the signal ended because of it.
      throw signal.aborted ? toChairError(signal.reason) : error;
    } finally {
      for (const ref of refs) store.unpin(ref.sha256);
    }
  }

  private checked({ threads, runs, budgetMs }: Profile): number {
    const { cores } = this.options;
    const wanted = threads === 0 ? this.options.threads : threads;
    const right =
      wanted >= 1 && wanted <= Math.max(cores, this.options.threads) && runs >= 1 && runs <= 1000 && budgetMs >= 0 && budgetMs <= 600_000;
    if (right) return wanted;
    throw new ChairError('PROFILE_INVALID', 'a measurement was asked for wrongly', {
      expected: `1 to ${cores} threads, 1 to 1000 runs, at most 600000 ms`,
      came: `${threads} threads, ${runs} runs, ${budgetMs} ms`,
    });
  }

  private async fetch(refs: readonly { readonly sha256: string; readonly sizeBytes: number }[], signal: AbortSignal): Promise<void> {
    const { store, fetcher } = this.options;
    const missing = [];
    for (const ref of refs) if (!(await store.has(ref))) missing.push(ref);
    await store.makeRoom(missing.reduce((sum, ref) => sum + Math.max(0, ref.sizeBytes - store.partBytes(ref.sha256)), 0));
    await fetcher.fetchAll(missing, { signal, onBytes: () => undefined });
    signal.throwIfAborted();
  }

  /** Before anything is started: what surely does not fit is not tried. */
  private checkMemory({ slice }: Profile): void {
    const { limitBytes, usedBytes } = this.options.memory();
    const need = slice.weightBytes + slice.activationBytes + PROCESS_BYTES;
    const have = Math.max(0, limitBytes - usedBytes);
    if (need <= have) return;
    throw new ChairError('AGENT_OUT_OF_MEMORY', 'the slice does not fit beside what runs here', {
      expected: `${need} bytes for weights, activations and a process`,
      came: `${have} bytes free of ${limitBytes}`,
    });
  }
}

/**
 * Measurements are given up when the broker stays away: whoever asked takes this agent for lost, and an answer finds nobody. Gives what ends it.
 */
export function giveUpWhenCutOff(
  bus: Pick<Bus, 'onConnect' | 'onDisconnect'>,
  profiler: Pick<Profiler, 'giveUpAll'>,
  afterMs = CUT_OFF_MS,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  const offLost = bus.onDisconnect(() => {
    clearTimeout(timer);
    timer = setTimeout(() => profiler.giveUpAll(`the broker has been away for ${(afterMs / 1000).toFixed(0)} s`), afterMs);
  });
  const offBack = bus.onConnect(() => clearTimeout(timer));
  return () => {
    offLost();
    offBack();
    clearTimeout(timer);
  };
}

function cancelled(message: string, todo?: string): ChairError {
  return new ChairError('PROFILE_CANCELLED', message, todo === undefined ? {} : { todo });
}

/** Not REQUEST_TIMEOUT, which says that no agent answered: this one is there, and other slices may be quick. */
function late(deadlineMs: number): ChairError {
  return new ChairError('PROFILE_FAILED', 'a measurement took too long and was given up', {
    expected: `the slice fetched, loaded and run within ${Math.round(deadlineMs)} ms`,
    todo: 'Cut it into more parts, or give it more time with --budget-ms.',
  });
}
