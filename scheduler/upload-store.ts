/**
 * Model files that clients have sent, in the gateway's state folder:
 *
 *   <directory>/files/<sha256>         complete; it hashed to its name
 *   <directory>/files/<sha256>.part    a prefix of one, under way; survives restarts and is continued
 *   <directory>/views/<model>/...      the files of one model under the names its graph uses: hard links, made anew after a restart
 *
 * What no deployment uses is evicted when room is needed, longest unused first; a `.part` nobody went on with for a day is deleted.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, rename, rm, stat, statfs, utimes } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize, sep } from 'node:path';
import { ChairError, toChairError } from '../broker/errors.js';
import type { ModelFile } from '../broker/messages.js';
import { flushDirectory } from '../broker/sealed-file.js';

export interface UploadStoreOptions {
  readonly directory: string;
  /** Bytes of all files together, complete or not; no model may be larger. */
  readonly limitBytes: number;
  /** Names of models (see `modelName`) that must stay. */
  readonly inUse: () => Iterable<string>;
  /** For tests; default asks the file system. */
  readonly diskFreeBytes?: () => Promise<number>;
  /** Milliseconds since 1970, to compare with file times. */
  readonly nowMs?: () => number;
}

/** A file under way. `length` bytes of it are on disk and in `hash`. */
interface Part {
  readonly handle: FileHandle;
  readonly hash: Hash;
  readonly sizeBytes: number;
  length: number;
  usedMs: number;
}

interface Entry {
  readonly sizeBytes: number;
  usedMs: number;
  /** A file found at start is hashed before its first use. */
  verified: boolean;
}

export const SHA256 = /^[0-9a-f]{64}$/;
const PART_AGE_MS = 24 * 3600_000;
/** Files received at once; one that got nothing for so long may be put aside for another. */
const MOST_OPEN = 4;
const IDLE_MS = 30_000;
/** Left free on the disk for everything else. */
const DISK_RESERVE_BYTES = 64 * 2 ** 20;

/** What a deploy request calls a model: the sha256 of its file; with external data that of the list of all files, as `sha256sum` prints it. */
export function modelName(files: readonly ModelFile[]): string {
  const [graph] = files;
  if (files.length === 1 && graph !== undefined) return graph.sha256;
  const list = files.map((file) => `${file.sha256}  ${file.location}\n`).join('');
  return createHash('sha256').update(list).digest('hex');
}

export class UploadStore {
  readonly #o: UploadStoreOptions;
  readonly #entries = new Map<string, Entry>();
  /** Sizes and ages of `.part` files that are not open. */
  readonly #asleep = new Map<string, { length: number; usedMs: number }>();
  readonly #open = new Map<string, Part>();
  /** Files of the models that have a view. */
  readonly #views = new Map<string, readonly ModelFile[]>();
  readonly #pins = new Map<string, number>();
  /** One change at a time: room that was made for one file is not taken by another. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: UploadStoreOptions) {
    this.#o = options;
  }

  static async open(options: UploadStoreOptions): Promise<UploadStore> {
    const store = new UploadStore(options);
    await rm(join(options.directory, 'views'), { recursive: true, force: true });
    await mkdir(join(options.directory, 'files'), { recursive: true });
    await store.#scan();
    return store;
  }

  get limitBytes(): number {
    return this.#o.limitBytes;
  }

  get usedBytes(): number {
    let sum = 0;
    for (const entry of this.#entries.values()) sum += entry.sizeBytes;
    for (const part of this.#asleep.values()) sum += part.length;
    for (const part of this.#open.values()) sum += part.sizeBytes;
    return sum;
  }

  /** Bytes of a file that need not be sent: all of it when it is here and right. */
  heldBytes(file: Pick<ModelFile, 'sha256' | 'sizeBytes'>): Promise<number> {
    return this.#inTurn(() => this.#held(file));
  }

  /**
   * Adds bytes at `offset` when exactly those before it are held, and gives the bytes held afterwards: the sender goes on from there. Several
   * senders of one file help each other. Throws UPLOAD_TOO_LARGE, UPLOAD_BUSY, GATEWAY_STORE_FULL, BLOB_CORRUPT (then nothing of it is kept).
   */
  append(file: Pick<ModelFile, 'sha256' | 'sizeBytes'>, offset: number, data: Uint8Array): Promise<number> {
    return this.#inTurn(async () => {
      const { sha256, sizeBytes } = file;
      if (this.#entries.get(sha256)?.sizeBytes === sizeBytes) return this.#held(file);
      const part = this.#open.get(sha256) ?? (await this.#begin(file));
      if (part.sizeBytes !== sizeBytes) {
        await this.#sleep(sha256);
        await this.#remove(sha256);
        throw corrupt(file, `${part.sizeBytes} bytes announced before`);
      }
      part.usedMs = this.#now();
      if (offset !== part.length || offset + data.length > sizeBytes) return part.length;
      await this.#write(sha256, part, data);
      if (part.length === sizeBytes) await this.#finish(file, part);
      return part.length;
    });
  }

  /** True when all its files are here; then `path` works. Throws MODEL_WEIGHTS_MISSING when a name is not one of a file beside the graph. */
  async has(files: readonly ModelFile[]): Promise<boolean> {
    for (const file of files) checkLocation(file.location);
    return this.#inTurn(async () => {
      for (const file of files) if ((await this.#held(file)) < file.sizeBytes || !this.#entries.has(file.sha256)) return false;
      await this.#view(modelName(files), files);
      return true;
    });
  }

  /** The graph's file of a model, kept until `release`. Throws MODEL_NOT_FOUND. */
  hold(model: string): Promise<{ path: string; release: () => void }> {
    return this.#inTurn(async () => {
      const entry = this.#entries.get(model);
      // A model of one file is known by that file, also after a restart.
      const files = this.#views.get(model) ?? (entry && [{ location: 'model.onnx', sha256: model, sizeBytes: entry.sizeBytes }]);
      for (const file of files ?? []) if ((await this.#held(file)) < file.sizeBytes) throw unknownModel(model);
      const [graph] = files ?? [];
      if (files === undefined || graph === undefined) throw unknownModel(model);
      await this.#view(model, files);
      this.#pins.set(model, (this.#pins.get(model) ?? 0) + 1);
      let held = true;
      const release = (): void => {
        if (held) this.#pins.set(model, (this.#pins.get(model) ?? 1) - 1);
        held = false;
      };
      return { path: join(this.#viewPath(model), basename(graph.location)), release };
    });
  }

  /** Closes what is open; unfinished files stay. Idempotent. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      for (const sha256 of [...this.#open.keys()]) await this.#sleep(sha256);
    });
  }

  #inTurn<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(action);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  async #held({ sha256, sizeBytes }: Pick<ModelFile, 'sha256' | 'sizeBytes'>): Promise<number> {
    const entry = this.#entries.get(sha256);
    if (entry === undefined || entry.sizeBytes !== sizeBytes)
      return this.#open.get(sha256)?.length ?? this.#asleep.get(sha256)?.length ?? 0;
    if (!entry.verified && (await hashOf(this.#path(sha256))).digest('hex') !== sha256) {
      await this.#remove(sha256);
      return 0;
    }
    entry.verified = true;
    entry.usedMs = this.#now();
    const at = new Date(entry.usedMs);
    // The order of eviction after a restart: when this fails, at most a worse choice.
    await utimes(this.#path(sha256), at, at).catch(() => undefined);
    return sizeBytes;
  }

  async #begin(file: Pick<ModelFile, 'sha256' | 'sizeBytes'>): Promise<Part> {
    const { sha256, sizeBytes } = file;
    if (sizeBytes > this.#o.limitBytes) throw tooLarge(sizeBytes, this.#o.limitBytes);
    await this.#deleteOldParts();
    await this.#freeSlot();
    if ((this.#asleep.get(sha256)?.length ?? 0) > sizeBytes) await this.#remove(sha256);
    const length = this.#asleep.get(sha256)?.length ?? 0;
    this.#asleep.delete(sha256);
    try {
      await this.#makeRoom(sizeBytes - length, sizeBytes);
      const hash = length === 0 ? createHash('sha256') : await hashOf(this.#partPath(sha256));
      const part: Part = { handle: await open(this.#partPath(sha256), 'a'), hash, sizeBytes, length, usedMs: this.#now() };
      this.#open.set(sha256, part);
      return part;
    } catch (error) {
      if (length > 0) this.#asleep.set(sha256, { length, usedMs: this.#now() });
      throw diskError(error);
    }
  }

  async #write(sha256: string, part: Part, data: Uint8Array): Promise<void> {
    try {
      for (let done = 0; done < data.length; ) done += (await part.handle.write(data, done)).bytesWritten;
    } catch (error) {
      // Some of the bytes may be there: the file's length and the hash must not part.
      await part.handle.truncate(part.length).catch(() => undefined);
      await this.#sleep(sha256);
      throw diskError(error);
    }
    part.hash.update(data);
    part.length += data.length;
  }

  async #finish(file: Pick<ModelFile, 'sha256' | 'sizeBytes'>, part: Part): Promise<void> {
    const { sha256, sizeBytes } = file;
    // A power cut must not leave a file of zeros where a model is expected: it would have to be sent again.
    await part.handle.sync().catch(() => undefined);
    await part.handle.close();
    this.#open.delete(sha256);
    const got = part.hash.digest('hex');
    if (got !== sha256) {
      await this.#remove(sha256);
      throw corrupt(file, `bytes that hash to ${got}`);
    }
    await rename(this.#partPath(sha256), this.#path(sha256));
    await flushDirectory(join(this.#o.directory, 'files'));
    this.#entries.set(sha256, { sizeBytes, usedMs: this.#now(), verified: true });
  }

  async #freeSlot(): Promise<void> {
    if (this.#open.size < MOST_OPEN) return;
    const [longest] = [...this.#open].sort(([, a], [, b]) => a.usedMs - b.usedMs);
    if (longest === undefined || this.#now() - longest[1].usedMs < IDLE_MS) {
      throw new ChairError('UPLOAD_BUSY', 'the gateway is taking other models now', {
        expected: `at most ${MOST_OPEN} files at once`,
        came: 'one more',
        todo: 'Try again when one of them is done.',
      });
    }
    await this.#sleep(longest[0]);
  }

  async #sleep(sha256: string): Promise<void> {
    const part = this.#open.get(sha256);
    if (part === undefined) return;
    this.#open.delete(sha256);
    this.#asleep.set(sha256, { length: part.length, usedMs: part.usedMs });
    await part.handle.close();
  }

  async #deleteOldParts(): Promise<void> {
    for (const [sha256, { usedMs }] of this.#asleep) if (this.#now() - usedMs > PART_AGE_MS) await this.#remove(sha256);
  }

  async #makeRoom(bytes: number, sizeBytes: number): Promise<void> {
    let free = Math.min(this.#o.limitBytes - this.usedBytes, (await this.#diskFree()) - DISK_RESERVE_BYTES);
    const needed = new Set<string>();
    const pinned = [...this.#pins].filter(([, count]) => count > 0).map(([model]) => model);
    for (const model of [...this.#o.inUse(), ...pinned]) for (const file of this.#views.get(model) ?? []) needed.add(file.sha256);
    const unused = [
      ...[...this.#asleep].map(([sha256, part]) => ({ sha256, bytes: part.length, usedMs: part.usedMs })),
      ...[...this.#entries].map(([sha256, entry]) => ({ sha256, bytes: entry.sizeBytes, usedMs: entry.usedMs })),
    ].filter((file) => !needed.has(file.sha256));
    const victims: string[] = [];
    for (const file of unused.sort((a, b) => a.usedMs - b.usedMs)) {
      if (free >= bytes) break;
      free += file.bytes;
      victims.push(file.sha256);
    }
    if (free < bytes) {
      throw new ChairError('GATEWAY_STORE_FULL', 'the gateway has no room for the model', {
        expected: `${sizeBytes} bytes`,
        came: `${Math.max(0, free)} free after giving up all models that are not deployed`,
        todo: "Undeploy something, free disk space on the gateway, or raise its setting 'gateway.uploadMb'.",
      });
    }
    for (const victim of victims) await this.#remove(victim);
  }

  /** A file, whole or not, and the views it is in. */
  async #remove(sha256: string): Promise<void> {
    this.#entries.delete(sha256);
    this.#asleep.delete(sha256);
    for (const [model, files] of this.#views) {
      if (!files.some((file) => file.sha256 === sha256)) continue;
      this.#views.delete(model);
      await rm(this.#viewPath(model), { recursive: true, force: true });
    }
    await rm(this.#path(sha256), { force: true });
    await rm(this.#partPath(sha256), { force: true });
  }

  async #view(model: string, files: readonly ModelFile[]): Promise<void> {
    if (this.#views.has(model)) return;
    const directory = this.#viewPath(model);
    await rm(directory, { recursive: true, force: true });
    for (const { location, sha256 } of files) {
      const path = join(directory, normalize(location));
      await mkdir(dirname(path), { recursive: true });
      await link(this.#path(sha256), path);
    }
    this.#views.set(model, files);
  }

  async #scan(): Promise<void> {
    const directory = join(this.#o.directory, 'files');
    for (const name of await readdir(directory)) {
      const { size, mtimeMs } = await stat(join(directory, name));
      if (SHA256.test(name)) this.#entries.set(name, { sizeBytes: size, usedMs: mtimeMs, verified: false });
      else if (name.endsWith('.part') && SHA256.test(name.slice(0, -5)))
        this.#asleep.set(name.slice(0, -5), { length: size, usedMs: mtimeMs });
    }
    await this.#deleteOldParts();
  }

  #path(sha256: string): string {
    return join(this.#o.directory, 'files', sha256);
  }

  #partPath(sha256: string): string {
    return `${this.#path(sha256)}.part`;
  }

  #viewPath(model: string): string {
    return join(this.#o.directory, 'views', model);
  }

  async #diskFree(): Promise<number> {
    if (this.#o.diskFreeBytes !== undefined) return this.#o.diskFreeBytes();
    const { bavail, bsize } = await statfs(this.#o.directory);
    return bavail * bsize;
  }

  #now(): number {
    return (this.#o.nowMs ?? Date.now)();
  }
}

/** A model may not write outside of its folder. Throws MODEL_WEIGHTS_MISSING. */
function checkLocation(location: string): void {
  const path = normalize(location);
  const inside = path !== '.' && !path.endsWith(sep) && !isAbsolute(path) && !path.split(sep).includes('..') && !path.includes('\0');
  if (inside) return;
  throw new ChairError('MODEL_WEIGHTS_MISSING', "the model names external data outside of the model's folder", { came: `"${location}"` });
}

export function tooLarge(sizeBytes: number, limitBytes: number): ChairError {
  return new ChairError('UPLOAD_TOO_LARGE', 'the model is too large to be sent to this gateway', {
    expected: `at most ${limitBytes} bytes`,
    came: `${sizeBytes}`,
    todo: "Raise the gateway's setting 'gateway.uploadMb', or put the file on the gateway and deploy gateway:PATH.",
  });
}

function corrupt({ sha256, sizeBytes }: Pick<ModelFile, 'sha256' | 'sizeBytes'>, came: string): ChairError {
  return new ChairError('BLOB_CORRUPT', 'a model file did not arrive as it was announced', {
    expected: `${sizeBytes} bytes of sha256 ${sha256}`,
    came,
    todo: 'Was the file changed while it was sent? Deploy it again.',
  });
}

function unknownModel(model: string): ChairError {
  return new ChairError('MODEL_NOT_FOUND', `no model ${model} was sent to this gateway`, { todo: "Deploy it by its file's path." });
}

/** ENOSPC and EDQUOT are GATEWAY_STORE_FULL; anything else is not expected here. */
function diskError(error: unknown): ChairError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return toChairError(error);
  return new ChairError('GATEWAY_STORE_FULL', "the gateway's disk is full", { todo: 'Free disk space on the gateway.', cause: error });
}

async function hashOf(path: string): Promise<Hash> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash;
}
