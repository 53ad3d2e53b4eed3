/** Loaded slices, shared by all seats and epochs that use them; the last one to let go disposes the session. */
import { ChairError } from '../broker/errors.js';
import type { SliceRef } from '../broker/plan.js';
import type { Engine, LoadOptions, Session } from '../models/engine/engine.js';
import type { BlobStore } from './store.js';

export interface Memory {
  /** What this process may use: the configured limit, the cgroup's, or the machine's. */
  readonly limitBytes: number;
  /** What cannot be given back: anonymous memory of the process. */
  readonly usedBytes: number;
}

interface Held {
  readonly slice: SliceRef;
  readonly session: Session;
  users: number;
}

export class SessionCache {
  private readonly held = new Map<string, Held>();

  constructor(
    private readonly engine: Engine,
    private readonly store: BlobStore,
    private readonly loadOptions: LoadOptions,
    private readonly memory: () => Memory,
  ) {}

  /** Graph shas in memory. */
  get loaded(): string[] {
    return [...this.held.keys()];
  }

  /** Of all that is loaded. */
  get weightBytes(): number {
    let sum = 0;
    for (const { slice } of this.held.values()) sum += slice.weightBytes;
    return sum;
  }

  /** Throws AGENT_OUT_OF_MEMORY when those of `slices` that are not loaded yet would not fit. */
  checkMemory(slices: readonly SliceRef[]): void {
    const fresh = slices.filter((slice) => !this.held.has(slice.graph.sha256));
    const need = fresh.reduce((sum, slice) => sum + slice.weightBytes + slice.activationBytes, 0);
    const { limitBytes, usedBytes } = this.memory();
    const have = Math.max(0, limitBytes - usedBytes);
    if (need <= have) return;
    throw new ChairError('AGENT_OUT_OF_MEMORY', `${fresh.length} slices do not fit into memory`, {
      expected: `${need} bytes for weights and activations`,
      came: `${have} bytes free of ${limitBytes}`,
      todo: 'Cut the model into more parts, add agents, or raise its memory limit (--memory-mb)',
    });
  }

  /**
   * Loads and warms up a slice whose blobs are in the store, or shares it. Needs one `release`. Throws ENGINE_LOAD_FAILED, ENGINE_RUN_FAILED.
   * Calls for one slice must not overlap (prepares run one after another).
   */
  async acquire(slice: SliceRef, onWarmUp: () => void = () => undefined): Promise<Session> {
    const sha256 = slice.graph.sha256;
    const held = this.held.get(sha256);
    if (held !== undefined) {
      held.users++;
      return held.session;
    }
    const session = await this.engine.load(this.store.path(sha256), this.loadOptions);
    try {
      onWarmUp();
      await session.warmUp();
    } catch (error) {
      await session.dispose().catch(() => undefined);
      throw error;
    }
    for (const ref of blobsOf(slice)) this.store.pin(ref.sha256);
    this.held.set(sha256, { slice, session, users: 1 });
    return session;
  }

  async release(sha256: string): Promise<void> {
    const held = this.held.get(sha256);
    if (held === undefined || --held.users > 0) return;
    this.held.delete(sha256);
    // A session of an engine that is gone is gone.
    await held.session.dispose().catch(() => undefined);
    for (const ref of blobsOf(held.slice)) this.store.unpin(ref.sha256);
  }
}

/** The graph file and the weights it names. */
export function blobsOf(slice: SliceRef) {
  return [slice.graph, ...slice.blobs];
}
