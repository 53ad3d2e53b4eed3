/** What this machine is and how it feels: read from the OS, never cached, and 0 or a safe default where a figure cannot be read. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, networkInterfaces, totalmem } from 'node:os';
import path from 'node:path';
import { controlGroups } from '../broker/control-groups.js';

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
  const limits = controlGroups('memory', read).map(({ v2, folder }) =>
    Number.parseInt(read(path.join(folder, v2 ? 'memory.max' : 'memory.limit_in_bytes')), 10),
  );
  return Math.min(NO_LIMIT, ...limits.filter((limit) => limit > 0));
}

export function processMemory(): ProcessMemory {
  const status = read('/proc/self/status');
  const anonymous = kibField(status, 'RssAnon');
  const rssBytes = kibField(status, 'VmRSS') || process.memoryUsage.rss();
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

/** Where the kernel of a Raspberry Pi shows what its firmware says of power and heat, as hexadecimal. */
const THROTTLED_FILE = '/sys/devices/platform/soc/soc:firmware/get_throttled';

/** Flags as `vcgencmd get_throttled` gives them; -1 where there is no such firmware. */
export function throttledFlags(text = existsSync(THROTTLED_FILE) ? read(THROTTLED_FILE) : ''): number {
  const flags = Number.parseInt(text.trim().replace(/^0x/i, ''), 16);
  return flags >= 0 && flags < 2 ** 31 ? flags : -1;
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

/** Of all network interfaces, loopback and bridges too. */
export function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
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
