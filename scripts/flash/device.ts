/**
 * Which block device is meant, and whether it may be written: facts from Linux' /sys and /proc, then one pure decision. Everything that
 * speaks against a device refuses it; nothing is assumed of a device that cannot be looked at.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import path from 'node:path';
import { ChairError } from '../../broker/errors.js';
import { bytesText } from '../table.js';

export interface DeviceFacts {
  /** `/dev/sdb`, links followed. */
  readonly path: string;
  /** `sdb` */
  readonly name: string;
  /** For people: vendor and model, '' when the device does not say. */
  readonly model: string;
  readonly sizeBytes: number;
  readonly kind: 'disk' | 'partition' | 'loop' | 'virtual';
  /** The medium can be taken out: the kernel says so, or it is an SD card in a slot of the machine (which says "fixed" of itself). */
  readonly removable: boolean;
  readonly readOnly: boolean;
  /** Where it or a part of it is mounted. */
  readonly mounts: readonly string[];
  /** It, or a part of it, is swap, or belongs to another device (LUKS, LVM, RAID). */
  readonly uses: readonly string[];
}

export interface DeviceRules {
  /** For tests. */
  readonly allowLoop?: boolean;
}

/** Places of the system's files; another root in tests. */
export interface SystemFiles {
  readonly sys: string;
  readonly proc: string;
}

const SYSTEM: SystemFiles = { sys: '/sys', proc: '/proc' };

/** Throws FLASH_DEVICE_REFUSED when it is not a block device, or this is not Linux. */
export function describeDevice(device: string): DeviceFacts {
  if (process.platform !== 'linux')
    throw refused(
      device,
      'cards are written by this command on Linux only',
      'Make a file with --out and write it with Raspberry Pi Imager ("Use custom").',
    );
  const real = realPathOf(device);
  const stat = statSync(real);
  if (!stat.isBlockDevice())
    throw refused(device, 'it is not a block device', 'Give the whole card, such as --device /dev/sdb (lsblk lists them).');
  return readFacts(real, deviceNumber(stat.rdev), SYSTEM);
}

function realPathOf(device: string): string {
  try {
    return realpathSync(device);
  } catch (cause) {
    throw new ChairError('FLASH_DEVICE_REFUSED', `${device} does not exist`, {
      expected: 'the card, such as /dev/sdb or /dev/mmcblk0 (lsblk lists them)',
      came: 'no such device',
      cause,
    });
  }
}

/** `8:16` of st_rdev, as glibc packs it. */
export function deviceNumber(rdev: number): string {
  const value = BigInt(rdev);
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & ~0xfffn);
  const minor = (value & 0xffn) | ((value >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** From /sys/dev/block/MAJOR:MINOR and /proc. */
export function readFacts(device: string, number: string, files: SystemFiles): DeviceFacts {
  const folder = realpathSync(path.join(files.sys, 'dev/block', number));
  const name = path.basename(folder);
  const read = (file: string): string => (existsSync(path.join(folder, file)) ? readFileSync(path.join(folder, file), 'utf8').trim() : '');
  const parts = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(path.join(folder, entry.name, 'partition')))
    .map((entry) => ({ name: entry.name, number: readFileSync(path.join(folder, entry.name, 'dev'), 'utf8').trim() }));
  const all = [{ name, number }, ...parts];
  return {
    path: device,
    name,
    model: `${read('device/vendor')} ${read('device/model') || read('device/name')}`.trim(),
    sizeBytes: Number(read('size') || 0) * 512,
    kind: kindOf(folder, name),
    removable: read('removable') === '1' || read('device/type') === 'SD',
    readOnly: read('ro') === '1',
    mounts: mountsOf(all, files),
    uses: all.flatMap((part) => [...swapsOf(part.name, files), ...holdersOf(path.join(files.sys, 'dev/block', part.number, 'holders'))]),
  };
}

function kindOf(folder: string, name: string): DeviceFacts['kind'] {
  if (existsSync(path.join(folder, 'partition'))) return 'partition';
  if (name.startsWith('loop')) return 'loop';
  return folder.includes('/virtual/') ? 'virtual' : 'disk';
}

/** By device number; and by name, since some file systems (Btrfs) give mounts numbers of their own. */
function mountsOf(parts: readonly { readonly name: string; readonly number: string }[], { proc }: SystemFiles): string[] {
  return readFileSync(path.join(proc, 'self/mountinfo'), 'utf8')
    .split('\n')
    .flatMap((line) => {
      const fields = line.split(' ');
      const source = fields[fields.indexOf('-') + 2] ?? '';
      const meant = parts.some((part) => fields[2] === part.number || source === `/dev/${part.name}`);
      return meant && fields[4] !== undefined ? [fields[4].replaceAll('\\040', ' ')] : [];
    });
}

function swapsOf(name: string, { proc }: SystemFiles): string[] {
  const swaps = path.join(proc, 'swaps');
  const used =
    existsSync(swaps) &&
    readFileSync(swaps, 'utf8')
      .split('\n')
      .some((line) => line.split(/\s/)[0] === `/dev/${name}`);
  return used ? [`${name} is swap`] : [];
}

function holdersOf(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).map((holder) => `part of ${holder}`) : [];
}

/** Why the device may not be written; undefined when it may. */
export function whyNot(facts: DeviceFacts, imageBytes: number, rules: DeviceRules = {}): ChairError | undefined {
  const { path: device } = facts;
  if (facts.kind === 'partition') return refused(device, 'it is a partition', 'Give the whole card: /dev/sdb instead of /dev/sdb1.');
  if (facts.mounts.length > 0) {
    const system = facts.mounts.some((mount) => mount === '/' || /^\/(boot|usr|var|home)(\/|$)/.test(mount));
    return refused(
      device,
      `${system ? 'this system runs from it' : 'it is in use'}: mounted at ${facts.mounts.slice(0, 3).join(', ')}`,
      system ? 'Is it the card you mean? (lsblk)' : 'If it is the card you mean, eject or unmount it first.',
    );
  }
  if (facts.uses.length > 0)
    return refused(device, `it is in use: ${facts.uses.slice(0, 3).join(', ')}`, 'Is it the card you mean? (lsblk)');
  if (facts.kind === 'virtual' || (facts.kind === 'loop' && rules.allowLoop !== true))
    return refused(device, 'it is not a card', 'Give a card in a reader, such as /dev/sdb or /dev/mmcblk0 (lsblk lists them).');
  if (!facts.removable && facts.kind !== 'loop')
    return refused(
      device,
      'it is a fixed disk: only what can be taken out of the machine is written',
      'Give a card in a reader (lsblk -o NAME,RM,SIZE,MODEL lists them).',
    );
  if (facts.readOnly) return refused(device, 'it is write-protected', 'Push the slider at the side of the card or adapter.');
  if (facts.sizeBytes === 0) return refused(device, 'there is no card in the reader', 'Put one in.');
  if (facts.sizeBytes < imageBytes)
    return new ChairError('FLASH_DEVICE_TOO_SMALL', `the card in ${device} is too small`, {
      expected: `at least ${bytesText(imageBytes)}`,
      came: bytesText(facts.sizeBytes),
    });
  return undefined;
}

/** `/dev/sdb (SanDisk Ultra, 31.9 GB)` */
export function deviceText({ path: device, model, sizeBytes }: DeviceFacts): string {
  return `${device} (${[model, bytesText(sizeBytes)].filter((part) => part !== '').join(', ')})`;
}

function refused(device: string, why: string, todo: string): ChairError {
  return new ChairError('FLASH_DEVICE_REFUSED', `${device} is not written: ${why}`, { todo });
}
