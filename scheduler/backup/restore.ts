/** A backup read, checked, and put in the place of a gateway's state folder. See backup.ts for its form. */
import { createHash } from 'node:crypto';
import { createReadStream, type Stats } from 'node:fs';
import { chown, lstat, mkdir, open, readdir, realpath, rename, rm, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { type Inheritance, inherit } from '../../broker/credentials/inherit.js';
import { ChairError, toChairError } from '../../broker/errors.js';
import { lockDirectory } from '../../broker/lock.js';
import { flushDirectory } from '../../broker/sealed-file.js';
import { PLAIN_FILE, readTar, type TarFile } from '../../broker/tar.js';
import { BEFORE, RESTORING } from '../cluster-file.js';
import {
  ABOUT,
  audited,
  BACKUP_FORMAT,
  type BackupAbout,
  deploymentsOf,
  fileError,
  KEYS,
  listHash,
  MANIFEST,
  type ManifestRow,
  STATE,
  UNUSABLE,
} from './backup.js';
import { StateNames } from './names.js';

/** Texts in an archive that are read into memory. */
const MOST_TEXT_BYTES = 64 * 2 ** 20;
/** Tokens that were used since would be good again: they are not brought back. */
const NOT_RESTORED = new Set([`${KEYS}tokens.json`]);

export interface RestoreReport extends BackupAbout {
  readonly file: string;
  readonly files: number;
  readonly deployments: readonly string[];
  readonly keys: boolean;
  /** Files of the backup that are not brought back. */
  readonly leftOut: readonly string[];
  /** Where what stood there before is now; '' when there was nothing. */
  readonly replaced: string;
  /** What was learned of who is revoked from states of the same gateway beside it: the one that is replaced, and those that earlier restores replaced. */
  readonly trust: Inheritance;
  /** By how much this machine's clock is behind the backup, ms; 0 = it is not. */
  readonly clockBehindMs: number;
}

export interface RestoreOptions {
  readonly file: string;
  readonly stateDirectory: string;
  readonly cluster: string;
  readonly nowMs: () => number;
  readonly onProgress?: (bytes: number) => void;
  readonly log?: (line: string) => void;
}

/** Looks at a backup without restoring it. Throws BACKUP_UNUSABLE, FILE_NOT_FOUND. */
export async function checkBackup(file: string): Promise<{ readonly about: BackupAbout; readonly rows: readonly ManifestRow[] }> {
  return readBackup(file, async () => undefined);
}

/**
 * Puts the backup in the place of the state folder; what stood there is kept beside it under another name. Throws BACKUP_UNUSABLE, FILE_NOT_FOUND, CLUSTER_WRONG
 * (a backup of another cluster), CLUSTER_TAKEN (a gateway runs there), GATEWAY_STORE_FULL. Then everything is as it was.
 */
export async function restoreBackup(options: RestoreOptions): Promise<RestoreReport> {
  const { file, cluster, nowMs, onProgress } = options;
  // What a link names is replaced, not the link: the disk it is on was chosen.
  const directory = await realpath(options.stateDirectory).catch(() => path.resolve(options.stateDirectory));
  const size = await sizeOf(file);
  const made = await madeFolder(directory);
  const unlock = await lockDirectory(directory, {
    code: 'CLUSTER_TAKEN',
    what: 'the state folder',
    expected: 'no gateway running there',
    todo: 'Stop it first (systemctl stop musical-chair-gateway): a running gateway is never overwritten.',
  });
  const next = `${directory}${RESTORING}${process.pid}`;
  try {
    await removeCutOff(directory);
    await mkdir(next, { mode: 0o700 });
    await checkRoom(next, size, file);
    const taker = new Taker(next, onProgress);
    const { about, rows } = await readBackup(file, (entry) => taker.take(entry), cluster);
    const leftOut = await taker.settle(rows);
    const former = (await formerStates(directory)).map((folder) => path.join(folder, KEYS));
    const trust = await inherit(path.join(next, KEYS), former, options.log);
    if (rows.some((row) => row.path.startsWith(KEYS))) {
      const detail = `the state of ${new Date(about.madeAtMs).toISOString()}; ${trustText(trust)}`;
      await audited(path.join(next, KEYS), { event: 'restored', about: file, detail });
    }
    await takeOwner(next, await stat(directory));
    const replaced = await swap(directory, next, new Date(nowMs()), unlock);
    const kept = rows.filter((row) => !NOT_RESTORED.has(row.path));
    const keys = kept.some((row) => row.path.startsWith(KEYS));
    const clockBehindMs = Math.max(0, about.madeAtMs - nowMs());
    const read = trust.read.map((folder) => movedTo(folder, directory, replaced));
    const unread = trust.unread.map((folder) => movedTo(folder, directory, replaced));
    const found = { deployments: deploymentsOf(kept), keys, leftOut, replaced, trust: { ...trust, read, unread }, clockBehindMs };
    return { ...about, file, files: kept.length, ...found };
  } catch (error) {
    await rm(next, { recursive: true, force: true });
    await unlock();
    if (made) await rm(directory, { recursive: true, force: true });
    throw fileError(error, directory);
  }
}

/** What stands in the place of the state folder, and what restores put aside before. */
async function formerStates(directory: string): Promise<string[]> {
  const [parent, name] = [path.dirname(directory), path.basename(directory)];
  const aside = (await readdir(parent)).filter((other) => other.startsWith(`${name}${BEFORE}`)).sort();
  return [directory, ...aside.map((other) => path.join(parent, other))];
}

/** A state folder that was looked at, by the name that it has now. */
function movedTo(credentials: string, directory: string, replaced: string): string {
  const folder = path.dirname(credentials);
  return folder === directory && replaced !== '' ? replaced : folder;
}

/** For the audit log, which is bounded. */
function trustText({ stillRevoked, read, unread }: Inheritance): string {
  const who =
    stillRevoked.length === 0 ? 'nobody else' : `${stillRevoked.slice(0, 20).join(', ')}${stillRevoked.length > 20 ? ' ...' : ''}`;
  const since = read.length === 0 ? 'revocations since then are not in it' : `revoked since then, and still: ${who}`;
  return unread.length === 0 ? since : `${since}; not readable: ${unread.length} former states`;
}

async function sizeOf(file: string): Promise<number> {
  try {
    const found = await stat(file);
    if (!found.isDirectory()) return found.size;
    throw new Error('it is a folder');
  } catch (cause) {
    throw new ChairError('FILE_NOT_FOUND', `the backup ${file} cannot be read: ${toChairError(cause).message}`, { cause });
  }
}

/** True when it was not there. */
async function madeFolder(directory: string): Promise<boolean> {
  return (await mkdir(directory, { recursive: true, mode: 0o700 })) !== undefined;
}

async function checkRoom(directory: string, size: number, file: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize > size) return;
  throw new ChairError('GATEWAY_STORE_FULL', `there is no room for what is in ${file}`, {
    expected: `${size} bytes free at ${path.dirname(directory)}`,
    came: `${bavail * bsize}`,
    todo: 'The former state stays until you remove it: free disk space there.',
  });
}

/** Reads the whole archive; `take` sees each state file's entry, and may read it. Throws BACKUP_UNUSABLE, and CLUSTER_WRONG before anything is taken. */
async function readBackup(
  file: string,
  take: (entry: TarFile) => Promise<ManifestRow | undefined>,
  cluster?: string,
): Promise<{ about: BackupAbout; rows: ManifestRow[] }> {
  await sizeOf(file);
  const seen = new Map<string, ManifestRow>();
  const names = new StateNames();
  let about: BackupAbout | undefined;
  for await (const entry of readTar(createReadStream(file, { highWaterMark: 2 ** 20 }), UNUSABLE)) {
    if (entry.type !== PLAIN_FILE) throw unusable('plain files only', `${entry.name.slice(0, 100)} of type ${entry.type}`);
    if (about === undefined) {
      about = aboutOf(entry.name, entry.name === ABOUT ? await textOf(entry) : '');
      if (cluster !== undefined && about.cluster !== cluster) throw otherCluster(about.cluster, cluster);
    } else if (entry.name === MANIFEST) {
      return { about, rows: listed(await textOf(entry), about, seen) };
    } else {
      const name = entry.name.startsWith(STATE) ? entry.name.slice(STATE.length) : '';
      if (!names.take(name)) throw unusable('names of files in the state folder, once each', JSON.stringify(entry.name.slice(0, 100)));
      seen.set(name, (await take(entry)) ?? (await hashed(entry, name)));
    }
  }
  throw unusable('a list of its files at its end', 'none: it is cut off');
}

async function textOf({ name, sizeBytes, content }: TarFile): Promise<string> {
  if (sizeBytes > MOST_TEXT_BYTES) throw unusable(`at most ${MOST_TEXT_BYTES} bytes of ${name}`, `${sizeBytes}`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of content) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

async function hashed({ sizeBytes, mode, content }: TarFile, name: string): Promise<ManifestRow> {
  const hash = createHash('sha256');
  for await (const chunk of content) hash.update(chunk);
  return { path: name, sizeBytes, sha256: hash.digest('hex'), mode };
}

function aboutOf(name: string, text: string): BackupAbout {
  if (name !== ABOUT) throw unusable(`${ABOUT} first`, name.slice(0, 100));
  const value = jsonOf(text);
  if (!isRecord(value) || typeof value.cluster !== 'string' || !isMoment(value.madeAtMs))
    throw unusable('what it is a backup of', text.slice(0, 80));
  if (value.format !== BACKUP_FORMAT) {
    throw new ChairError(UNUSABLE, 'the backup was made by another version', {
      expected: `format ${BACKUP_FORMAT}`,
      came: `format ${String(value.format).slice(0, 20)} of ${String(value.softwareVersion).slice(0, 40)}`,
      todo: 'Restore it with the version that made it.',
    });
  }
  return value as unknown as BackupAbout;
}

/** The rows of the list, each as it was seen. */
function listed(text: string, about: BackupAbout, seen: ReadonlyMap<string, ManifestRow>): ManifestRow[] {
  const value = jsonOf(text);
  if (!isRecord(value) || !Array.isArray(value.rows) || !value.rows.every(isRecord)) throw unusable('a list of files', text.slice(0, 80));
  const rows = value.rows as readonly unknown[] as readonly ManifestRow[];
  if (listHash(about, rows) !== value.sha256) throw unusable('the sha256 of its list, and of what it says it is', 'another one');
  for (const row of rows) {
    const found = seen.get(row.path);
    if (found?.sha256 === row.sha256 && found.sizeBytes === row.sizeBytes) continue;
    throw unusable(`${row.path} with the sha256 of the list`, found === undefined ? 'no such file' : 'other bytes');
  }
  return rows.map(({ path: name, sizeBytes, sha256, mode }) => ({ path: name, sizeBytes, sha256, mode }));
}

/** A time since 1970, ms, that a date can be made of (ECMA-262, 21.4.1.1). */
function isMoment(value: unknown): boolean {
  return typeof value === 'number' && Math.abs(value) <= 8.64e15;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function unusable(expected: string, came: string): ChairError {
  return new ChairError(UNUSABLE, 'the backup cannot be used', {
    expected,
    came,
    todo: 'Nothing was changed. Take another backup.',
  });
}

function otherCluster(theirs: string, ours: string): ChairError {
  return new ChairError('CLUSTER_WRONG', 'this is the backup of another cluster', {
    expected: `'${ours}'`,
    came: `'${theirs}'`,
    todo: `To restore it here, say --cluster ${theirs}.`,
  });
}

/** Writes the files of a backup into a new folder. */
class Taker {
  readonly #directory: string;
  readonly #onProgress: ((bytes: number) => void) | undefined;
  readonly #folders = new Set<string>();
  readonly #taken = new Set<string>();
  #bytes = 0;

  constructor(directory: string, onProgress: ((bytes: number) => void) | undefined) {
    this.#directory = directory;
    this.#onProgress = onProgress;
  }

  async take({ name: full, sizeBytes, mode, content }: TarFile): Promise<ManifestRow> {
    const name = full.slice(STATE.length);
    const to = path.join(this.#directory, name);
    const folder = path.dirname(to);
    if (!this.#folders.has(folder)) await mkdir(folder, { recursive: true, mode: 0o700 });
    this.#folders.add(folder);
    const hash = createHash('sha256');
    const handle = await open(to, 'wx', mode & 0o700 ? mode & 0o777 : 0o600);
    try {
      for await (const chunk of content) {
        hash.update(chunk);
        for (let done = 0; done < chunk.length; ) done += (await handle.write(chunk, done)).bytesWritten;
        this.#bytes += chunk.length;
        this.#onProgress?.(this.#bytes);
      }
      await handle.chmod(mode & 0o777);
      await handle.sync();
    } finally {
      await handle.close();
    }
    this.#taken.add(name);
    return { path: name, sizeBytes, sha256: hash.digest('hex'), mode };
  }

  /** Removes what the list does not name and what is not to come back; then everything is on the disk. Resolves with what was removed. */
  async settle(rows: readonly ManifestRow[]): Promise<string[]> {
    const named = new Set(rows.map((row) => row.path));
    const out = [...this.#taken].filter((name) => !named.has(name) || NOT_RESTORED.has(name));
    for (const name of out) await rm(path.join(this.#directory, name), { force: true });
    for (const folder of [...this.#folders, this.#directory]) await flushDirectory(folder);
    return out;
  }
}

/** Root restores for the user that the gateway runs as. */
async function takeOwner(folder: string, { uid, gid }: Stats): Promise<void> {
  if (process.getuid?.() !== 0 || uid === 0) return;
  await chown(folder, uid, gid);
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    await chown(path.join(entry.parentPath, entry.name), uid, gid);
  }
}

/**
 * The new folder comes in the place of the old one, which holds our lock. The new one gets a lock, too: no gateway starts in between. Resolves with the old one's
 * new name, '' when nothing was in it.
 */
async function swap(directory: string, next: string, now: Date, unlock: () => Promise<void>): Promise<string> {
  const release = await lockDirectory(next, { code: 'CLUSTER_TAKEN', what: 'the folder', expected: 'nobody there', todo: 'Try again.' });
  const aside = await freeName(`${directory}${BEFORE}${now.toISOString().slice(0, 19).replaceAll(/[-:]/g, '').replace('T', '-')}`);
  const isEmpty = (await readdir(directory)).every((name) => name === 'lock');
  try {
    await rename(directory, aside);
  } catch (error) {
    await release();
    if (!(error instanceof Error && 'code' in error) || (error.code !== 'EBUSY' && error.code !== 'EXDEV')) throw error;
    throw new ChairError('USAGE', `${directory} is where a file system is mounted, so nothing can take its place`, {
      expected: 'a folder below it',
      todo: "Give the gateway such a folder (--directory), then restore there: 'gateway.directory'.",
    });
  }
  try {
    await rename(next, directory);
  } catch (error) {
    await rename(aside, directory);
    throw error;
  } finally {
    await release();
  }
  await flushDirectory(path.dirname(directory));
  // By its name it is the new folder's lock that goes now; the old one's has gone aside with it.
  await unlock();
  await rm(path.join(aside, 'lock'), { force: true });
  if (isEmpty) await rm(aside, { recursive: true, force: true });
  return isEmpty ? '' : aside;
}

/** What restores left that were killed; we hold the folder, so nobody is at it. */
async function removeCutOff(directory: string): Promise<void> {
  const [parent, name] = [path.dirname(directory), path.basename(directory)];
  for (const other of await readdir(parent)) {
    if (other.startsWith(`${name}${RESTORING}`)) await rm(path.join(parent, other), { recursive: true, force: true });
  }
}

async function freeName(wanted: string): Promise<string> {
  for (let i = 1; ; i++) {
    const name = i === 1 ? wanted : `${wanted}-${i}`;
    const taken = await lstat(name).then(
      () => true,
      () => false,
    );
    if (!taken) return name;
  }
}
