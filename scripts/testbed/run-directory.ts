/**
 * What a testbed has made on this machine, written down before it is made, so that somebody else can remove it when its owner is gone: the
 * watchdog at once, or the next testbed that starts. Names carry the owner's pid.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ChairError } from '../../broker/errors.js';

/** One thing to remove. Processes in a namespace or group need no line of their own. */
export type Made =
  | { readonly kind: 'namespace'; readonly name: string }
  | { readonly kind: 'group'; readonly path: string }
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'mount'; readonly path: string }
  | { readonly kind: 'process'; readonly pid: number; readonly started: string };

const MANIFEST = 'manifest.jsonl';
const OWNER = 'owner.json';
const PREFIX = 'run-';
const STATE_PREFIX = 'musical-chair-testbed-state-';

/**
 * Where runs are written down. For root a folder only root can write, as what stands in it is killed and removed; for others a folder of their
 * own. It must not depend on the environment of one run: another one has to find it.
 */
export function runsDirectory(): string {
  const uid = process.getuid?.() ?? 0;
  const directory = uid === 0 && existsSync('/run') ? '/run/musical-chair-testbed' : path.join(tmpdir(), `musical-chair-testbed-${uid}`);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const info = statSync(directory);
  if (info.uid !== uid || (process.platform !== 'win32' && (info.mode & 0o022) !== 0)) {
    throw new ChairError('TESTBED_FAILED', `${directory} can be written by others; what stands there is not trusted`, {
      todo: `Remove it, or make it yours alone (chmod 700).`,
    });
  }
  return directory;
}

/** When a process started, in clock ticks: with the pid it names a process for good. '' when there is none. */
export function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in brackets may hold anything; fields are counted from its end.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? '' : (fields[19] ?? '');
  } catch {
    return '';
  }
}

export class RunDirectory {
  readonly path: string;
  /** Unique on this machine: `<pid>-<random>`. */
  readonly id: string;

  constructor(base = runsDirectory()) {
    this.id = `${process.pid}-${randomBytes(3).toString('hex')}`;
    this.path = path.join(base, `${PREFIX}${this.id}`);
    // Appears with its owner or not at all: a sweep must not take it for a dead run's.
    const fresh = path.join(base, `.${this.id}`);
    mkdirSync(fresh, { mode: 0o700 });
    writeFileSync(path.join(fresh, OWNER), JSON.stringify({ pid: process.pid, started: startOf(process.pid) }));
    renameSync(fresh, this.path);
  }

  /** A folder for the state of its processes; on disk, where slices of gigabytes have room. */
  stateDirectory(): string {
    const directory = path.join(tmpdir(), `${STATE_PREFIX}${this.id}`);
    this.record({ kind: 'directory', path: directory });
    mkdirSync(directory, { mode: 0o700 });
    return directory;
  }

  /** Before it is made. */
  record(made: Made): void {
    appendFileSync(path.join(this.path, MANIFEST), `${JSON.stringify(made)}\n`);
  }
}

/** Removes everything a run has made, and its folder. What is gone already is fine. Throws TESTBED_FAILED, naming what stayed. */
export async function cleanRun(directory: string): Promise<void> {
  const made = readManifest(directory);
  const groups = made.flatMap((m) => (m.kind === 'group' ? [m.path] : []));
  const namespaces = made.flatMap((m) => (m.kind === 'namespace' ? [m.name] : []));
  const alone = made.flatMap((m) => (m.kind === 'process' ? [m] : []));
  const stayed: string[] = [];
  for (let attempt = 0; ; attempt++) {
    const left = [...groups.flatMap(pidsOfGroup), ...namespaces.flatMap(pidsOfNamespace)];
    for (const { pid, started } of alone) if (started !== '' && startOf(pid) === started) left.push(pid);
    for (const pid of left) kill(pid);
    if (left.length === 0 || attempt === 100) break;
    await delay(30);
  }
  for (const name of namespaces) if (!removeNamespace(name)) stayed.push(`namespace ${name}`);
  // Children before their parents.
  for (const group of groups.reverse()) if (!(await removeGroup(group))) stayed.push(`control group ${group}`);
  for (const one of made) if (one.kind === 'mount' && !unmount(one.path)) stayed.push(`mount ${one.path}`);
  for (const made of readManifest(directory)) {
    if (made.kind === 'directory' && path.basename(made.path).startsWith(STATE_PREFIX)) rmSync(made.path, { recursive: true, force: true });
  }
  if (stayed.length > 0)
    throw new ChairError('TESTBED_FAILED', `could not remove ${stayed.join(', ')}`, { todo: 'Run: npm run testbed -- --clean' });
  rmSync(directory, { recursive: true, force: true });
}

/** Cleans the runs whose owner is gone; returns their names. */
export async function sweepDeadRuns(base = runsDirectory()): Promise<string[]> {
  const swept: string[] = [];
  for (const name of readdirSync(base)) {
    const directory = path.join(base, name);
    if (!name.startsWith(PREFIX) || isOwned(directory)) continue;
    await cleanRun(directory);
    swept.push(name);
  }
  return swept;
}

function isOwned(directory: string): boolean {
  try {
    const owner: unknown = JSON.parse(readFileSync(path.join(directory, OWNER), 'utf8'));
    if (typeof owner !== 'object' || owner === null || !('pid' in owner) || !('started' in owner)) return false;
    const started = startOf(Number(owner.pid));
    return started !== '' && started === owner.started;
  } catch {
    return false;
  }
}

function readManifest(directory: string): Made[] {
  let text = '';
  try {
    text = readFileSync(path.join(directory, MANIFEST), 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Made];
    } catch {
      // The last line of a run killed while writing it: what it names was not made.
      return [];
    }
  });
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

function pidsOfGroup(group: string): number[] {
  try {
    return readFileSync(path.join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function pidsOfNamespace(name: string): number[] {
  if (!existsSync(`/run/netns/${name}`)) return [];
  try {
    return execFileSync('ip', ['netns', 'pids', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

function removeNamespace(name: string): boolean {
  if (!existsSync(`/run/netns/${name}`)) return true;
  try {
    execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
  } catch {
    // Somebody else may have been faster.
  }
  return !existsSync(`/run/netns/${name}`);
}

function unmount(where: string): boolean {
  const mounted = (): boolean => readFileSync('/proc/self/mounts', 'utf8').includes(` ${where} `);
  // Lazily when something still holds a file in it.
  for (const flags of [[], ['-l']]) {
    if (!mounted()) return true;
    spawnSync('umount', [...flags, where], { stdio: 'ignore' });
  }
  return !mounted();
}

/** The kernel lets go of a group a moment after its last process. */
async function removeGroup(group: string): Promise<boolean> {
  for (let attempt = 0; attempt < 100; attempt++) {
    try {
      rmdirSync(group);
      return true;
    } catch {
      if (!existsSync(group)) return true;
    }
    await delay(20);
  }
  return false;
}
