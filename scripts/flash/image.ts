/** Looks into an image: is it a 64-bit Raspberry Pi OS that nobody has set up yet, and which first boot does it know? */
import { ChairError } from '../../broker/errors.js';
import { cmdlineArguments } from './cmdline.js';
import type { Disk } from './disk.js';
import { Ext4 } from './ext4.js';
import { FatVolume, looksLikeFat } from './fat.js';
import { type Partition, readPartitions } from './partitions.js';

/** What the first-boot writers choose by. */
export interface ImageFacts {
  readonly boot: Partition;
  /** Where the system mounts the boot partition: `/boot/firmware`, or `/boot` before Raspberry Pi OS 12. */
  readonly bootPath: string;
  /** `2025-12-04`, the day the image was made. */
  readonly release: string;
  /** `Debian GNU/Linux 13 (trixie)` */
  readonly system: string;
  readonly cmdline: string;
  /** cloud-init is installed, and its files are in the boot partition. */
  readonly cloudInit: boolean;
  /** systemd can run a script named on the kernel's command line. */
  readonly systemdRun: boolean;
  readonly networkManager: boolean;
}

const LOADER_64 = '/usr/lib/ld-linux-aarch64.so.1';
const LOADERS_32 = ['/usr/lib/ld-linux-armhf.so.3', '/lib/ld-linux-armhf.so.3', '/lib/ld-linux.so.3'];

/** Throws FLASH_IMAGE_FOREIGN, FLASH_IMAGE_32_BIT, FLASH_IMAGE_DAMAGED. */
export async function inspectImage(disk: Disk): Promise<ImageFacts> {
  const { partitions } = readPartitions(disk);
  const boot = partitions.find((p) => looksLikeFat(disk, p));
  if (boot === undefined) throw foreign('no FAT boot partition');
  const root = firstOf(partitions, (p) => Ext4.open(disk, p));
  if (root === undefined) throw foreign('no ext4 root partition');
  const volume = await FatVolume.open(disk, boot);
  try {
    return lookInto(volume, root, boot);
  } finally {
    volume.close();
  }
}

function lookInto(volume: FatVolume, root: Ext4, boot: Partition): ImageFacts {
  const system = /^PRETTY_NAME="?([^"\n]*)/m.exec(text(root.readFile('/etc/os-release')))?.[1] ?? '';
  const issue = text(volume.readFile('/issue.txt')) || text(root.readFile('/etc/rpi-issue'));
  const release = /^Raspberry Pi reference (\d{4}-\d{2}-\d{2})/m.exec(issue)?.[1];
  if (release === undefined)
    throw foreign(system === '' ? 'no issue.txt of Raspberry Pi OS in the boot partition' : `${system}, not Raspberry Pi OS`);
  refuse32Bit(root, release);
  const cmdline = text(volume.readFile('/cmdline.txt'));
  if (cmdline.trim() === '' || volume.find('/config.txt') === undefined)
    throw foreign('a boot partition without config.txt and cmdline.txt');
  refuseUsed(volume, cmdline);
  return {
    boot,
    bootPath: bootPathOf(text(root.readFile('/etc/fstab'))),
    release,
    system: system === '' ? 'unknown' : system,
    cmdline,
    cloudInit: root.exists('/usr/bin/cloud-init') && volume.find('/meta-data') !== undefined && volume.find('/user-data') !== undefined,
    systemdRun: root.exists('/lib/systemd/system-generators/systemd-run-generator'),
    networkManager: root.exists('/usr/sbin/NetworkManager'),
  };
}

/** The 32-bit system has the 64-bit kernel too and starts it on a Pi 4: only its programs tell. */
function refuse32Bit(root: Ext4, release: string): void {
  if (root.exists(LOADER_64) || root.exists('/lib/ld-linux-aarch64.so.1')) return;
  if (!LOADERS_32.some((file) => root.exists(file))) throw foreign('a root partition without the programs of a 64-bit ARM system');
  throw new ChairError('FLASH_IMAGE_32_BIT', `Raspberry Pi OS of ${release} in this image is the 32-bit one`, {
    expected: 'the 64-bit one (arm64): the inference engine has no build for 32-bit ARM',
    todo: 'Download "Raspberry Pi OS Lite (64-bit)"; it runs on the Pi 3, 4, 5 and Zero 2 W.',
  });
}

/** Somebody's set-up would be overwritten, or run beside ours. */
function refuseUsed(volume: FatVolume, cmdline: string): void {
  const args = cmdlineArguments(cmdline);
  const sign =
    volume.find('/musical-chair') !== undefined
      ? 'the folder musical-chair'
      : volume.find('/firstrun.sh') !== undefined
        ? 'a firstrun.sh'
        : args.find((arg) => arg.startsWith('systemd.run=') || arg.startsWith('ds=nocloud'));
  if (sign === undefined) return;
  throw new ChairError('FLASH_IMAGE_FOREIGN', 'this image was set up already', {
    expected: 'an image as it was downloaded',
    came: `${sign} in the boot partition`,
  });
}

function bootPathOf(fstab: string): string {
  const mounts = fstab.split('\n').flatMap((line) => (line.trim().startsWith('#') ? [] : [line.trim().split(/\s+/)[1] ?? '']));
  const found = ['/boot/firmware', '/boot'].find((path) => mounts.includes(path));
  if (found === undefined) throw foreign('an fstab that mounts no boot partition');
  return found;
}

function text(bytes: Buffer | undefined): string {
  return bytes?.toString('utf8') ?? '';
}

function firstOf<T, R>(items: readonly T[], find: (item: T) => R | undefined): R | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}

function foreign(came: string): ChairError {
  return new ChairError('FLASH_IMAGE_FOREIGN', 'this is not an image of Raspberry Pi OS', {
    expected: 'a 64-bit Raspberry Pi OS image (.img or .img.xz), as it was downloaded',
    came,
  });
}
