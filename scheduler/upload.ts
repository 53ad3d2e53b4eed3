/** The client's side of sending a model: a few chunks at once, acknowledged, from where the gateway stands. */
import { open } from 'node:fs/promises';
import type { Bus } from '../broker/bus.js';
import { ChairError, isChairError, isErrorCode } from '../broker/errors.js';
import type { ModelAnswer, ModelFile, ModelOffer, UploadAck } from '../broker/messages.js';
import type { Topics } from '../broker/topics.js';
import { type ModelFilePlace, modelFiles } from '../models/onnx/model-files.js';

export interface UploadOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  /** Name of the client: where acknowledgements go. */
  readonly client: string;
  readonly offer: (offer: ModelOffer) => Promise<ModelAnswer>;
  readonly onProgress?: (sentBytes: number, totalBytes: number) => void;
  /** Offer the path, too: the gateway may be on this machine. Default true. */
  readonly samePath?: boolean;
  /** Ends it with its reason. */
  readonly signal?: AbortSignal;
  /** Give up when the gateway takes nothing for so long; default 60,000. */
  readonly silentMs?: number;
}

export const CHUNK_BYTES = 512 * 1024;
const WINDOW = 4;
/** Without progress for so long, what is not acknowledged is sent again. */
const AGAIN_MS = 2000;
/** A model may lose a file to eviction, or arrive wrong, so often. */
const ROUNDS = 3;

/**
 * Makes sure that the gateway has the model; gives what a deploy request calls it. Throws MODEL_NOT_FOUND, MODEL_UNREADABLE, MODEL_WEIGHTS_MISSING (files
 * here), UPLOAD_TOO_LARGE, UPLOAD_BUSY, GATEWAY_STORE_FULL, BLOB_CORRUPT, REQUEST_TIMEOUT.
 */
export async function upload(path: string, options: UploadOptions): Promise<string> {
  return uploadFiles(await modelFiles(path), options.samePath === false ? '' : path, options);
}

/** Sends what the gateway lacks of these files, which it keeps under one name together. `path`: where it may have them itself; '' = nowhere. */
export async function uploadFiles(files: readonly ModelFilePlace[], path: string, options: UploadOptions): Promise<string> {
  const places = new Map(files.map((file) => [file.sha256, file]));
  const offer = {
    path,
    files: files.map(({ location, sha256, sizeBytes }) => ({ location, sha256, sizeBytes })),
  };
  let failure: Error | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const { model, missing } = await options.offer(offer);
    if (model !== '') return model;
    const total = missing.reduce((sum, { sha256 }) => sum + (places.get(sha256)?.sizeBytes ?? 0), 0);
    let before = 0;
    try {
      for (const { sha256, heldBytes } of missing) {
        const file = places.get(sha256);
        if (file === undefined) continue;
        const start = before;
        await new Sender(options, file, heldBytes, (held) => options.onProgress?.(start + held, total)).run();
        before += file.sizeBytes;
      }
    } catch (error) {
      // The gateway has thrown it away: what it held of an earlier sender may have been wrong.
      if (!isChairError(error, 'BLOB_CORRUPT')) throw error;
      failure = error;
    }
  }
  throw failure ?? new ChairError('GATEWAY_STORE_FULL', "the model's files push each other out of the gateway's folder");
}

/** One file: goes back to the last acknowledged byte when nothing moves. */
class Sender {
  readonly #o: UploadOptions;
  readonly #file: ModelFile & { readonly path: string };
  readonly #onHeld: (held: number) => void;
  /** Acknowledged, and sent. */
  #base: number;
  #next: number;
  #done = false;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(options: UploadOptions, file: ModelFile & { readonly path: string }, heldBytes: number, onHeld: (held: number) => void) {
    this.#o = options;
    this.#file = file;
    this.#base = heldBytes;
    this.#next = heldBytes;
    this.#onHeld = onHeld;
  }

  async run(): Promise<void> {
    const { bus, topics, client, silentMs = 60_000 } = this.#o;
    const unsubscribe = await bus.subscribe(topics.uploadAck(client), (ack) => this.#acknowledged(ack));
    // After a reconnect everything under way is lost.
    let connected = bus.connected;
    const forget = bus.onConnect(() => {
      // The first call is for the connection that is there already.
      if (!connected) this.#again();
      connected = false;
    });
    const { signal } = this.#o;
    const stop = (): void => this.#wake();
    signal?.addEventListener('abort', stop);
    const file = await open(this.#file.path, 'r');
    try {
      let movedMs = performance.now();
      let base = this.#base;
      this.#onHeld(base);
      await this.#chunk(file);
      while (!this.#done) {
        while (this.#next < this.#file.sizeBytes && this.#next - this.#base < WINDOW * CHUNK_BYTES && bus.connected)
          await this.#chunk(file);
        signal?.throwIfAborted();
        if (!(await this.#moved())) this.#again();
        signal?.throwIfAborted();
        if (this.#base > base) movedMs = performance.now();
        base = this.#base;
        if (this.#failure !== undefined && !isChairError(this.#failure, 'UPLOAD_BUSY')) throw this.#failure;
        if (performance.now() - movedMs > silentMs && !this.#done) throw this.#failure ?? silence(silentMs, base);
      }
    } finally {
      forget();
      signal?.removeEventListener('abort', stop);
      await file.close();
      await unsubscribe();
    }
  }

  async #chunk(file: Awaited<ReturnType<typeof open>>): Promise<void> {
    const { bus, topics, client } = this.#o;
    const { sha256, sizeBytes, path } = this.#file;
    const offset = this.#next;
    const length = Math.min(CHUNK_BYTES, sizeBytes - offset);
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(length), 0, length, offset);
    if (bytesRead < length) {
      throw new ChairError('MODEL_UNREADABLE', `${path} changed while it was sent`, { expected: `${sizeBytes} bytes`, came: 'fewer' });
    }
    this.#next = offset + length;
    // What is not handed over is not acknowledged either, and sent again.
    await bus.publish(topics.uploadChunk, { client, sha256, sizeBytes, offset, data: buffer }).catch((error: unknown) => {
      if (!isChairError(error, 'BROKER_LOST') && !isChairError(error, 'QUEUE_FULL')) throw error;
    });
  }

  #acknowledged({ sha256, heldBytes, code, message }: UploadAck): void {
    if (sha256 !== this.#file.sha256) return;
    this.#failure = code === '' ? undefined : new ChairError(isErrorCode(code) ? code : 'INTERNAL', message);
    if (code === '') {
      // Less than before: the gateway threw it away. More than was sent: another client sends the same file.
      if (heldBytes < this.#base) this.#next = heldBytes;
      this.#base = heldBytes;
      this.#next = Math.max(this.#next, heldBytes);
      this.#done = heldBytes === this.#file.sizeBytes;
      this.#onHeld(heldBytes);
    }
    this.#wake();
  }

  #again(): void {
    this.#next = this.#base;
    this.#wake();
  }

  /** False when nothing came for a while. */
  async #moved(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const moved = await new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), AGAIN_MS);
      this.#wake = () => resolve(true);
      if (this.#done) resolve(true);
    });
    clearTimeout(timer);
    return moved;
  }
}

function silence(silentMs: number, heldBytes: number): ChairError {
  return new ChairError('REQUEST_TIMEOUT', `the gateway took nothing of the model for ${silentMs} ms`, {
    came: `${heldBytes} bytes before that`,
    todo: 'Deploy it again when the gateway runs: it goes on from there.',
  });
}
