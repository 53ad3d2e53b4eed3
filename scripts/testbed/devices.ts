/** What a device of the testbed is: its share of a core, its memory, its link. Named classes, and options as people write them. */
import { ChairError } from '../../broker/errors.js';

export interface DeviceSpec {
  /** Cores; 0.18 = 18 % of one core of this machine. */
  readonly cpu: number;
  readonly memoryBytes: number;
  /** In each direction, bits per second. */
  readonly rateBits: number;
}

/** One core's share that gives about the speed of a small board; on 2 cores eight of them leave half a core for the gateway. */
export const DEFAULT_DEVICE: DeviceSpec = { cpu: 0.18, memoryBytes: 2 ** 30, rateBits: 1e9 };

export interface DeviceClass {
  /** Times the testbed's `cpu`. */
  readonly cpuFactor: number;
  readonly memoryBytes: number;
  readonly rateBits: number;
  /** What the figures stand for. */
  readonly meaning: string;
}

/**
 * Classes stand in the proportion of the boards to one another, not for their absolute speed: one slow core of this machine is none of them.
 * Published single-board averages (ncnn, 4 threads): VGG16 547 ms on a Pi 4 and 129 ms on a Pi 5, AlexNet 76 and 21 ms.
 */
export const DEVICE_CLASSES: Readonly<Record<string, DeviceClass>> = {
  pi3: { cpuFactor: 1, memoryBytes: 2 ** 30, rateBits: 100e6, meaning: 'the slowest, 1 GiB, 100 Mbit Ethernet (Raspberry Pi 3B)' },
  pi4: { cpuFactor: 2, memoryBytes: 2 * 2 ** 30, rateBits: 1e9, meaning: 'twice a pi3, 2 GiB, gigabit (Raspberry Pi 4B)' },
  pi5: {
    cpuFactor: 5,
    memoryBytes: 4 * 2 ** 30,
    rateBits: 1e9,
    meaning: 'five times a pi3, 4 GiB, gigabit (Raspberry Pi 5; a real one is about four times a Pi 4, more than one core here can show)',
  },
};

/** The scheduler of the kernel refuses quotas below 1 ms. */
export const QUOTA_MINIMUM_US = 1000;
/** Short, so that a quota is spread over a frame; stretched for shares whose quota would be below the minimum. */
const PERIOD_US = 10_000;
const PERIOD_MAXIMUM_US = 1_000_000;

/** Period and quota of a share of a core, microseconds. Throws CONFIG_INVALID for shares the kernel cannot keep. */
export function cpuQuota(cpu: number): { readonly periodUs: number; readonly quotaUs: number } {
  const periodUs = Math.max(PERIOD_US, Math.ceil(QUOTA_MINIMUM_US / cpu));
  if (!(cpu > 0) || periodUs > PERIOD_MAXIMUM_US) {
    throw new ChairError('CONFIG_INVALID', 'a share of a core is out of range', { expected: '0.001 cores or more', came: String(cpu) });
  }
  return { periodUs, quotaUs: Math.round(cpu * periodUs) };
}

const RATE_UNITS: Readonly<Record<string, number>> = { kbit: 1e3, mbit: 1e6, gbit: 1e9 };
const BYTE_UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

function withUnit(text: string, units: Readonly<Record<string, number>>): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  return number === '' ? Number.NaN : Number(number) * (units[unit.toLowerCase()] ?? Number.NaN);
}

/** `100mbit` to bits per second. Throws CONFIG_INVALID. */
export function parseRate(text: string): number {
  return checkRate(withUnit(text, RATE_UNITS), text);
}

export function checkRate(rateBits: number, came = String(rateBits)): number {
  if (rateBits >= 64e3 && rateBits <= 100e9) return rateBits;
  throw new ChairError('CONFIG_INVALID', 'a link rate is wrong', { expected: '64kbit to 100gbit, as in 100mbit', came: `"${came}"` });
}

/** `512m`, `1g` to bytes. Throws CONFIG_INVALID. */
export function parseMemory(text: string): number {
  return checkMemory(withUnit(text, BYTE_UNITS), text);
}

function checkMemory(bytes: number, came = String(bytes)): number {
  // Node and the engine alone take more than 64 MiB.
  if (bytes >= 64 * 2 ** 20 && bytes <= 2 ** 44) return Math.round(bytes);
  throw new ChairError('CONFIG_INVALID', 'a memory size is wrong', { expected: '64m to 16384g, as in 1g', came: `"${came}"` });
}

/** Throws CONFIG_INVALID. */
export function checkDevice(spec: DeviceSpec): DeviceSpec {
  cpuQuota(spec.cpu);
  if (spec.cpu > 1024) throw new ChairError('CONFIG_INVALID', 'a share of a core is out of range', { came: String(spec.cpu) });
  checkMemory(spec.memoryBytes);
  checkRate(spec.rateBits);
  return spec;
}

/** `pi3:2,pi4:3` to one spec per device, in this order. `cpu` is what a factor of 1 means. Throws CONFIG_INVALID. */
export function parseDevices(text: string, cpu: number = DEFAULT_DEVICE.cpu): DeviceSpec[] {
  return text.split(',').flatMap((item) => {
    const [name = '', count = '1', ...rest] = item.trim().split(':');
    const known = Object.hasOwn(DEVICE_CLASSES, name) ? DEVICE_CLASSES[name] : undefined;
    if (known === undefined || rest.length > 0 || !/^[1-9]\d?$/.test(count)) {
      const expected = `CLASS:COUNT with a class of ${Object.keys(DEVICE_CLASSES).join(', ')} and 1 to 99 of them, as in pi3:2,pi4:3`;
      throw new ChairError('CONFIG_INVALID', 'a device is wrong', { expected, came: `"${item}"` });
    }
    const spec = checkDevice({ cpu: cpu * known.cpuFactor, memoryBytes: known.memoryBytes, rateBits: known.rateBits });
    return Array.from({ length: Number(count) }, () => spec);
  });
}
