/** What processes hold, read from outside, and whether it stays within bounds. The bounds are pure. */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Child } from '../children.js';
import type { Violation } from './fencing.js';

/** One process at one moment. */
export interface Sample {
  readonly name: string;
  /** The process: another one of the same name begins anew. */
  readonly pid: number;
  readonly atMs: number;
  /** Memory that cannot be given back. */
  readonly anonymousBytes: number;
  readonly sockets: number;
  /** All descriptors: files, sockets, pipes. */
  readonly descriptors: number;
  /** Timers that run; NaN when the process did not answer. */
  readonly timers: number;
  /** Files in its folder. */
  readonly storeBytes: number;
}

export interface Bounds {
  /** Agents, clients, gateway and broker together. */
  readonly peers: number;
  /** What a process may hold on disk, by name; the rest is not bounded. */
  readonly storeBytes: (name: string) => number;
  readonly memoryBytes: (name: string) => number;
}

const GROWTH = 1.25;
const GROWTH_BYTES = 48 * 2 ** 20;
/** Each peer may have a lane in both directions, and one of each being replaced. */
const SOCKETS_PER_PEER = 4;
const SOCKETS_OWN = 16;
/** Each socket, session and request may have a timer or two, and each part of the program some of its own. */
const TIMERS_PER_PEER = 6;
const TIMERS_OWN = 40;
/** Samples of one process over less than this say nothing about growth. */
const GROWTH_SECONDS = 120;
const ASK_MS = 3000;

/** Undefined when the process is gone. */
export async function sample(name: string, child: Child, directory: string): Promise<Sample | undefined> {
  const { pid } = child;
  const answered = (await child.ask('resources', { withinMs: ASK_MS }).catch(() => ({}))) as Readonly<Record<string, number>>;
  const timers = 'Timeout' in answered || 'Immediate' in answered ? (answered.Timeout ?? 0) : Number.NaN;
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const kilobytes = Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN);
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
    const sockets = open.filter((target) => target.startsWith('socket:')).length;
    const counts = { sockets, descriptors: open.length, timers, storeBytes: sizeOf(directory) };
    return { name, pid, atMs: performance.now(), anonymousBytes: kilobytes * 1024, ...counts };
  } catch {
    return undefined;
  }
}

function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    // Closed meanwhile.
    return '';
  }
}

/** Bytes of all files below a folder, but ballast of ours. */
export function sizeOf(directory: string): number {
  if (!existsSync(directory)) return 0;
  let bytes = 0;
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name.startsWith('.ballast')) continue;
    try {
      bytes += statSync(path.join(entry.parentPath, entry.name)).size;
    } catch {
      // Removed meanwhile.
    }
  }
  return bytes;
}

/** What one sample breaks by itself. */
export function outOfBounds(one: Sample, { peers, storeBytes, memoryBytes }: Bounds): Violation[] {
  const limits: readonly (readonly [string, number, number])[] = [
    ['sockets', one.sockets, SOCKETS_OWN + SOCKETS_PER_PEER * peers],
    ['timers', one.timers, TIMERS_OWN + TIMERS_PER_PEER * peers],
    ['bytes of anonymous memory', one.anonymousBytes, memoryBytes(one.name)],
    ['bytes in its store', one.storeBytes, storeBytes(one.name)],
  ];
  return limits
    .filter(([, value, limit]) => value > limit)
    .map(([what, value, limit]) => ({
      invariant: 'memory, sockets, timers and stores are bounded',
      text: `${one.name} has ${value} ${what}, at most ${limit} are expected`,
    }));
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) / 2)] ?? 0;

/** What grows without end: the last third of a process's samples, all taken at rest, against the first. */
export function growing(samples: readonly Sample[]): Violation[] {
  const byProcess = new Map<string, Sample[]>();
  for (const one of samples) {
    const key = `${one.name} ${one.pid}`;
    byProcess.set(key, [...(byProcess.get(key) ?? []), one]);
  }
  return [...byProcess.values()].flatMap((own) => {
    const [first, last] = [own[0], own.at(-1)];
    if (first === undefined || last === undefined || own.length < 6 || last.atMs - first.atMs < 1000 * GROWTH_SECONDS) return [];
    const third = Math.floor(own.length / 3);
    const before = median(own.slice(0, third).map(({ anonymousBytes }) => anonymousBytes));
    const after = median(own.slice(-third).map(({ anonymousBytes }) => anonymousBytes));
    if (after <= before * GROWTH + GROWTH_BYTES) return [];
    const mib = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;
    const seconds = Math.round((last.atMs - first.atMs) / 1000);
    const text = `anonymous memory of ${first.name} grew from ${mib(before)} to ${mib(after)} in ${seconds} s`;
    return [{ invariant: 'memory, sockets, timers and stores are bounded', text }];
  });
}
