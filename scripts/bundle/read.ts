/**
 * Reads a bundle: checks everything in it against its list of contents, and unpacks it where that is asked for. Nothing is believed that the list does not
 * say: no file more, none less, no byte changed.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGunzip } from 'node:zlib';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import { PLAIN_FILE, readTar, type TarFile } from '../../broker/tar.js';
import { type Architecture, bundleName, MANIFEST, type Manifest, type ManifestFile, parseManifest, TOP } from './manifest.js';

export interface Bundle {
  readonly manifest: Manifest;
  readonly seal: string;
  /** See `bundleName`. */
  readonly name: string;
  /** Of the archive. */
  readonly sha256: string;
  readonly sizeBytes: number;
}

export interface ReadOptions {
  /** Throws BUNDLE_WRONG_ARCH for another one. */
  readonly arch?: Architecture;
  /** Unpack into this folder, which is made, flushed to the disk, and removed again when anything is wrong. */
  readonly into?: string;
}

const MOST_MANIFEST_BYTES = 4 * 2 ** 20;

/** Throws FILE_NOT_FOUND, BUNDLE_DAMAGED, BUNDLE_WRONG_ARCH. */
export async function readBundle(file: string, options: ReadOptions = {}): Promise<Bundle> {
  return readBundleFrom(createReadStream(file), file, options);
}

/** The same of bytes that are in memory: nobody can exchange them between the check and the use. */
export async function readBundleBytes(bytes: Uint8Array, options: ReadOptions = {}): Promise<Bundle> {
  return readBundleFrom(Readable.from([bytes]), 'the bundle', options);
}

async function readBundleFrom(source: Readable, what: string, options: ReadOptions): Promise<Bundle> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  const counted = async function* (chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  };
  const contents = new Contents(options);
  try {
    await pipeline(source, counted, createGunzip(), async (chunks: AsyncIterable<Uint8Array>) => {
      for await (const entry of readTar(chunks, 'BUNDLE_DAMAGED')) await contents.take(entry);
    });
    const { manifest, seal } = contents.complete();
    if (options.into !== undefined) await flush(options.into);
    return { manifest, seal, name: bundleName(manifest.version, seal), sha256: hash.digest('hex'), sizeBytes };
  } catch (error) {
    await contents.abandon();
    if (options.into !== undefined) await rm(options.into, { recursive: true, force: true });
    throw readError(error, what);
  }
}

function readError(error: unknown, what: string): ChairError {
  if (isChairError(error)) return new ChairError(error.code, `${what}: ${error.message}`, { cause: error });
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'ENOENT' || code === 'EISDIR') return new ChairError('FILE_NOT_FOUND', `${what} is not there`, { cause: error });
  if (code.startsWith('Z_') || code.startsWith('ERR_ZLIB')) {
    return new ChairError('BUNDLE_DAMAGED', `${what} is no bundle, or damaged`, {
      expected: 'a .tgz made by mc bundle',
      came: toChairError(error).message,
      todo: 'Make or copy it anew.',
      cause: error,
    });
  }
  return toChairError(error);
}

/** What has been read so far. */
class Contents {
  #found: { readonly manifest: Manifest; readonly seal: string } | undefined;
  readonly #awaited = new Map<string, ManifestFile>();
  readonly #folders = new Set<string>();
  #open: FileHandle | undefined;

  constructor(private readonly options: ReadOptions) {}

  /** Closes the file that was being written when the archive turned out to be wrong. */
  async abandon(): Promise<void> {
    await this.#open?.close().catch(() => undefined);
    this.#open = undefined;
  }

  complete(): { readonly manifest: Manifest; readonly seal: string } {
    const [missing] = this.#awaited.keys();
    if (this.#found === undefined || missing !== undefined) throw damaged(`the file ${missing ?? MANIFEST}`, 'the end of the archive');
    return this.#found;
  }

  async take({ name: full, type, mode, sizeBytes, content }: TarFile): Promise<void> {
    const name = full.startsWith(`${TOP}/`) && type === PLAIN_FILE ? full.slice(TOP.length + 1) : '';
    if (this.#found === undefined) {
      if (name !== MANIFEST || sizeBytes > MOST_MANIFEST_BYTES) throw damaged(`${TOP}/${MANIFEST} as the first file`, full.slice(0, 120));
      return this.#takeManifest(content);
    }
    const file = this.#awaited.get(name);
    if (file === undefined) throw damaged('only files that are listed, each once', full.slice(0, 120));
    if (file.sizeBytes !== sizeBytes || file.executable !== ((mode & 0o111) !== 0))
      throw damaged(`${name} as it is listed`, 'other size or mode');
    this.#awaited.delete(name);
    await this.#takeFile(file, content);
  }

  async #takeManifest(content: AsyncIterable<Uint8Array>): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of content) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString('utf8');
    const found = parseManifest(text);
    const { arch, into } = this.options;
    if (arch !== undefined && found.manifest.arch !== arch) {
      throw new ChairError('BUNDLE_WRONG_ARCH', 'the bundle is made for another machine', { expected: arch, came: found.manifest.arch });
    }
    this.#found = found;
    for (const file of found.manifest.files) this.#awaited.set(file.path, file);
    if (into === undefined) return;
    await mkdir(into, { recursive: true });
    await writeFile(path.join(into, MANIFEST), text, { flag: 'wx', mode: 0o644 });
  }

  async #takeFile(file: ManifestFile, content: AsyncIterable<Uint8Array>): Promise<void> {
    const hash = createHash('sha256');
    await this.#create(file);
    for await (const chunk of content) {
      hash.update(chunk);
      await this.#open?.writeFile(chunk);
    }
    await this.#open?.close();
    this.#open = undefined;
    if (hash.digest('hex') !== file.sha256) throw damaged(`${file.path} with the sha256 that is listed`, 'another one');
  }

  async #create({ path: name, executable }: ManifestFile): Promise<void> {
    const { into } = this.options;
    if (into === undefined) return;
    const folder = path.join(into, path.dirname(name));
    if (!this.#folders.has(folder)) await mkdir(folder, { recursive: true });
    this.#folders.add(folder);
    // `wx`: what is there already was not put there by this bundle.
    this.#open = await open(path.join(into, name), 'wx');
    await this.#open.chmod(executable ? 0o755 : 0o644);
  }
}

/** Once for all: a flush of each of a thousand files takes minutes on an SD card. */
async function flush(folder: string): Promise<void> {
  await promisify(execFile)('sync', ['-f', folder]);
}

function damaged(expected: string, came: string): ChairError {
  return new ChairError('BUNDLE_DAMAGED', 'the bundle is damaged', { expected, came, todo: 'Make or copy it anew.' });
}
