/** Answers agents' requests for chunks of blobs from the store folder. A blob is a file named by its sha256; nothing else can be named. */
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Bus } from '../broker/bus.js';
import type { ErrorCode } from '../broker/errors.js';
import type { BlobChunk, BlobRequest } from '../broker/messages.js';
import { NAME_PATTERN, type Topics } from '../broker/topics.js';

export const MAX_CHUNK_BYTES = 2 ** 20;
const SHA256 = /^[0-9a-f]{64}$/;
/** Chunks read and sent at once: bounds memory to this many MiB. */
const CONCURRENT = 8;
/** Requests that may wait; an agent asks again for what is dropped. */
const MOST_WAITING = 1024;

export interface BlobServerOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  readonly directory: string;
  readonly log?: (line: string) => void;
}

export class BlobServer {
  readonly #o: BlobServerOptions;
  readonly #waiting: BlobRequest[] = [];
  readonly #running = new Set<Promise<void>>();
  /** Blobs that are elsewhere for a while. */
  readonly #lent = new Map<string, string>();
  #unsubscribe: (() => Promise<void>) | undefined;
  #stopped = false;
  bytesSent = 0;

  constructor(options: BlobServerOptions) {
    this.#o = options;
  }

  /** Serves this file as a blob, too, until it is given back. */
  lend(sha256: string, file: string): () => void {
    this.#lent.set(sha256, file);
    return () => void this.#lent.delete(sha256);
  }

  async start(): Promise<void> {
    this.#unsubscribe = await this.#o.bus.subscribe(this.#o.topics.blobRequest, (request) => {
      if (this.#stopped || this.#waiting.length >= MOST_WAITING || !NAME_PATTERN.test(request.agent)) return;
      this.#waiting.push(request);
      this.#pump();
    });
  }

  /** Resolves when no file is open any more. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#waiting.length = 0;
    await this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    await Promise.all(this.#running);
  }

  #pump(): void {
    while (this.#running.size < CONCURRENT) {
      const request = this.#waiting.shift();
      if (request === undefined) return;
      const job = this.#answer(request).finally(() => {
        this.#running.delete(job);
        this.#pump();
      });
      this.#running.add(job);
    }
  }

  async #answer(request: BlobRequest): Promise<void> {
    const chunk = await this.#read(request);
    if (this.#stopped) return;
    try {
      await this.#o.bus.publish(this.#o.topics.blobChunk(request.agent), chunk);
      this.bytesSent += chunk.data.length;
    } catch (error) {
      // The agent's request times out and is sent again.
      this.#o.log?.(`a chunk for ${request.agent} was not sent: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #read({ id, sha256, offset, length }: BlobRequest): Promise<BlobChunk> {
    const refused = (code: ErrorCode): BlobChunk => ({ id, sha256, offset, totalBytes: 0, code, data: new Uint8Array(0) });
    if (!SHA256.test(sha256)) return refused('BLOB_NOT_FOUND');
    if (!(offset >= 0 && length >= 0)) return refused('CODEC_LIMIT');
    let file: FileHandle | undefined;
    try {
      file = await open(this.#lent.get(sha256) ?? join(this.#o.directory, sha256), 'r');
      const { size } = await file.stat();
      const wanted = Math.min(length, MAX_CHUNK_BYTES, Math.max(0, size - offset));
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafeSlow(wanted), 0, wanted, offset);
      return { id, sha256, offset, totalBytes: size, code: '', data: buffer.subarray(0, bytesRead) };
    } catch {
      return refused('BLOB_NOT_FOUND');
    } finally {
      await file?.close();
    }
  }
}
