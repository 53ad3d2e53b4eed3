/** What of a device its run times depend on, as one short word: devices of the same word are one class, and one of them is measured for all. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

export interface DeviceTraits {
  /** Board or processor. */
  readonly cpu: string;
  /** Highest clock, kHz; 0 = unknown. An overclocked board is another device. */
  readonly maxKhz: number;
  readonly arch: string;
  readonly cores: number;
  /** Cores that control groups permit; 0 = no limit. */
  readonly cpuLimit: number;
  readonly memoryBytes: number;
  readonly engine: string;
  readonly engineVersion: string;
  /** How the engine loads weights. */
  readonly prepack: boolean | 'auto';
}

/** Twelve hex digits. Threads are not in it: they are chosen per measurement. */
export function fingerprintOf(traits: DeviceTraits): string {
  const memory = soldAs(traits.memoryBytes);
  const { cpu, maxKhz, arch, cores, cpuLimit, engine, engineVersion, prepack } = traits;
  const said = JSON.stringify([cpu, maxKhz, arch, cores, Math.round(cpuLimit * 100), memory, engine, engineVersion, prepack]);
  return createHash('sha256').update(said).digest('hex').slice(0, 12);
}

/** The next of 1, 1.5, 2, 3, 4, 6, ... GiB: boards of one kind differ by what their firmware and kernel keep for themselves. */
function soldAs(bytes: number): number {
  if (bytes <= 0) return 0;
  const power = 2 ** Math.ceil(Math.log2(bytes));
  return bytes <= 0.75 * power ? 0.75 * power : power;
}

/** The board as its firmware names it (a Raspberry Pi), else the processor. */
export function cpuModel(read: (file: string) => string = readText): string {
  const board = read('/proc/device-tree/model').replaceAll('\0', '').trim();
  return (board === '' ? (cpus()[0]?.model ?? 'unknown') : board).trim().slice(0, 200);
}

export function maxClockKhz(read: (file: string) => string = readText): number {
  const khz = Number.parseInt(read('/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq'), 10);
  return khz > 0 ? khz : 0;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
