/**
 * Blobs on disk, each file named by the sha256 of its bytes; all in one folder, because a slice's graph names its weight blobs as files beside it.
 *
 *   <directory>/lock            pid of the process that owns the folder
 *   <directory>/blobs/<sha256>        complete
 *   <directory>/blobs/<sha256>.part   a prefix of one, under way; survives restarts and is continued
 *
 * A file found at start is trusted only after it was hashed once in this process. Files are not fsynced (SD cards wear): what a power cut
 * spoils, the hash finds.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, statfs, utimes } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, toChairError } from '../broker/errors.js';
import { lockDirectory } from '../broker/lock.js';
import type { BlobRef } from '../broker/plan.js';

export interface StoreOptions {
  readonly directory: string;
  /** Bytes of all blobs together, complete or not. */
  readonly limitBytes: number;
  /** Bytes free on the disk; default asks the file system. For tests. */
  readonly diskFreeBytes?: () => Promise<number>;
  readonly nowMs?: () => number;
  /** A blob that was here did not hash to its name; it is deleted. */
  readonly onDamaged?: (sha256: string) => void;
}

interface Entry {
  sizeBytes: number;
  usedAtMs: number;
  verified: boolean;
}

const SHA256 = /^[0-9a-f]{64}$/;
/** Hashed at once when a file is read: some milliseconds on a slow processor. */
const READ_BYTES = 256 * 1024;
/** Left free on the disk for everything else. */
const DISK_RESERVE_BYTES = 16 * 2 ** 20;

export class BlobStore {
  private readonly entries = new Map<string, Entry>();
  private readonly parts = new Map<string, number>();
  private closed = false;
  /** Blobs that did not hash to their names when they were looked at. */
  damaged = 0;

  private constructor(
    private readonly options: StoreOptions,
    private readonly unlock: () => Promise<void>,
  ) {}

  /** Creates the folder, locks it and scans it. Throws AGENT_NAME_TAKEN when another live process holds it. */
  static async open(options: StoreOptions): Promise<BlobStore> {
    await mkdir(path.join(options.directory, 'blobs'), { recursive: true });
    const unlock = await lockDirectory(options.directory, {
      code: 'AGENT_NAME_TAKEN',
      what: 'slice store',
      expected: 'one agent per store directory',
      todo: 'Stop that process, or give this agent another --name (each has a folder of its own, unless --directory says otherwise)',
    });
    const store = new BlobStore(options, unlock);
    try {
      await store.scan();
    } catch (error) {
      await unlock();
      throw error;
    }
    return store;
  }

  get directory(): string {
    return this.options.directory;
  }

  /** Where the blob is, or would be. */
  path(sha256: string): string {
    if (!SHA256.test(sha256))
      throw new ChairError('PLAN_INVALID', 'blob name', { expected: '64 lower-case hex digits', came: sha256.slice(0, 80) });
    return path.join(this.options.directory, 'blobs', sha256);
  }

  /** Names of complete blobs, newest use first. */
  list(): string[] {
    return [...this.entries].sort(([, a], [, b]) => b.usedAtMs - a.usedAtMs).map(([sha]) => sha);
  }

  get usedBytes(): number {
    let sum = 0;
    for (const entry of this.entries.values()) sum += entry.sizeBytes;
    for (const size of this.parts.values()) sum += size;
    return sum;
  }

  /** Bytes that could still be stored without evicting anything. */
  async freeBytes(): Promise<number> {
    return Math.max(0, Math.min(this.options.limitBytes - this.usedBytes, (await this.diskFree()) - DISK_RESERVE_BYTES));
  }

  /**
   * True when the blob is here whole and right: its first use in this process hashes it. A wrong one is deleted, to be fetched again.
   */
  async has(ref: BlobRef): Promise<boolean> {
    const entry = this.entries.get(ref.sha256);
    if (entry === undefined) return false;
    if (!entry.verified) {
      if (entry.sizeBytes !== ref.sizeBytes || (await hashFile(this.path(ref.sha256))) !== ref.sha256) {
        await this.remove(ref.sha256);
        this.damaged++;
        this.options.onDamaged?.(ref.sha256);
        return false;
      }
      entry.verified = true;
    }
    await this.touch(ref.sha256, entry);
    return true;
  }

  /** The next `has` hashes the file again. */
  distrust(sha256: string): void {
    const entry = this.entries.get(sha256);
    if (entry !== undefined) entry.verified = false;
  }

  /** Bytes of an unfinished download. */
  partBytes(sha256: string): number {
    return this.parts.get(sha256) ?? 0;
  }

  /** A pinned blob is never evicted. Counts: each pin needs its unpin. Unknown names may be pinned before they are fetched. */
  pin(sha256: string): void {
    this.pinCounts.set(sha256, (this.pinCounts.get(sha256) ?? 0) + 1);
  }
  unpin(sha256: string): void {
    const count = (this.pinCounts.get(sha256) ?? 0) - 1;
    if (count > 0) this.pinCounts.set(sha256, count);
    else this.pinCounts.delete(sha256);
  }
  private readonly pinCounts = new Map<string, number>();

  /** Evicts unpinned blobs, least recently used first, until `bytes` more fit. Throws AGENT_STORE_FULL, and then evicts nothing. */
  async makeRoom(bytes: number): Promise<void> {
    let free = await this.freeBytes();
    const victims: { remove: () => Promise<void> }[] = [];
    const candidates = [
      ...[...this.parts].map(([sha, sizeBytes]) => ({ sha, sizeBytes, usedAtMs: 0, remove: () => this.removePart(sha) })),
      ...[...this.entries].map(([sha, e]) => ({ sha, sizeBytes: e.sizeBytes, usedAtMs: e.usedAtMs, remove: () => this.remove(sha) })),
    ].sort((a, b) => a.usedAtMs - b.usedAtMs);
    for (const candidate of candidates) {
      if (free >= bytes) break;
      if (this.pinCounts.has(candidate.sha)) continue;
      free += candidate.sizeBytes;
      victims.push(candidate);
    }
    if (free < bytes) {
      throw new ChairError('AGENT_STORE_FULL', `slice store ${this.options.directory} has no room`, {
        expected: `${bytes} bytes for the slices to fetch`,
        came: `${free} bytes free after evicting all that is not in use (limit ${this.options.limitBytes}, ${this.usedBytes} used)`,
        todo: 'Raise its limit (--store-mb), free disk space there, or undeploy something',
      });
    }
    for (const victim of victims) await victim.remove();
  }

  /** Opens the blob's unfinished file for appending, creating it; what it holds already is hashed first. */
  async openPart(ref: BlobRef): Promise<PartialBlob> {
    const file = `${this.path(ref.sha256)}.part`;
    const hash = createHash('sha256');
    let length = 0;
    if (this.parts.has(ref.sha256)) {
      length = await readInto(hash, file);
      if (length > ref.sizeBytes) {
        await this.removePart(ref.sha256);
        return this.openPart(ref);
      }
    }
    const handle = await open(file, 'a').catch((error: unknown) => {
      throw diskError(error, file);
    });
    this.parts.set(ref.sha256, length);
    return new PartialBlob(ref, handle, file, hash, length, {
      grown: (total) => this.parts.set(ref.sha256, total),
      complete: () => this.complete(ref),
      discarded: () => this.parts.delete(ref.sha256),
    });
  }

  /** Deletes a blob. */
  async remove(sha256: string): Promise<void> {
    this.entries.delete(sha256);
    await rm(this.path(sha256), { force: true });
  }

  /** Idempotent; gives the folder free for another process. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.unlock();
  }

  private async complete(ref: BlobRef): Promise<void> {
    await rename(`${this.path(ref.sha256)}.part`, this.path(ref.sha256));
    this.parts.delete(ref.sha256);
    this.entries.set(ref.sha256, { sizeBytes: ref.sizeBytes, usedAtMs: this.now(), verified: true });
  }

  private async removePart(sha256: string): Promise<void> {
    this.parts.delete(sha256);
    await rm(`${this.path(sha256)}.part`, { force: true });
  }

  private async touch(sha256: string, entry: Entry): Promise<void> {
    entry.usedAtMs = this.now();
    const at = new Date(entry.usedAtMs);
    // The order of eviction after a restart. A read-only or foreign file keeps its old time; that costs at most a worse choice.
    await utimes(this.path(sha256), at, at).catch(() => undefined);
  }

  private async scan(): Promise<void> {
    const directory = path.join(this.options.directory, 'blobs');
    for (const name of await readdir(directory)) {
      const info = await stat(path.join(directory, name));
      if (!info.isFile()) continue;
      if (SHA256.test(name)) this.entries.set(name, { sizeBytes: info.size, usedAtMs: info.mtimeMs, verified: false });
      else if (name.endsWith('.part') && SHA256.test(name.slice(0, -5))) this.parts.set(name.slice(0, -5), info.size);
    }
  }

  private async diskFree(): Promise<number> {
    if (this.options.diskFreeBytes !== undefined) return this.options.diskFreeBytes();
    const info = await statfs(this.options.directory);
    return info.bavail * info.bsize;
  }

  private now(): number {
    return (this.options.nowMs ?? Date.now)();
  }
}

interface PartEvents {
  grown(totalBytes: number): void;
  complete(): Promise<void>;
  discarded(): void;
}

/** A blob under way: append in order, then `finish`. */
export class PartialBlob {
  constructor(
    private readonly ref: BlobRef,
    private readonly handle: FileHandle,
    private readonly file: string,
    private readonly hash: Hash,
    private written: number,
    private readonly events: PartEvents,
  ) {}

  /** Bytes written so far: where to continue. */
  get length(): number {
    return this.written;
  }

  /** The pieces, one after another; nothing may be appended after a failure. Throws AGENT_STORE_FULL when the disk is full. */
  async append(...pieces: readonly Uint8Array[]): Promise<void> {
    const writing = this.write(pieces);
    // While another thread writes.
    for (const piece of pieces) this.hash.update(piece);
    this.written += await writing;
    this.events.grown(this.written);
  }

  /** As they lie in memory: a socket's chunks are not joined for it. */
  private async write(pieces: readonly Uint8Array[]): Promise<number> {
    let left = pieces.filter(({ length }) => length > 0);
    let total = 0;
    while (left.length > 0) {
      const { bytesWritten } = await this.handle.writev(left).catch((error: unknown) => {
        throw diskError(error, this.file);
      });
      total += bytesWritten;
      left = without(left, bytesWritten);
    }
    return total;
  }

  /** Closes and gives the file its name. Throws BLOB_CORRUPT when the hash is wrong; then nothing is left of it. */
  async finish(): Promise<void> {
    const got = this.hash.digest('hex');
    if (this.written !== this.ref.sizeBytes || got !== this.ref.sha256) {
      await this.discard();
      throw new ChairError('BLOB_CORRUPT', 'blob does not hash to its name', {
        expected: `${this.ref.sizeBytes} bytes of sha256 ${this.ref.sha256}`,
        came: `${this.written} bytes of ${got}`,
      });
    }
    await this.handle.close();
    await this.events.complete();
  }

  /** Closes and keeps what is there, to continue later. Idempotent, also after `finish` and `discard`. */
  async suspend(): Promise<void> {
    await this.handle.close();
  }

  async discard(): Promise<void> {
    await this.handle.close();
    await rm(this.file, { force: true });
    this.events.discarded();
  }
}

/** '' when the file cannot be read: then it hashes to nothing, and is fetched again. */
async function hashFile(file: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    await readInto(hash, file);
  } catch {
    return '';
  }
  return hash.digest('hex');
}

/** Hashes a file and gives its length. Through one buffer: a stream would make garbage of as many bytes as the file has. */
async function readInto(hash: Hash, file: string): Promise<number> {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const handle = await open(file, 'r');
  try {
    for (let length = 0; ; ) {
      const { bytesRead } = await handle.read(buffer, 0, READ_BYTES, length);
      if (bytesRead === 0) return length;
      hash.update(buffer.subarray(0, bytesRead));
      length += bytesRead;
    }
  } finally {
    await handle.close();
  }
}

/** What is left of `pieces` after the first `bytes`. */
function without(pieces: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const left: Uint8Array[] = [];
  let skip = bytes;
  for (const piece of pieces) {
    if (skip < piece.length) left.push(skip > 0 ? piece.subarray(skip) : piece);
    skip = Math.max(0, skip - piece.length);
  }
  return left;
}

/** ENOSPC and EDQUOT are AGENT_STORE_FULL; anything else is not expected here. */
export function diskError(error: unknown, file: string): ChairError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new ChairError('AGENT_STORE_FULL', `disk full while writing ${file}`, {
      todo: 'Free disk space there, or lower the limit of the store (--store-mb)',
      cause: error,
    });
  }
  return toChairError(error);
}
