/**
 * Fetches blobs from the gateway in chunks (chunk-source.ts: on which way): a window of outstanding requests, each with its own deadline and retries; what came stays
 * on disk, so a lost connection, a restart or a deadline only interrupts. Verified by a streaming sha256 (store.ts). Of a blob so much is in memory as is asked for
 * at once; a chunk is written and hashed where the socket put it, and its memory given back at once.
 */
import { setMaxListeners } from 'node:events';
import type { BlobChunkHeader } from '../broker/activation.js';
import { ChairError, type ErrorCode, isChairError } from '../broker/errors.js';
import type { BlobRef } from '../broker/plan.js';
import type { SegmentReader } from '../broker/segments.js';
import { ChunkSource, type ChunkSourceOptions } from './chunk-source.js';
import type { Pace } from './pace.js';
import type { BlobStore, PartialBlob } from './store.js';

const WINDOW = 4;
/** Of a transfer that nobody waits for: what it holds up on a link of 100 Mbit/s is 10 ms. */
const PACED_CHUNK_BYTES = 128 * 1024;
/** Open files. */
const BLOBS_AT_ONCE = 16;

/** A slow link is known by how long its last chunk took: what takes less than so many times as long is not lost. */
const LATE = 2;
const MOST_USUAL_MS = 60_000;

export interface FetchOptions extends Omit<ChunkSourceOptions, 'onChunk' | 'onReady'> {
  readonly store: BlobStore;
  /** Default: as the way to the gateway has it, 512 KiB or 1 MiB. */
  readonly chunkBytes?: number;
  /** Requests outstanding for one blob; default 4. Of several blobs at once: so many chunks' worth of bytes. */
  readonly window?: number;
  /** Of the first try of one chunk, if the last one did not take as long; doubles with each, up to 16 times. Default 3,000. */
  readonly requestTimeoutMs?: number;
  /** Tries of one chunk while there is somebody to ask; default 8. */
  readonly maxTries?: number;
  /** [0, 1); jitter of the retries. */
  readonly random?: () => number;
}

export interface FetchCall {
  readonly signal: AbortSignal;
  /** Called with the bytes that arrived since the last call; those found on disk count too. */
  readonly onBytes: (bytes: number) => void;
  /** Nobody waits for it: one small chunk at a time, and only as often as the pace allows. */
  readonly pace?: Pace;
}

export class BlobFetcher {
  private readonly transfers = new Set<Transfer>();
  private readonly source: ChunkSource;
  /** Blobs on their way: a second one who wants the same blob must not write into the same file. */
  private readonly underWay = new Map<string, Promise<void>>();

  constructor(private readonly options: FetchOptions) {
    this.source = new ChunkSource({
      ...options,
      onChunk: ({ header, data }) => {
        let isTaken = false;
        for (const transfer of this.transfers) isTaken = transfer.onChunk(header, data) || isTaken;
        if (!isTaken) data.discard();
      },
      onReady: () => {
        for (const transfer of this.transfers) transfer.askAgain();
      },
    });
  }

  async start(): Promise<void> {
    await this.source.start();
  }

  /**
   * Returns when the blob is in the store, whole and right. Throws BLOB_NOT_FOUND, BLOB_CORRUPT (wrong twice), AGENT_STORE_FULL,
   * REQUEST_TIMEOUT, or the signal's reason. The caller made room and pinned it.
   */
  async fetch(ref: BlobRef, call: FetchCall): Promise<void> {
    for (let other = this.underWay.get(ref.sha256); other !== undefined; other = this.underWay.get(ref.sha256)) {
      await other.catch(() => undefined);
      call.signal.throwIfAborted();
      if (await this.options.store.has(ref)) {
        call.onBytes(ref.sizeBytes);
        return;
      }
    }
    const fetching = this.alone(ref, call).finally(() => this.underWay.delete(ref.sha256));
    this.underWay.set(ref.sha256, fetching);
    return fetching;
  }

  private async alone(ref: BlobRef, call: FetchCall): Promise<void> {
    try {
      await this.once(ref, call);
    } catch (error) {
      // A part left by an earlier life may have been spoilt, or one chunk on the way: from the start, once.
      if (!isChairError(error, 'BLOB_CORRUPT')) throw error;
      await this.once(ref, call);
    }
  }

  /**
   * Fetches several blobs, as many at once as fit into one window: a plan of many small slices costs few round trips, and a large blob still
   * has the link to itself. Throws what the first failure threw, after the others have ended.
   */
  async fetchAll(refs: readonly BlobRef[], call: FetchCall): Promise<void> {
    const { chunkBytes = this.source.chunkBytes, window = WINDOW } = this.options;
    const windowBytes = chunkBytes * window;
    const atOnce = call.pace === undefined ? BLOBS_AT_ONCE : 1;
    const failed = new AbortController();
    const signal = AbortSignal.any([call.signal, failed.signal]);
    setMaxListeners(BLOBS_AT_ONCE, signal);
    const running = new Set<Promise<void>>();
    let runningBytes = 0;
    let failure: { readonly reason: unknown } | undefined;
    const start = (ref: BlobRef) => {
      const bytes = Math.min(ref.sizeBytes, windowBytes);
      runningBytes += bytes;
      const one = this.fetch(ref, { ...call, signal })
        .catch((reason: unknown) => {
          failure ??= { reason };
          failed.abort(reason);
        })
        .finally(() => {
          runningBytes -= bytes;
          running.delete(one);
        });
      running.add(one);
    };
    for (const ref of refs) {
      while (running.size > 0 && (running.size >= atOnce || runningBytes + ref.sizeBytes > windowBytes)) await Promise.race(running);
      if (failure !== undefined) break;
      start(ref);
    }
    await Promise.all(running);
    if (failure !== undefined) throw failure.reason;
  }

  /** Idempotent. Transfers under way fail with STOPPED and keep what they have. */
  async stop(): Promise<void> {
    for (const transfer of this.transfers) transfer.fail(new ChairError('STOPPED', 'agent stopped while fetching a blob'));
    await this.source.stop();
  }

  private async once(ref: BlobRef, call: FetchCall): Promise<void> {
    call.signal.throwIfAborted();
    const letGo = this.source.hold();
    try {
      await this.transfer(ref, call);
    } finally {
      letGo();
    }
  }

  private async transfer(ref: BlobRef, call: FetchCall): Promise<void> {
    const part = await this.options.store.openPart(ref);
    let counted = 0;
    const count = (bytes: number) => {
      counted += bytes;
      call.onBytes(bytes);
    };
    count(part.length);
    const transfer = new Transfer(ref, part, this.options, count, this.source, call.pace);
    const abort = () => transfer.fail(call.signal.reason);
    this.transfers.add(transfer);
    call.signal.addEventListener('abort', abort, { once: true });
    try {
      if (call.signal.aborted) abort();
      await transfer.run();
      await part.finish();
    } catch (error) {
      await part.suspend();
      count(-counted);
      throw error;
    } finally {
      call.signal.removeEventListener('abort', abort);
      this.transfers.delete(transfer);
      transfer.close();
    }
  }
}

interface Outstanding {
  readonly offset: number;
  readonly length: number;
  /** Since when it is waited for, and when it was asked for last. */
  askedMs: number;
  againMs: number;
  tries: number;
  timer: NodeJS.Timeout | undefined;
}

/** One blob on its way. Chunks may come in any order; they are written in order, so that what is on disk is always a prefix. */
class Transfer {
  private readonly outstanding = new Map<number, Outstanding>();
  private readonly arrived = new Map<number, SegmentReader>();
  private next: number;
  private writing = false;
  private settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  private failure: { readonly reason: unknown } | undefined;
  /** Until the pace allows the next request. */
  private pause: NodeJS.Timeout | undefined;
  /** When the chunk was asked for that came last, and how long it took. */
  private askedMs = 0;
  private tookMs = 0;

  constructor(
    private readonly ref: BlobRef,
    private readonly part: PartialBlob,
    private readonly options: FetchOptions,
    private readonly onBytes: (bytes: number) => void,
    private readonly source: ChunkSource,
    private readonly pace: Pace | undefined,
  ) {
    this.next = part.length;
  }

  async run(): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.settle = { resolve, reject };
    });
    if (this.failure !== undefined) throw this.failure.reason;
    this.pump();
    this.finishIfComplete();
    await done;
  }

  fail(reason: unknown): void {
    this.failure ??= { reason };
    this.close();
    // A write under way must end before the file is closed: `drain` rejects then.
    if (!this.writing) this.settle?.reject(this.failure.reason);
  }

  close(): void {
    clearTimeout(this.pause);
    for (const request of this.outstanding.values()) clearTimeout(request.timer);
    this.outstanding.clear();
  }

  /** Requests sent into a connection that broke are lost, and time without one is no one's failure: all again, at once. */
  askAgain(): void {
    for (const request of this.outstanding.values()) {
      request.tries = 0;
      request.askedMs = performance.now();
      this.ask(request);
    }
  }

  /** True: its data is taken over. */
  onChunk(chunk: BlobChunkHeader, data: SegmentReader): boolean {
    if (chunk.sha256 !== this.ref.sha256 || this.failure !== undefined) return false;
    const request = this.outstanding.get(chunk.offset);
    // Late or doubled: any right chunk is good, whichever request it answers, and what is not awaited is not needed.
    if (request === undefined) return false;
    if (chunk.code !== '') {
      this.refused(request, chunk);
      return false;
    }
    if (chunk.totalBytes !== this.ref.sizeBytes || data.bytesLeft !== request.length) {
      this.fail(
        new ChairError('BLOB_CORRUPT', `chunk of blob ${this.ref.sha256}`, {
          expected: `${request.length} bytes of ${this.ref.sizeBytes}`,
          came: `${data.bytesLeft} of ${chunk.totalBytes}`,
        }),
      );
      return false;
    }
    clearTimeout(request.timer);
    this.outstanding.delete(chunk.offset);
    this.arrived.set(chunk.offset, data);
    this.askedMs = request.askedMs;
    this.tookMs = performance.now() - request.askedMs;
    this.onBytes(request.length);
    void this.drain();
    return true;
  }

  /** The gateway is busy: the request's timer asks again. Anything else is final. */
  private refused(request: Outstanding, chunk: BlobChunkHeader): void {
    if (chunk.code === 'QUEUE_FULL' && request.tries < this.maxTries) return;
    const code: ErrorCode = isChairError(Object.assign(new Error(), { code: chunk.code })) ? (chunk.code as ErrorCode) : 'BLOB_NOT_FOUND';
    this.fail(new ChairError(code, `gateway does not send blob ${this.ref.sha256}`, { came: chunk.code }));
  }

  private pump(): void {
    const { window = WINDOW } = this.options;
    const most = this.pace === undefined ? window : 1;
    while (this.next < this.ref.sizeBytes && this.outstanding.size + this.arrived.size < most) {
      const waitMs = this.pace?.waitMs ?? 0;
      if (waitMs > 0) {
        clearTimeout(this.pause);
        this.pause = setTimeout(() => this.pump(), waitMs);
        return;
      }
      const length = Math.min(this.chunkBytes, this.ref.sizeBytes - this.next);
      const now = performance.now();
      const request: Outstanding = { offset: this.next, length, askedMs: now, againMs: now, tries: 0, timer: undefined };
      this.next += length;
      this.outstanding.set(request.offset, request);
      this.ask(request);
    }
  }

  private ask(request: Outstanding): void {
    const { requestTimeoutMs = 3000, random = Math.random } = this.options;
    const { sha256 } = this.ref;
    const { offset, length } = request;
    clearTimeout(request.timer);
    // While nobody can be asked no try is used up; `askAgain` comes.
    if (!this.source.isReady) return;
    if (request.tries >= this.maxTries) {
      this.fail(
        new ChairError('REQUEST_TIMEOUT', `blob ${sha256} from the gateway`, {
          expected: `${length} bytes at ${offset}`,
          came: `no answer to ${this.maxTries} requests`,
        }),
      );
      return;
    }
    request.tries++;
    request.againMs = performance.now();
    this.wait(request, requestTimeoutMs * Math.min(16, 2 ** (request.tries - 1)) * (1 + random() / 4));
    this.source.ask({ sha256, offset, length });
  }

  /** For its chunk; asks again when it is late. */
  private wait(request: Outstanding, ms: number): void {
    request.timer = setTimeout(() => {
      const usualMs = Math.min(MOST_USUAL_MS, LATE * this.tookMs);
      const leftMs = usualMs - (performance.now() - request.againMs);
      if (leftMs > 0) {
        this.wait(request, leftMs);
        return;
      }
      this.source.late(request.againMs);
      this.ask(request);
    }, ms);
  }

  private async drain(): Promise<void> {
    if (this.writing) return;
    this.writing = true;
    try {
      for (;;) {
        const data = this.arrived.get(this.part.length);
        if (data === undefined || this.failure !== undefined) break;
        this.arrived.delete(this.part.length);
        await this.part.append(...data.rest);
        data.discard();
        this.pace?.took(performance.now() - this.askedMs);
        if (this.failure === undefined) this.pump();
      }
    } catch (error) {
      this.failure ??= { reason: error };
    }
    this.writing = false;
    if (this.failure !== undefined) this.settle?.reject(this.failure.reason);
    else this.finishIfComplete();
  }

  private finishIfComplete(): void {
    if (this.part.length === this.ref.sizeBytes) this.settle?.resolve();
  }

  private get chunkBytes(): number {
    const { chunkBytes = this.source.chunkBytes } = this.options;
    return this.pace === undefined ? chunkBytes : Math.min(chunkBytes, PACED_CHUNK_BYTES);
  }

  private get maxTries(): number {
    return this.options.maxTries ?? 8;
  }
}
