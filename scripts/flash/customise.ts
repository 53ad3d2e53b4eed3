/** Writes one card's set-up into the boot partition of an image: planned whole, checked for room, then written and read back. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { ChairError } from '../../broker/errors.js';
import { BOOT_FOLDER, type BootFile } from '../bundle/boot-files.js';
import { bytesText } from '../table.js';
import { editCmdline } from './cmdline.js';
import { type Disk, openDisk } from './disk.js';
import { type FatSource, FatVolume } from './fat.js';
import type { FirstBoot } from './first-boot.js';
import type { ImageFacts } from './image.js';

export interface PlannedFile {
  /** From the root of the boot partition: `/musical-chair/token`. */
  readonly path: string;
  readonly source: FatSource;
  readonly sizeBytes: number;
}

/** Left free: for the log of the first boot, and so that not the last cluster is taken. */
const RESERVE_BYTES = 1024 * 1024;

/** What is written, in this order: the folder first, the command line that makes use of it last. */
export function planFiles(facts: ImageFacts, firstBoot: FirstBoot, bundleFiles: readonly BootFile[]): PlannedFile[] {
  const texts = { ...firstBoot.files, 'cmdline.txt': editCmdline(facts.cmdline, firstBoot.cmdline) };
  return [
    ...bundleFiles.map(({ name, content }) => {
      const path = `/${BOOT_FOLDER}/${name}`;
      return content instanceof Uint8Array
        ? { path, source: content, sizeBytes: content.byteLength }
        : { path, source: { file: content.file }, sizeBytes: content.sizeBytes };
    }),
    ...Object.entries(texts).map(([name, text]) => {
      const source = Buffer.from(text);
      return { path: `/${name}`, source, sizeBytes: source.byteLength };
    }),
  ];
}

/** Bytes that the files need beyond those they replace, in whole clusters, folder entries included. */
export function roomNeeded(volume: Pick<FatVolume, 'find' | 'clusterBytes'>, files: readonly PlannedFile[]): number {
  const clusters = (sizeBytes: number): number => Math.ceil(sizeBytes / volume.clusterBytes) * volume.clusterBytes;
  const folders = 2 * volume.clusterBytes;
  return files.reduce((sum, { path, sizeBytes }) => sum + clusters(sizeBytes) - clusters(volume.find(path)?.sizeBytes ?? 0), folders);
}

/** Throws FLASH_BOOT_FULL; changes nothing. */
export async function checkRoom(disk: Disk, facts: ImageFacts, files: readonly PlannedFile[]): Promise<void> {
  const volume = await FatVolume.open(disk, facts.boot);
  try {
    const needed = roomNeeded(volume, files) + RESERVE_BYTES;
    if (needed <= volume.freeBytes) return;
    throw new ChairError('FLASH_BOOT_FULL', `the boot partition (${bytesText(facts.boot.sizeBytes)}) has no room for the bundle`, {
      expected: `${bytesText(needed)} free`,
      came: bytesText(volume.freeBytes),
      todo: 'Take an image as it was downloaded; since Raspberry Pi OS 12 the boot partition has 512 MB.',
    });
  } finally {
    volume.close();
  }
}

/** Writes the files and reads each back. Throws FLASH_BOOT_FULL, FLASH_IMAGE_DAMAGED, FLASH_VERIFY_FAILED. */
export async function writeFiles(image: string, facts: ImageFacts, files: readonly PlannedFile[]): Promise<void> {
  const disk = openDisk(image, 'r+');
  try {
    const volume = await FatVolume.open(disk, facts.boot);
    volume.makeDirectory(`/${BOOT_FOLDER}`);
    for (const { path, source } of files) volume.writeFile(path, source);
    volume.close();
    // Opened anew, so that nothing comes from FatFs' buffers.
    const written = await FatVolume.open(disk, facts.boot);
    for (const file of files) await compare(written, file);
    written.close();
  } finally {
    disk.close();
  }
}

async function compare(volume: FatVolume, { path, source, sizeBytes }: PlannedFile): Promise<void> {
  const wanted = createHash('sha256');
  if (source instanceof Uint8Array) wanted.update(source);
  else for await (const piece of createReadStream(source.file)) wanted.update(piece);
  const got = createHash('sha256');
  let count = 0;
  for (const piece of volume.readPieces(path)) {
    got.update(piece);
    count += piece.byteLength;
  }
  if (count === sizeBytes && got.digest('hex') === wanted.digest('hex')) return;
  throw new ChairError('FLASH_VERIFY_FAILED', `${path} in the image does not read back as it was written`, {
    expected: `${sizeBytes} bytes with the same sha256`,
    came: `${count} bytes`,
  });
}
