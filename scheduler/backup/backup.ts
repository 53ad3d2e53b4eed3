/**
 * A gateway's state folder in one file, taken while the gateway runs: a tar archive of
 *
 *   about.json       what it is: cluster, time, versions
 *   state/...        the files of the folder
 *   manifest.json    sealed: size and sha256 of each of them; an archive without it is cut off
 *
 * It holds the cluster's keys, so it is readable by its owner only.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, type FileHandle, link, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { type AuditEntry, AuditLog } from '../../broker/credentials/audit.js';
import { ChairError, isChairError, toChairError } from '../../broker/errors.js';
import { flushDirectory, readSealed } from '../../broker/sealed-file.js';
import { TAR_END, tarHeader, tarPadding } from '../../broker/tar.js';
import { readCluster } from '../cluster-file.js';
import { isSafe } from './names.js';
import { type Snapshot, type SnapshotFile, takeSnapshot } from './snapshot.js';

/** Of the archive's form: grows when a former version could not read it. */
export const BACKUP_FORMAT = 1;
export const ABOUT = 'about.json';
export const MANIFEST = 'manifest.json';
export const STATE = 'state/';
/** Of an archive that cannot be read or written. */
export const UNUSABLE = 'BACKUP_UNUSABLE';
/** Only its owner may read a file of keys. */
const MODE = 0o600;
const SHA256 = /(^|\/)[0-9a-f]{64}$/;
/** Written sealed: what is damaged there would only be put aside by whoever restores it. */
const SEALED = /^(cluster|term|links|corrections|drains|deployments\/[^/]+\.json|credentials\/(tokens|issued|revoked)\.json)$/;
export const KEYS = 'credentials/';

export interface BackupAbout {
  readonly format: number;
  readonly cluster: string;
  readonly softwareVersion: string;
  /** Milliseconds since 1970, by the gateway's clock. */
  readonly madeAtMs: number;
  readonly models: boolean;
}

export interface ManifestRow {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly mode: number;
}

export interface BackupReport extends BackupAbout {
  readonly file: string;
  readonly sizeBytes: number;
  readonly files: number;
  readonly deployments: readonly string[];
  /** Keys are in it. */
  readonly keys: boolean;
  /** What is not in it, and why. */
  readonly leftOut: readonly string[];
}

export interface BackupOptions {
  readonly stateDirectory: string;
  /** Must not be there yet. */
  readonly file: string;
  /** Of a state folder that does not say itself whose it is. */
  readonly cluster: string;
  readonly softwareVersion: string;
  /** Also what clients have sent and agents have fetched; default true. Without it, slices that agents lost have to be made from models sent again. */
  readonly models?: boolean;
  readonly nowMs: () => number;
  readonly onProgress?: (bytes: number) => void;
}

/** Throws FILE_EXISTS, FILE_NOT_FOUND (no gateway has kept anything there), STATE_DAMAGED, GATEWAY_STORE_FULL. Then nothing is left of it. */
export async function writeBackup(options: BackupOptions): Promise<BackupReport> {
  const { stateDirectory, file, cluster, softwareVersion, models = true, nowMs } = options;
  await checkPlaces(stateDirectory, file);
  const snapshot = await takeSnapshot(stateDirectory, { models }).catch((error: unknown) => {
    throw fileError(error, stateDirectory);
  });
  const part = `${file}.${randomBytes(4).toString('hex')}.new`;
  try {
    const about: BackupAbout = {
      format: BACKUP_FORMAT,
      cluster: (await readCluster(stateDirectory)) ?? cluster,
      softwareVersion,
      madeAtMs: nowMs(),
      models,
    };
    const writer = new Writer(await open(part, 'wx', MODE), about.madeAtMs, options.onProgress);
    const { rows, leftOut } = await writer.all(about, snapshot);
    await inPlace(part, file);
    const keys = rows.some((row) => row.path.startsWith(KEYS));
    if (keys) await audited(path.join(stateDirectory, KEYS), { event: 'backed up', about: file, detail: 'with the keys of the cluster' });
    return {
      ...about,
      file,
      sizeBytes: writer.bytes,
      files: rows.length,
      deployments: deploymentsOf(rows),
      keys,
      leftOut,
    };
  } catch (error) {
    throw fileError(error, file);
  } finally {
    await rm(part, { force: true });
    await snapshot.remove();
  }
}

/** What seals a list of files, and what it says it is a list of. */
export function listHash(about: unknown, rows: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify([about, rows]))
    .digest('hex');
}

/**
 * A word in the audit log of a folder of keys: whoever reads it later should know that there is a copy, or an older state. The gateway may be writing there at the same
 * time: a line at the end does it no harm, but only one may begin a new file.
 */
export async function audited(directory: string, entry: AuditEntry): Promise<void> {
  const log = new AuditLog({ directory, fileBytes: Number.POSITIVE_INFINITY });
  await log.write({ by: 'somebody on this machine', ...entry });
  await log.stop();
}

/** Names of the deployments whose plans are among these files. */
export function deploymentsOf(rows: readonly Pick<ManifestRow, 'path'>[]): string[] {
  return rows.flatMap((row) => /^deployments\/(.+)\.json$/.exec(row.path)?.[1] ?? []);
}

async function checkPlaces(stateDirectory: string, file: string): Promise<void> {
  if (await exists(file)) {
    throw new ChairError('FILE_EXISTS', `${file} is there already`, { todo: 'Give another name: a backup never overwrites one.' });
  }
  const inside = path.relative(path.resolve(stateDirectory), path.resolve(file));
  if (!inside.startsWith('..') && !path.isAbsolute(inside)) {
    throw new ChairError('USAGE', 'a backup does not go into the folder that it is of', { came: file });
  }
  if (await exists(path.join(stateDirectory, 'term'))) return;
  throw new ChairError('FILE_NOT_FOUND', `no gateway has kept its state in ${stateDirectory}`, {
    expected: "a gateway's state folder",
    todo: 'Give the --directory, --cluster or --config that the gateway was started with; it prints its folder when it starts.',
  });
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** Under its name at once, and never over another file. */
async function inPlace(part: string, file: string): Promise<void> {
  try {
    await link(part, file);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error) || error.code === 'EEXIST') {
      throw new ChairError('FILE_EXISTS', `${file} was made by something else meanwhile`, { todo: 'Give another name.' });
    }
    // No hard links there (FAT, some network shares).
    if (await exists(file)) throw new ChairError('FILE_EXISTS', `${file} was made by something else meanwhile`);
    await rename(part, file);
  }
  await flushDirectory(path.dirname(path.resolve(file)));
}

/** What the file system says, by our codes: no room, or no right to be there. */
export function fileError(error: unknown, where: string): ChairError {
  const code = error instanceof Error && 'code' in error && !(error instanceof ChairError) ? String(error.code) : '';
  if (['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code)) {
    const todo = 'Free disk space there, or name another place.';
    return new ChairError('GATEWAY_STORE_FULL', `there is no room for ${where}`, { todo, cause: error });
  }
  if (['EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'EISDIR'].includes(code)) {
    const todo = "Is the folder there? The gateway's state may be read by its own user only: run this as that user, or with sudo.";
    return new ChairError('FILE_NOT_FOUND', toChairError(error).message, { todo, cause: error });
  }
  return toChairError(error);
}

class Writer {
  bytes = 0;
  readonly #handle: FileHandle;
  readonly #modifiedS: number;
  readonly #onProgress: ((bytes: number) => void) | undefined;

  constructor(handle: FileHandle, nowMs: number, onProgress: ((bytes: number) => void) | undefined) {
    this.#handle = handle;
    this.#modifiedS = Math.floor(nowMs / 1000);
    this.#onProgress = onProgress;
  }

  /** Everything, flushed and closed. */
  async all(about: BackupAbout, snapshot: Snapshot): Promise<{ rows: ManifestRow[]; leftOut: string[] }> {
    try {
      const rows: ManifestRow[] = [];
      const leftOut = snapshot.odd.map((name) => `${name}: neither a file nor a folder`);
      await this.#text(ABOUT, `${JSON.stringify(about)}\n`);
      for (const file of snapshot.files) {
        const why = isSafe(file.path) ? await damage(file) : 'no name that a gateway gives';
        const row = why === undefined ? await this.#file(file) : undefined;
        // It is in the archive, but not in its list: whoever restores does not see it.
        const other = row !== undefined && SHA256.test(file.path) && !file.path.endsWith(row.sha256);
        if (row !== undefined && !other) rows.push(row);
        else leftOut.push(`${file.path}: ${why ?? 'damaged: it does not hash to its name'}`);
      }
      await this.#text(MANIFEST, `${JSON.stringify({ about, rows, sha256: listHash(about, rows) })}\n`);
      await this.#put(TAR_END);
      await this.#handle.sync();
      return { rows, leftOut };
    } finally {
      await this.#handle.close();
    }
  }

  async #text(name: string, text: string): Promise<void> {
    const bytes = Buffer.from(text);
    await this.#put(tarHeader({ name, sizeBytes: bytes.length, mode: MODE, modifiedS: this.#modifiedS }, UNUSABLE));
    await this.#put(bytes);
    await this.#put(tarPadding(bytes.length));
  }

  async #file({ path: name, source, mode }: SnapshotFile): Promise<ManifestRow> {
    const handle = await open(source, 'r');
    try {
      // A log may grow meanwhile; what it was at this moment is whole.
      const { size: sizeBytes, mtimeMs } = await handle.stat();
      await this.#put(
        tarHeader({ name: `${STATE}${name}`, sizeBytes, mode, modifiedS: Math.max(0, Math.floor(mtimeMs / 1000)) }, UNUSABLE),
      );
      const hash = createHash('sha256');
      let read = 0;
      if (sizeBytes > 0) {
        for await (const chunk of createReadStream('', { fd: handle.fd, autoClose: false, start: 0, end: sizeBytes - 1 })) {
          hash.update(chunk);
          read += chunk.length;
          await this.#put(chunk);
        }
      }
      if (read !== sizeBytes)
        throw new ChairError('STATE_DAMAGED', `${name} became shorter while it was read`, { came: `${read} of ${sizeBytes} bytes` });
      await this.#put(tarPadding(sizeBytes));
      return { path: name, sizeBytes, sha256: hash.digest('hex'), mode };
    } finally {
      await handle.close();
    }
  }

  async #put(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) done += (await this.#handle.write(bytes, done)).bytesWritten;
    this.bytes += bytes.length;
    this.#onProgress?.(this.bytes);
  }
}

/** Why a sealed file is of no use; undefined when it is whole, or not sealed. */
async function damage({ path: name, source }: SnapshotFile): Promise<string | undefined> {
  if (!SEALED.test(name)) return undefined;
  try {
    await readSealed(source);
    return undefined;
  } catch (error) {
    // Without its list of who was revoked, a backup would let them in again.
    if (!isChairError(error, 'STATE_DAMAGED') || name.startsWith(KEYS)) throw error;
    return 'damaged: the gateway would not use it either';
  }
}
