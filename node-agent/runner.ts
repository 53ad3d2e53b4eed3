/**
 * Runs ready frames: of one deployment the oldest frame first, whatever the seat, and between deployments the one that this agent heard of first. An agent that holds a
 * part of a late stage besides an early one hears of old frames after newer ones; were they to wait behind those, so would every agent that has done its part of them.
 * The engine has one queue and runs one slice at a time; two are handed to it, so that it does not idle while this thread takes the first one's outputs.
 */

import type { Buffers } from '../broker/buffers.js';
import { toChairError } from '../broker/errors.js';
import type { Tensor } from '../broker/tensor.js';
import type { Epoch } from './epochs.js';
import type { FrameBudget, ReadyFrame } from './join.js';
import { RunTimes } from './run-times.js';

export interface Job {
  readonly epoch: Epoch;
  readonly frame: ReadyFrame;
}

/** When a run's inputs were complete, when the engine took it up, and when its outputs were there; ms on the agent's clock. */
export interface RunSpan {
  readonly readyMs: number;
  readonly startMs: number;
  readonly endMs: number;
}

export interface RunnerOptions {
  readonly budget: FrameBudget;
  /** Inputs come from here and outputs are made here. */
  readonly buffers: Buffers;
  /** Outputs of a finished run whose frame is still wanted; the receiver owns them. Must not block. */
  readonly onOutputs: (job: Job, outputs: Readonly<Record<string, Tensor>>) => void;
  readonly onFailure: (job: Job, error: unknown) => void;
  /** A run is done, whether its frame is still wanted or not. */
  readonly onRun?: (job: Job, span: RunSpan) => void;
  readonly nowMs: () => number;
  /** Runs handed to the engine at once; default 2. */
  readonly depth?: number;
}

/** Weight of the newest run in the mean. */
const NEWEST = 0.2;

export class Runner {
  /** Runs finished since the start. */
  finished = 0;
  /** Waiting and computing, of late. */
  readonly times = new RunTimes();
  private queue: Job[] = [];
  private readonly readyMs = new WeakMap<Job, number>();
  private readonly running = new Map<Job, Promise<void>>();
  private stopped = false;
  /** When a run began in an idle engine, or ended. */
  private movedMs = performance.now();

  constructor(private readonly options: RunnerOptions) {}

  /** Waiting to run, of one seat or in all. */
  waiting(epoch?: Epoch, seat?: number): number {
    if (epoch === undefined) return this.queue.length;
    return this.queue.filter((job) => job.epoch === epoch && job.frame.seat.index === seat).length;
  }

  /** Something runs or waits. */
  get isBusy(): boolean {
    return this.running.size > 0 || this.queue.length > 0;
  }

  /** How long the engine has been at work without finishing anything: native code that hangs is seen by nothing else. */
  stuckMs(nowMs = performance.now()): number {
    return this.running.size === 0 ? 0 : nowMs - this.movedMs;
  }

  push(job: Job): void {
    if (this.stopped || !wanted(job)) {
      this.discard(job);
      return;
    }
    this.readyMs.set(job, this.options.nowMs());
    // Nearly always near the last place; ties (two seats of one frame) in order of arrival.
    let at = this.queue.length;
    while (at > 0 && goesBefore(job, this.queue[at - 1])) at--;
    this.queue.splice(at, 0, job);
    this.next();
  }

  /** Drops what nobody wants any more: after a cancel, a new low-water mark or a release. */
  purge(): void {
    const kept = this.queue.filter(wanted);
    if (kept.length === this.queue.length) return;
    for (const job of this.queue) if (!wanted(job)) this.discard(job);
    this.queue = kept;
  }

  /** Resolves when no run of the epoch is in the engine. */
  async settled(epoch: Epoch): Promise<void> {
    await Promise.all([...this.running].filter(([job]) => job.epoch === epoch).map(([, done]) => done));
  }

  /** Idempotent: drops the queue and waits for what is in the engine. */
  async stop(): Promise<void> {
    this.stopped = true;
    for (const job of this.queue) this.discard(job);
    this.queue = [];
    await Promise.all(this.running.values());
  }

  private next(): void {
    while (this.running.size < (this.options.depth ?? 2)) {
      const job = this.queue.shift();
      if (job === undefined) return;
      if (!wanted(job)) {
        this.discard(job);
        continue;
      }
      if (this.running.size === 0) this.movedMs = performance.now();
      const done = this.run(job).finally(() => {
        this.running.delete(job);
        this.movedMs = performance.now();
        this.next();
      });
      this.running.set(job, done);
    }
  }

  private note(job: Job, runMs: number): void {
    const endMs = this.options.nowMs();
    const readyMs = this.readyMs.get(job) ?? endMs - runMs;
    this.times.add(endMs - readyMs, endMs);
    // The engine's own figure: what is before it in this span is waiting, also in the engine's queue.
    this.options.onRun?.(job, { readyMs, startMs: Math.max(readyMs, endMs - runMs), endMs });
  }

  /** A frame that will not run. */
  private discard({ frame }: Job): void {
    this.options.budget.free(frame.bytes);
    for (const { bytes } of Object.values(frame.inputs)) this.options.buffers.give(bytes);
  }

  /** Never rejects. */
  private async run(job: Job): Promise<void> {
    const { epoch, frame } = job;
    const { buffers } = this.options;
    try {
      const session = epoch.sessions.get(frame.seat.slice);
      if (session === undefined) throw new Error(`no session for slice ${frame.seat.slice}`);
      const { outputs, runMs } = await session.run(frame.inputs, { transfer: true, outputs: frame.seat.wanted, buffers });
      this.finished++;
      this.note(job, runMs);
      const stats = epoch.stats[frame.seat.index];
      if (stats !== undefined) {
        stats.framesRun++;
        stats.runMs = stats.framesRun === 1 ? runMs : stats.runMs + NEWEST * (runMs - stats.runMs);
      }
      if (wanted(job) && !this.stopped) this.options.onOutputs(job, outputs);
      else for (const { bytes } of Object.values(outputs)) buffers.give(bytes);
    } catch (error) {
      this.options.onFailure(job, toChairError(error, 'ENGINE_RUN_FAILED'));
    } finally {
      this.options.budget.free(frame.bytes);
    }
  }
}

/** Does anybody still wait for this frame's result? */
export function wanted({ epoch, frame }: Job): boolean {
  return !epoch.released && epoch.joins.wants(frame.frame, frame.attempt);
}

/** Whether `job` goes before one that is ready already. Frames of a deployment are numbered as they were admitted, over its epochs, too. */
function goesBefore(job: Job, other: Job | undefined): boolean {
  if (other === undefined) return false;
  const { deployment, term } = other.epoch;
  if (deployment === job.epoch.deployment && term === job.epoch.term) return job.frame.frame < other.frame.frame;
  return job.frame.order < other.frame.order;
}
