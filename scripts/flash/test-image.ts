/** For tests: small images built like those of Raspberry Pi OS, with the system's own tools, so that ours are not checked against themselves. */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const MIB = 1024 * 1024;
/** In memory where that is possible: what is written is flushed, and a busy disk takes seconds for that. */
const BASE = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const BOOT_START = 1;
const ROOT_MIB = 2;
/** With one sector to a cluster: below, it would be FAT16 instead of 32, and FAT12 instead of 16. */
const SMALLEST = { 16: 8, 32: 36 } as const;
/** Administrators' tools are not on everybody's path. */
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin`, MTOOLS_SKIP_CHECK: '1' };

export function tool(program: string, ...args: string[]): string {
  return execFileSync(program, args, { env: ENV, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

function has(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`], { env: ENV, stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** The tools that are not here, for a skip's reason; '' when all are. In CI nothing is skipped. */
export function lacking(...programs: string[]): string {
  const absent = programs.filter((program) => !has(program));
  if (absent.length > 0 && process.env.CI === 'true') throw new Error(`not installed: ${absent.join(', ')}`);
  return absent.join(', ');
}

export const IMAGE_TOOLS = ['sfdisk', 'mkfs.vfat', 'fsck.fat', 'mcopy', 'mkfs.ext4', 'xz'] as const;

export interface TestImage {
  readonly file: string;
  readonly folder: string;
  readonly bootOffset: number;
  /** Reads a file of the boot partition with mtools. */
  readonly read: (name: string) => string;
  /** Names in a folder of the boot partition, sorted, with mtools. */
  readonly names: (folder?: string) => string[];
  /** What `fsck.fat -n` says of the boot partition; throws when it finds anything. */
  readonly fsck: () => string;
}

export interface TestImageOptions {
  /** 13: cloud-init; 12: firstrun.sh. */
  readonly release?: 12 | 13;
  readonly bits?: 32 | 64;
  readonly table?: 'dos' | 'gpt';
  readonly fat?: 16 | 32;
  readonly bootMib?: number;
  /** More files of the boot partition, or others instead. `undefined` leaves one out. */
  readonly boot?: Readonly<Record<string, string | Buffer | undefined>>;
  /** The same for the root. */
  readonly root?: Readonly<Record<string, string | undefined>>;
}

export function testFolder(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(path.join(BASE, 'mc-flash-'));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

function bootFiles(release: 12 | 13): Record<string, string> {
  const cmdline = 'console=serial0,115200 console=tty1 root=PARTUUID=4d3f1a2b-02 rootfstype=ext4 fsck.repair=yes rootwait';
  return {
    'config.txt': 'arm_64bit=1\n',
    'issue.txt': `Raspberry Pi reference ${release === 13 ? '2025-12-04' : '2024-11-19'}\nGenerated using pi-gen, stage2\n`,
    'kernel8.img': 'kernel',
    'bcm2711-rpi-4-b.dtb': 'a long name',
    ...(release === 13
      ? {
          'cmdline.txt': `${cmdline} resize\n`,
          'user-data': '#cloud-config\n#hostname: raspberrypi\n',
          'meta-data': 'dsmode: local\ninstance_id: rpios-image\n',
          'network-config': 'network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n      optional: true\n',
        }
      : { 'cmdline.txt': `${cmdline} quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n` }),
  };
}

function rootFiles(release: 12 | 13, bits: 32 | 64): Record<string, string> {
  const name = release === 13 ? 'Debian GNU/Linux 13 (trixie)' : 'Debian GNU/Linux 12 (bookworm)';
  return {
    'usr/lib/os-release': `PRETTY_NAME="${name}"\nID=${bits === 64 ? 'debian' : 'raspbian'}\n`,
    'etc/fstab':
      'proc /proc proc defaults 0 0\nPARTUUID=4d3f1a2b-01 /boot/firmware vfat defaults 0 2\nPARTUUID=4d3f1a2b-02 / ext4 defaults,noatime 0 1\n',
    'etc/rpi-issue': 'Raspberry Pi reference\n',
    'usr/sbin/NetworkManager': 'elf',
    'usr/lib/systemd/system-generators/systemd-run-generator': 'elf',
    [bits === 64 ? 'usr/lib/ld-linux-aarch64.so.1' : 'usr/lib/ld-linux-armhf.so.3']: 'elf',
    ...(release === 13 ? { 'usr/bin/cloud-init': '#!/usr/bin/python3\n' } : {}),
  };
}

function writeTree(folder: string, files: Readonly<Record<string, string | Buffer | undefined>>): string[] {
  const written = Object.entries(files).flatMap(([name, content]) => (content === undefined ? [] : [[name, content] as const]));
  for (const [name, content] of written) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), content);
  }
  return written.map(([name]) => name);
}

/** A FAT boot partition and an ext4 root, as pi-gen lays them out; 12 MB, made in about 0.1 s. */
export function makeImage(folder: string, options: TestImageOptions = {}): TestImage {
  const { release = 13, bits = 64, table = 'dos', fat = 16, bootMib = SMALLEST[fat] } = options;
  const file = path.join(folder, `raspios-${release}-${bits}.img`);
  writeFileSync(file, '');
  truncateSync(file, (BOOT_START + bootMib + ROOT_MIB + 1) * MIB);
  execFileSync('sfdisk', ['-q', file], {
    env: ENV,
    input: `label: ${table}\nstart=${BOOT_START}MiB, size=${bootMib}MiB, type=${table === 'dos' ? 'c' : 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B'}\nstart=${BOOT_START + bootMib}MiB, size=${ROOT_MIB}MiB, type=linux\n`,
  });
  const boot = path.join(folder, 'boot.fat');
  rmSync(boot, { force: true });
  tool('mkfs.vfat', '-C', '-F', String(fat), '-n', 'BOOTFS', '-s', '1', boot, String(bootMib * 1024));
  const bootTree = path.join(folder, 'boot');
  const names = writeTree(bootTree, { ...bootFiles(release), ...options.boot });
  const tops = [...new Set(names.map((name) => path.join(bootTree, name.split('/')[0] ?? '')))];
  tool('mcopy', '-s', '-i', boot, ...tops, '::');
  const root = path.join(folder, 'root');
  writeTree(root, { ...rootFiles(release, bits), ...options.root });
  symlinkSync('usr/lib', path.join(root, 'lib'));
  symlinkSync('../usr/lib/os-release', path.join(root, 'etc/os-release'));
  const ext4 = path.join(folder, 'root.ext4');
  writeFileSync(ext4, '');
  truncateSync(ext4, ROOT_MIB * MIB);
  tool('mkfs.ext4', '-q', '-F', '-d', root, '-L', 'rootfs', ext4);
  const fd = openSync(file, 'r+');
  writeSync(fd, readFileSync(boot), 0, bootMib * MIB, BOOT_START * MIB);
  writeSync(fd, readFileSync(ext4), 0, ROOT_MIB * MIB, (BOOT_START + bootMib) * MIB);
  closeSync(fd);
  for (const left of [boot, ext4, bootTree, root]) rmSync(left, { recursive: true, force: true });
  return openImage(file, folder, BOOT_START * MIB, bootMib);
}

/** Looks into the boot partition of an image with mtools and fsck.fat. */
export function openImage(file: string, folder: string, bootOffset: number, bootMib: number): TestImage {
  const at = `${file}@@${bootOffset}`;
  return {
    file,
    folder,
    bootOffset,
    read: (name) => tool('mtype', '-i', at, `::${name}`),
    names: (directory = '') =>
      tool('mdir', '-b', '-i', at, `::${directory}`)
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => path.basename(line.replace(/\/$/, '')))
        .sort(),
    fsck: () => {
      const partition = path.join(folder, 'fsck.fat.img');
      writeFileSync(partition, readFileSync(file).subarray(bootOffset, bootOffset + bootMib * MIB));
      return tool('fsck.fat', '-n', '-v', partition);
    },
  };
}

export function sameImage(image: TestImage, file: string): TestImage {
  const bootMib = (statSync(image.file).size - image.bootOffset) / MIB - ROOT_MIB - 1;
  return openImage(file, image.folder, image.bootOffset, bootMib);
}

/** In Node's place: a program for 64-bit ARM, as far as its header says. */
export function armProgram(folder: string): string {
  const file = path.join(folder, 'node');
  const elf = readFileSync('/bin/true');
  elf.writeUInt16LE(183, 18);
  writeFileSync(file, elf);
  return file;
}
