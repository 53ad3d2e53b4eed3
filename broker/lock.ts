/** One process per state folder: a lock file with the owner's pid and start time, so that a reused pid after a crash is not mistaken for the owner. */
import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ChairError, type ErrorCode } from './errors.js';

/** Folders held by this process: the file cannot tell two agents of one process apart. */
const held = new Set<string>();

/** What is said when the folder is taken. */
export interface LockWords {
  readonly code: ErrorCode;
  /** What the folder is, e.g. "slice store". */
  readonly what: string;
  readonly expected: string;
  readonly todo: string;
}

/** Throws `words.code` when a live process holds the folder, which must exist. Returns the unlock (idempotent). */
export async function lockDirectory(directory: string, words: LockWords): Promise<() => Promise<void>> {
  const file = path.resolve(directory, 'lock');
  const taken = (pid: string) =>
    new ChairError(words.code, `${words.what} ${directory} is in use`, {
      expected: words.expected,
      came: `process ${pid} holding it`,
      todo: words.todo,
    });
  if (held.has(file)) throw taken(String(process.pid));
  held.add(file);
  try {
    await acquire(file, taken);
  } catch (error) {
    held.delete(file);
    throw error;
  }
  return async () => {
    if (!held.delete(file)) return;
    await rm(file, { force: true });
  };
}

/** The process that holds the folder; undefined = nobody who lives. */
export async function holderOf(directory: string): Promise<number | undefined> {
  const owner = await readFile(path.resolve(directory, 'lock'), 'utf8').catch(() => '');
  const [pid = '', started = ''] = owner.trim().split(' ');
  if (held.has(path.resolve(directory, 'lock'))) return process.pid;
  return isAlive(Number(pid), started) ? Number(pid) : undefined;
}

async function acquire(file: string, taken: (pid: string) => ChairError): Promise<void> {
  const mine = `${file}.${process.pid}`;
  await writeFile(mine, `${process.pid} ${startTime(process.pid)}\n`);
  try {
    for (let tries = 0; tries < 3; tries++) {
      // link() fails when the name exists and never shows a half-written file.
      if (await linked(mine, file)) return;
      const owner = await readFile(file, 'utf8').catch(() => '');
      const [pid = '', started = ''] = owner.trim().split(' ');
      if (isAlive(Number(pid), started)) throw taken(pid);
      await removeStale(file, `${mine}.stale`, owner);
    }
    throw taken('unknown');
  } finally {
    await rm(mine, { force: true });
  }
}

/** Takes a dead owner's file away. Another process may have been quicker and stand there by now: then its file is put back. */
async function removeStale(file: string, aside: string, owner: string): Promise<void> {
  await rename(file, aside).catch(() => undefined);
  if ((await readFile(aside, 'utf8').catch(() => owner)) !== owner) await linked(aside, file);
  await rm(aside, { force: true });
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

function isAlive(pid: number, started: string): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  // Our own pid without an entry in `held` is a former process's: pids are reused, in containers most of all.
  if (pid === process.pid) return false;
  if (!hasProcess(pid)) return false;
  const now = startTime(pid);
  return now === '' || started === '' || now === started;
}

/** Whether there is a process with this pid, whoever's it is; one that has ended and is not waited for counts. */
export function hasProcess(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Start time of a process in clock ticks since boot (proc(5), field 22); '' where /proc is missing. */
function startTime(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command name (field 2) may hold spaces and brackets: count from its end.
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
