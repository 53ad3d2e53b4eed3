/** What limits a figure: how busy each resource of a testbed was while it was measured. Counters of the kernel, read from outside. */
import { readdirSync, readFileSync } from 'node:fs';
import type { Testbed } from '../testbed/testbed.js';

/** A resource and which part of what it can do it did, 0 to 1. */
export interface Busy {
  readonly what: string;
  readonly share: number;
}

interface Counters {
  readonly atMs: number;
  /** CPU seconds of a process, all threads. */
  readonly cpuSeconds: ReadonlyMap<string, number>;
  readonly bytes: ReadonlyMap<string, { readonly up: number; readonly down: number }>;
  /** CPU seconds of each thread of the gateway. */
  readonly gatewayThreads: ReadonlyMap<string, number>;
}

const TICKS_PER_SECOND = 100;
/** Below this share nothing is full: time goes by waiting for one another. */
const FULL = 0.8;
/** An agent below it could do more. */
const IDLE = 0.9;
/** One that only says that it is there uses less than this of its quota: it holds no seat. */
const TAKES_PART = 0.05;
const QUOTA = 'compute (quota of ';

/** CPU seconds from a `stat` file of a process or thread. */
function cpuSecondsOf(file: string): number {
  try {
    const stat = readFileSync(file, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  } catch {
    return Number.NaN;
  }
}

/** Bytes through `eth0` of the process's namespace, since it was made. */
function linkBytes(pid: number): { up: number; down: number } {
  try {
    const line = /^\s*eth0:\s*(.*)$/m.exec(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))?.[1] ?? '';
    const fields = line.split(/\s+/).map(Number);
    return { down: fields[0] ?? Number.NaN, up: fields[8] ?? Number.NaN };
  } catch {
    return { up: Number.NaN, down: Number.NaN };
  }
}

function threadsOf(pid: number): Map<string, number> {
  try {
    return new Map(readdirSync(`/proc/${pid}/task`).map((thread) => [thread, cpuSecondsOf(`/proc/${pid}/task/${thread}/stat`)]));
  } catch {
    return new Map();
  }
}

function countersOf({ agents, gateway }: Testbed): Counters {
  const pids = [...agents.map(({ name, pid }) => [name, pid] as const), ['the gateway', gateway.child.pid] as const];
  return {
    atMs: performance.now(),
    cpuSeconds: new Map(pids.map(([name, pid]) => [name, cpuSecondsOf(`/proc/${pid}/stat`)])),
    bytes: new Map(pids.map(([name, pid]) => [name, linkBytes(pid)])),
    gatewayThreads: threadsOf(gateway.child.pid),
  };
}

const SAMPLE_MS = 500;

export interface Watch {
  /** How busy everything was between two times of `performance.now()`; default: all the time. Empty without limits: then nothing is known. */
  readonly busy: (fromMs?: number, untilMs?: number) => Busy[];
  readonly stop: () => void;
}

/** Starts watching. */
export function watch(testbed: Testbed): Watch {
  const { conditions } = testbed;
  if (conditions.isolation !== 'namespaces') return { busy: () => [], stop: () => undefined };
  const samples = [countersOf(testbed)];
  const timer = setInterval(() => samples.push(countersOf(testbed)), SAMPLE_MS);
  const busyBetween = (fromMs = Number.NEGATIVE_INFINITY, untilMs = Number.POSITIVE_INFINITY): Busy[] => {
    const last = countersOf(testbed);
    samples.push(last);
    const before = samples.find(({ atMs }) => atMs >= fromMs) ?? last;
    const after = samples.findLast(({ atMs }) => atMs <= untilMs && atMs > before.atMs) ?? last;
    const seconds = (after.atMs - before.atMs) / 1000;
    const busy: Busy[] = [];
    const link = (name: string, rateBits: number): void => {
      for (const way of ['up', 'down'] as const) {
        const bytes = (after.bytes.get(name)?.[way] ?? Number.NaN) - (before.bytes.get(name)?.[way] ?? Number.NaN);
        busy.push({ what: `link of ${name}, ${way}`, share: (8 * bytes) / seconds / rateBits });
      }
    };
    for (const [i, spec] of conditions.agents.entries()) {
      const name = testbed.agents[i]?.name ?? '';
      const used = (after.cpuSeconds.get(name) ?? Number.NaN) - (before.cpuSeconds.get(name) ?? Number.NaN);
      busy.push({ what: `${QUOTA}${name})`, share: used / seconds / spec.cpu });
      link(name, spec.rateBits);
    }
    link('the gateway', conditions.gateway.rateBits);
    // One thread cannot use more than one core, however many there are.
    const threads = [...after.gatewayThreads].map(([id, cpu]) => cpu - (before.gatewayThreads.get(id) ?? 0));
    busy.push({ what: "the gateway's busiest thread", share: Math.max(0, ...threads) / seconds });
    return busy.filter(({ share }) => Number.isFinite(share));
  };
  return { busy: busyBetween, stop: () => clearInterval(timer) };
}

/** The busiest resource in words, and the agent with the most left where that is much: then work is badly divided. '' when nothing was watched. Pure. */
export function limitOf(busy: readonly Busy[]): string {
  const [first] = busy.toSorted((a, b) => b.share - a.share);
  if (first === undefined) return '';
  const taking = busy.filter(({ what, share }) => what.startsWith(QUOTA) && share > TAKES_PART).toSorted((a, b) => a.share - b.share);
  const [idlest] = taking;
  const idle = idlest !== undefined && taking.length > 1 && idlest.share < IDLE ? `; idlest: ${percent(idlest)}` : '';
  return `${first.share >= FULL ? '' : 'waiting; busiest: '}${percent(first)}${idle}`;
}

function percent({ what, share }: Busy): string {
  return `${what}, ${Math.round(share * 100)} %`;
}

/** Of several measurements, the one whose busiest resource is the median. Pure. */
export function usualLimit(limits: readonly (readonly Busy[])[]): string {
  const top = (busy: readonly Busy[]): number => Math.max(0, ...busy.map(({ share }) => share));
  const sorted = limits.toSorted((a, b) => top(a) - top(b));
  return limitOf(sorted[Math.floor((sorted.length - 1) / 2)] ?? []);
}
