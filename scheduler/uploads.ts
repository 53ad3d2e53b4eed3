/** The gateway's side of models that come from clients: says which files it lacks, takes them in chunks, and hands models to the planner by name. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Bus } from '../broker/bus.js';
import { ChairError, toChairError } from '../broker/errors.js';
import type { MissingFile, ModelAnswer, ModelFile, ModelOffer, UploadAck, UploadChunk } from '../broker/messages.js';
import { NAME_PATTERN, type Topics } from '../broker/topics.js';
import type { ModelSource } from './model-source.js';
import { modelName, SHA256, tooLarge, type UploadStore } from './upload-store.js';

/** Chunks waiting for the disk: bounds memory. A sender repeats what was dropped. */
const MOST_WAITING = 64;

export interface UploadsOptions {
  readonly bus: Bus;
  readonly topics: Topics;
  readonly store: UploadStore;
  readonly log?: (line: string) => void;
}

export class Uploads {
  readonly #o: UploadsOptions;
  readonly #running = new Set<Promise<void>>();
  #unsubscribe: (() => Promise<void>) | undefined;
  #stopped = false;

  constructor(options: UploadsOptions) {
    this.#o = options;
  }

  async start(): Promise<void> {
    this.#unsubscribe = await this.#o.bus.subscribe(this.#o.topics.uploadChunk, (chunk) => {
      if (this.#stopped || this.#running.size >= MOST_WAITING || !NAME_PATTERN.test(chunk.client) || !SHA256.test(chunk.sha256)) return;
      const job = this.#take(chunk).finally(() => this.#running.delete(job));
      this.#running.add(job);
    });
  }

  /** Resolves when no file is open any more. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    await Promise.all(this.#running);
    await this.#o.store.close();
  }

  /** Is the model here? Throws PLAN_INVALID for an offer of nothing, UPLOAD_TOO_LARGE, MODEL_WEIGHTS_MISSING (names that leave the folder). */
  async offer({ path, files }: ModelOffer): Promise<ModelAnswer> {
    if (files.length === 0 || files.some((file) => !SHA256.test(file.sha256))) {
      throw new ChairError('PLAN_INVALID', 'a model was offered that has no files, or files without sha256');
    }
    if (path !== '' && (await sameFiles(path, files))) return { model: path, missing: [] };
    const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    const { store } = this.#o;
    if (sizeBytes > store.limitBytes) throw tooLarge(sizeBytes, store.limitBytes);
    if (await store.has(files)) return { model: modelName(files), missing: [] };
    const missing = new Map<string, MissingFile>();
    for (const file of files) {
      const heldBytes = await store.heldBytes(file);
      if (heldBytes < file.sizeBytes || file.sizeBytes === 0) missing.set(file.sha256, { sha256: file.sha256, heldBytes });
    }
    return { model: '', missing: [...missing.values()] };
  }

  /** `inner`, which also loads models that were sent here. They stay while they are loaded. */
  source(inner: ModelSource): ModelSource {
    return {
      parseCut: (text, shares) => inner.parseCut(text, shares),
      frames: async (names, inputs) => {
        const held: { readonly path: string; readonly release?: () => void }[] = [];
        try {
          for (const name of names) held.push(SHA256.test(name) ? await this.#o.store.hold(name) : { path: name });
          const paths = held.map(({ path }) => path);
          return await inner.frames(paths, inputs);
        } finally {
          for (const { release } of held) release?.();
        }
      },
      load: async (request) => {
        if (!SHA256.test(request.model)) return inner.load(request);
        const { path, release } = await this.#o.store.hold(request.model);
        try {
          return await inner.load({ ...request, model: path });
        } finally {
          release();
        }
      },
    };
  }

  async #take({ client, sha256, sizeBytes, offset, data }: UploadChunk): Promise<void> {
    let ack: UploadAck = { sha256, heldBytes: 0, code: '', message: '' };
    try {
      ack = { ...ack, heldBytes: await this.#o.store.append({ sha256, sizeBytes }, offset, data) };
    } catch (thrown) {
      const { code, message } = toChairError(thrown);
      this.#o.log?.(`refused a model from ${client}: ${message}`);
      ack = { ...ack, code, message };
    }
    if (this.#stopped) return;
    try {
      await this.#o.bus.publish(this.#o.topics.uploadAck(client), ack);
    } catch (error) {
      // The sender repeats what was not acknowledged.
      this.#o.log?.(`an upload of ${client} was not acknowledged: ${toChairError(error).message}`);
    }
  }
}

/** True when this machine has the same bytes at the same place: the client is on it, or shares its folder. */
async function sameFiles(path: string, files: readonly ModelFile[]): Promise<boolean> {
  const places = files.map((file, i) => ({ file, place: i === 0 ? path : join(dirname(path), file.location) }));
  try {
    for (const { file, place } of places) {
      const found = await stat(place);
      if (!found.isFile() || found.size !== file.sizeBytes) return false;
    }
    for (const { file, place } of places) {
      const hash = createHash('sha256');
      for await (const chunk of createReadStream(place)) hash.update(chunk);
      if (hash.digest('hex') !== file.sha256) return false;
    }
    return true;
  } catch {
    // Not there or not readable: then it has to be sent.
    return false;
  }
}
