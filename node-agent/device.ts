/** What this machine is and how it feels: read from the OS, never cached, and 0 or a safe default where a figure cannot be read. */
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, networkInterfaces, totalmem } from 'node:os';
import path from 'node:path';

/** cgroup "no limit" in version 1 is a huge number of pages. */
const NO_LIMIT = 2 ** 60;

export interface ProcessMemory {
  readonly rssBytes: number;
  /** Not backed by a file: heap, tensors, prepacked weights; what cannot be dropped and read again. */
  readonly anonymousBytes: number;
}

/** Memory of the machine, or of the control group this process runs in when that is less. */
export function memoryLimitBytes(): number {
  return Math.min(totalmem(), cgroupLimit());
}

function cgroupLimit(): number {
  const limits = groups('memory', read).map(({ v2, folder }) =>
    Number.parseInt(read(path.join(folder, v2 ? 'memory.max' : 'memory.limit_in_bytes')), 10),
  );
  return Math.min(NO_LIMIT, ...limits.filter((limit) => limit > 0));
}

/**
 * The control groups that bind this process, its own and all above: a parent's limit binds, too. Inside a container the path may not exist and the root
 * is the container's own group.
 */
function groups(controller: string, readFile: (file: string) => string): { v2: boolean; folder: string }[] {
  const found: { v2: boolean; folder: string }[] = [];
  for (const line of readFile('/proc/self/cgroup').split('\n')) {
    const [, controllers = '', group = ''] = line.split(':');
    if (group === '') continue;
    const v2 = controllers === '';
    if (!v2 && !controllers.split(',').includes(controller)) continue;
    const root = v2 ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controller}`;
    for (let at = group; ; at = path.dirname(at)) {
      found.push({ v2, folder: path.join(root, at) });
      if (at === '/' || at === '.') break;
    }
  }
  return found;
}

/** Cores that control groups (version 1 or 2) permit this process; 0 = as many as there are. */
export function cpuLimit(readFile: (file: string) => string = read): number {
  return cpuQuota(readFile).cores;
}

/** The tightest quota, and the period in which it is handed out: a run shorter than that does not feel it. 0 = no quota. */
export function cpuQuota(readFile: (file: string) => string = read): { readonly cores: number; readonly periodMs: number } {
  let limit = Number.POSITIVE_INFINITY;
  let periodMs = 0;
  for (const { v2, folder } of groups('cpu', readFile)) {
    const [quota = '', period = ''] = v2
      ? readFile(path.join(folder, 'cpu.max')).trim().split(' ')
      : ['cpu.cfs_quota_us', 'cpu.cfs_period_us'].map((name) => readFile(path.join(folder, name)).trim());
    const cores = Number.parseInt(quota, 10) / Number.parseInt(period, 10);
    // `max` and -1 are no limit.
    if (!(cores > 0 && cores < limit)) continue;
    limit = cores;
    periodMs = Number.parseInt(period, 10) / 1000;
  }
  return { cores: Number.isFinite(limit) ? limit : 0, periodMs };
}

export function processMemory(): ProcessMemory {
  const status = read('/proc/self/status');
  const anonymous = kibField(status, 'RssAnon');
  const rssBytes = process.memoryUsage.rss();
  return { rssBytes, anonymousBytes: anonymous || rssBytes };
}

/** Memory the system can still give out without swapping. */
export function systemFreeBytes(): number {
  return kibField(read('/proc/meminfo'), 'MemAvailable');
}

function kibField(text: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text);
  return Number(match?.[1] ?? 0) * 1024;
}

/** The hottest thermal zone, Celsius. */
export function temperatureCelsius(): number {
  let hottest = 0;
  try {
    for (const zone of readdirSync('/sys/class/thermal')) {
      if (!zone.startsWith('thermal_zone')) continue;
      const value = Number.parseInt(read(`/sys/class/thermal/${zone}/temp`), 10) / 1000;
      if (value > hottest && value < 200) hottest = value;
    }
  } catch {
    // No thermal zones: a virtual machine, or not Linux.
  }
  return hottest;
}

/** Bridges of containers and virtual machines: their addresses are the same on every machine, so a peer would reach itself. */
const VIRTUAL = /^(docker|br-|veth|virbr|cni|podman)/;

/**
 * Where peers can reach a listener bound to `host`: that address itself, or for a wildcard all addresses but loopback, IPv4 first.
 * A machine without a network has loopback only.
 */
export function reachableAddresses(host: string): string[] {
  if (host !== '0.0.0.0' && host !== '::' && host !== '') return [host];
  const all = Object.entries(networkInterfaces()).flatMap(([name, list]) => (VIRTUAL.test(name) ? [] : (list ?? [])));
  const outside = all.filter((a) => !a.internal && !a.address.startsWith('fe80:') && (a.family === 'IPv4' || host !== '0.0.0.0'));
  const sorted = outside.sort((a, b) => a.family.localeCompare(b.family)).map((a) => a.address);
  return sorted.length > 0 ? sorted.slice(0, 16) : ['127.0.0.1'];
}

/** Of the whole machine, whatever this process may use of them. */
export function hostCores(): number {
  return Math.max(1, cpus().length, availableParallelism());
}

/** That this process may be scheduled on. */
export function cores(): number {
  return availableParallelism();
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
