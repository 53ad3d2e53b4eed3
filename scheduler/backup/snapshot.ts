/**
 * The gateway's state folder at one moment, while a gateway may be writing in it. Files there are never changed in place: they are replaced whole or added to at
 * their end. So a hard link of a file keeps its content, and a set of links is one moment when no file was replaced while the links were made.
 */
import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { copyFile, link, lstat, mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';

/** A folder of links, in the state folder itself: links do not reach into other file systems. */
const PREFIX = '.backup-';
/** What a backup left that was killed. */
const STALE_MS = 24 * 3600_000;
/** A gateway replaces files every few seconds at most, and linking takes milliseconds: whoever needs longer than this is up against something else. */
const WITHIN_MS = 30_000;
const PAUSE_MS = 20;

/** Not state: of a process, half written, put aside as damaged, or made again at the next start. */
const LEFT_OUT = [
  /(^|\/)lock(\.\d+(\.stale)?)?$/,
  /\.(new|part|damaged|unusable)$/,
  /^\.backup-/,
  /^uploads\/views(\/|$)/,
  /^gateway-cache\/models(\/|$)/,
];
/** What can be sent, or made, again: files that are named by their sha256, and are large. */
const MODELS = /^(uploads|gateway-cache)(\/|$)/;

/** False for what is in the folder, and is not in a backup: of a file or folder there, with `/` between folders. */
export function isState(name: string): boolean {
  return !LEFT_OUT.some((pattern) => pattern.test(name));
}

export interface SnapshotFile {
  /** In the state folder, with `/` between folders. */
  readonly path: string;
  /** Where its content can be read. */
  readonly source: string;
  readonly mode: number;
}

export interface Snapshot {
  readonly files: readonly SnapshotFile[];
  /** What is in the folder but no file or folder: it is left out. */
  readonly odd: readonly string[];
  remove(): Promise<void>;
}

/** Throws STATE_DAMAGED when files are replaced faster than they can be linked, what the file system says otherwise. */
export async function takeSnapshot(stateDirectory: string, { models }: { readonly models: boolean }): Promise<Snapshot> {
  await removeStale(stateDirectory);
  const directory = path.join(stateDirectory, `${PREFIX}${randomBytes(4).toString('hex')}`);
  const remove = (): Promise<void> => rm(directory, { recursive: true, force: true });
  for (const end = performance.now() + WITHIN_MS; performance.now() < end; ) {
    await mkdir(directory, { mode: 0o700 });
    try {
      const before = await walk(stateDirectory, models);
      const files = await linked(stateDirectory, directory, before);
      if (files !== undefined && same(before, await walk(stateDirectory, models))) return { files, odd: before.odd, remove };
    } catch (error) {
      await remove();
      throw error;
    }
    await remove();
    await delay(PAUSE_MS);
  }
  throw new ChairError('STATE_DAMAGED', `the files in ${stateDirectory} did not stand still`, {
    expected: 'a moment in which none was replaced',
    todo: 'Try again when nothing is being deployed.',
  });
}

interface Walk {
  readonly files: ReadonlyMap<string, Stats>;
  readonly odd: readonly string[];
}

async function walk(root: string, models: boolean): Promise<Walk> {
  const files = new Map<string, Stats>();
  const odd: string[] = [];
  const into = async (folder: string): Promise<void> => {
    for (const name of (await names(path.join(root, folder))).sort()) {
      const relative = folder === '' ? name : `${folder}/${name}`;
      if (!isState(relative) || (!models && MODELS.test(relative))) continue;
      const stats = await lstat(path.join(root, relative)).catch(goneAsUndefined);
      if (stats?.isDirectory() === true) await into(relative);
      else if (stats?.isFile() === true) files.set(relative, stats);
      else if (stats !== undefined) odd.push(relative);
    }
  };
  await into('');
  return { files, odd };
}

/** A folder may go while it is looked at. */
async function names(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(goneAsUndefined)) ?? [];
}

function goneAsUndefined(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return undefined;
  throw error;
}

/** Undefined: a file went meanwhile. */
async function linked(root: string, directory: string, { files }: Walk): Promise<SnapshotFile[] | undefined> {
  const done: SnapshotFile[] = [];
  const folders = new Set<string>();
  for (const [relative, stats] of files) {
    const source = path.join(directory, relative);
    const folder = path.dirname(source);
    if (!folders.has(folder)) await mkdir(folder, { recursive: true, mode: 0o700 });
    folders.add(folder);
    try {
      await linkOrCopy(path.join(root, relative), source);
    } catch (error) {
      goneAsUndefined(error);
      return undefined;
    }
    done.push({ path: relative, source, mode: stats.mode & 0o777 });
  }
  return done;
}

/** Not every file system has hard links; and Linux refuses them for files of others. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'EMLINK') throw error;
    await copyFile(from, to);
  }
}

/** An inode that has a link is not used for another file, so the same one is the same file. */
function same(before: Walk, after: Walk): boolean {
  if (before.files.size !== after.files.size) return false;
  for (const [relative, { ino, dev }] of before.files) {
    const now = after.files.get(relative);
    if (now?.ino !== ino || now.dev !== dev) return false;
  }
  return true;
}

async function removeStale(stateDirectory: string): Promise<void> {
  for (const name of await names(stateDirectory)) {
    if (!name.startsWith(PREFIX)) continue;
    const folder = path.join(stateDirectory, name);
    const stats = await lstat(folder).catch(goneAsUndefined);
    if (stats !== undefined && Date.now() - stats.ctimeMs > STALE_MS) await rm(folder, { recursive: true, force: true });
  }
}
