/**
 * Answers agents' requests for chunks of blobs from the store folder, on the way they came: a connection beside the agent's lane, or the broker. A blob is a file named
 * by its sha256; nothing else can be named. Agents take turns, so that one that reads slowly, or not at all, keeps nobody else waiting.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type BlobChunkHeader, encodeBlobChunk } from '../broker/activation.js';
import { BufferPool } from '../broker/buffers.js';
import type { Bus } from '../broker/bus.js';
import { decode } from '../broker/codec.js';
import { ChairError, type ErrorCode, isChairError } from '../broker/errors.js';
import type { LaneMessage, Lanes } from '../broker/lanes/lane.js';
import type { BlobRequest } from '../broker/messages.js';
import { Repetition } from '../broker/repetition.js';
import { discard, joinSegments } from '../broker/segments.js';
import { NAME_PATTERN, type Topics } from '../broker/topics.js';

export const MAX_CHUNK_BYTES = 2 ** 20;
const SHA256 = /^[0-9a-f]{64}$/;
/** Chunks read and sent at once, and to one agent: bounds memory to this many MiB. */
const CONCURRENT = 16;
const CONCURRENT_PER_AGENT = 2;
/** Requests of one agent that may wait, and of all; an agent asks again for what is dropped. */
const MOST_WAITING_PER_AGENT = 64;
const MOST_WAITING = 4096;
/** Kept for the next chunks. */
const IDLE_BYTES = CONCURRENT * MAX_CHUNK_BYTES;
/** What takes longer waits for an agent that does not read: it is one of those of this agent still, and no longer one of all. */
const STUCK_MS = 3000;

export interface BlobServerOptions {
  readonly bus: Bus;
  /** Default: everything goes through the broker. */
  readonly lanes?: Pick<Lanes, 'on'>;
  readonly topics: Topics;
  readonly directory: string;
  readonly log?: (line: string) => void;
  /** For tests; default 3,000. */
  readonly stuckMs?: number;
  /** Monotonic, ms. */
  readonly nowMs?: () => number;
}

interface Asked {
  readonly request: BlobRequest;
  /** Resolves when `data` is not read any more. */
  readonly send: (header: BlobChunkHeader, data: Uint8Array) => Promise<unknown>;
  /** Nothing can be sent any more. */
  readonly isGone: () => boolean;
}

interface Queue {
  readonly waiting: Asked[];
  running: number;
}

export class BlobServer {
  readonly #o: BlobServerOptions;
  /** By agent; whose turn is next comes first. */
  readonly #queues = new Map<string, Queue>();
  readonly #reading = new Set<Promise<unknown>>();
  #running = 0;
  readonly #buffers = new BufferPool(IDLE_BYTES);
  /** Blobs that are elsewhere for a while. */
  readonly #lent = new Map<string, string>();
  /** An agent can ask, read nothing and go as often as it likes. */
  readonly #lines: Repetition;
  #waiting = 0;
  #unsubscribe: (() => Promise<void>) | undefined;
  #off: (() => void) | undefined;
  #stopped = false;
  bytesSent = 0;

  constructor(options: BlobServerOptions) {
    this.#o = options;
    this.#lines = new Repetition((line) => options.log?.(line), options.nowMs);
  }

  /** Serves this file as a blob, too, until it is given back. */
  lend(sha256: string, file: string): () => void {
    this.#lent.set(sha256, file);
    return () => void this.#lent.delete(sha256);
  }

  async start(): Promise<void> {
    const { bus, lanes, topics } = this.#o;
    this.#off = lanes?.on(topics.blobRequest.name, (message) => this.#beside(message));
    this.#unsubscribe = await bus.subscribe(topics.blobRequest, (request) => {
      const send = (header: BlobChunkHeader, data: Uint8Array) => bus.publish(topics.blobChunk(request.agent), { ...header, data });
      this.#take({ request, send, isGone: () => false });
    });
  }

  /** Resolves when no file is open any more; what is being sent goes as far as its connection lets it. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#queues.clear();
    this.#off?.();
    this.#off = undefined;
    await this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    await Promise.all(this.#reading);
  }

  /** On a connection beside the lane. What is relayed is heard on the bus. */
  #beside({ from, relayed, payload, answer, isGone = () => false }: LaneMessage): void {
    if (relayed || answer === undefined) return;
    const { blobRequest, blobChunk } = this.#o.topics;
    const request = decode(blobRequest.schema, joinSegments(payload)) as BlobRequest;
    discard(payload);
    if (request.agent !== from) {
      throw new ChairError('SENDER_WRONG', "a request for a blob in another's name", { expected: from, came: request.agent.slice(0, 100) });
    }
    this.#take({ request, isGone, send: (header, data) => answer(blobChunk(from).name, encodeBlobChunk(header, data)) });
  }

  #take(asked: Asked): void {
    const { agent } = asked.request;
    if (this.#stopped || this.#waiting >= MOST_WAITING || !NAME_PATTERN.test(agent)) return;
    const queue = this.#queues.get(agent) ?? { waiting: [], running: 0 };
    // Asked for again: on a link that is slow, or since the connection broke that the other would be answered on.
    const same = queue.waiting.findIndex(({ request }) => isSame(request, asked.request));
    if (same >= 0) {
      queue.waiting[same] = asked;
      return;
    }
    if (queue.waiting.length >= MOST_WAITING_PER_AGENT) return;
    queue.waiting.push(asked);
    this.#waiting++;
    this.#queues.set(agent, queue);
    this.#pump();
  }

  #pump(): void {
    // Whoever had his turn goes to the end of the row, and is looked at again there.
    for (const [agent, queue] of this.#queues) {
      if (this.#running >= CONCURRENT) return;
      if (queue.running >= CONCURRENT_PER_AGENT) continue;
      const next = this.#nextOf(queue);
      if (next === undefined) {
        if (queue.running === 0) this.#queues.delete(agent);
        continue;
      }
      this.#queues.delete(agent);
      this.#queues.set(agent, queue);
      this.#serve(agent, queue, next);
    }
  }

  #serve(agent: string, queue: Queue, asked: Asked): void {
    let isOneOfAll = true;
    const leave = (): void => {
      if (isOneOfAll) this.#running--;
      isOneOfAll = false;
      this.#pump();
    };
    const stuck = setTimeout(leave, this.#o.stuckMs ?? STUCK_MS).unref();
    queue.running++;
    this.#running++;
    void this.#answer(asked).finally(() => {
      clearTimeout(stuck);
      queue.running--;
      if (queue.running === 0 && queue.waiting.length === 0) this.#queues.delete(agent);
      leave();
    });
  }

  /** Who has gone waits for nothing: its requests are dropped, and their files not read. */
  #nextOf(queue: Queue): Asked | undefined {
    for (;;) {
      const next = queue.waiting.shift();
      if (next !== undefined) this.#waiting--;
      if (next?.isGone() !== true) return next;
    }
  }

  async #answer({ request, send }: Asked): Promise<void> {
    const reading = this.#read(request);
    this.#reading.add(reading);
    const { header, data } = await reading.finally(() => this.#reading.delete(reading));
    if (this.#stopped) return;
    try {
      await send(header, data);
      this.bytesSent += data.length;
      this.#buffers.give(data);
    } catch (error) {
      // The agent asks again, and knows when its connection broke. A socket may still look at the buffer: it is left to the garbage collector.
      if (this.#stopped || isChairError(error, 'LANE_DOWN')) return;
      const why = error instanceof Error ? error.message : String(error);
      this.#lines.say(request.agent, `a chunk for ${request.agent} was not sent: ${why}`);
    }
  }

  async #read({ id, sha256, offset, length }: BlobRequest): Promise<{ readonly header: BlobChunkHeader; readonly data: Uint8Array }> {
    const refused = (code: ErrorCode) => ({ header: { id, sha256, offset, totalBytes: 0, code }, data: new Uint8Array(0) });
    if (!SHA256.test(sha256)) return refused('BLOB_NOT_FOUND');
    if (!(offset >= 0 && length >= 0)) return refused('CODEC_LIMIT');
    let file: FileHandle | undefined;
    try {
      file = await open(this.#lent.get(sha256) ?? join(this.#o.directory, sha256), 'r');
      const { size } = await file.stat();
      const wanted = Math.min(length, MAX_CHUNK_BYTES, Math.max(0, size - offset));
      const buffer = this.#buffers.take(wanted);
      const { bytesRead } = await file.read(buffer, 0, wanted, offset);
      return { header: { id, sha256, offset, totalBytes: size, code: '' }, data: buffer.subarray(0, bytesRead) };
    } catch {
      return refused('BLOB_NOT_FOUND');
    } finally {
      await file?.close();
    }
  }
}

function isSame(a: BlobRequest, b: BlobRequest): boolean {
  return a.sha256 === b.sha256 && a.offset === b.offset && a.length === b.length;
}
