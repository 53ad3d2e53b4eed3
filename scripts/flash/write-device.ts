/**
 * Writes an image to a block device and reads it back. Past the page cache in both directions (O_DIRECT), so that the progress is the card's
 * and the comparison is with what the card holds, not with what memory remembers.
 */
import { constants, type FileHandle, open } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';
import type { Progress } from './copy.js';
import type { DeviceFacts } from './device.js';

const BLOCK = 4 * 1024 * 1024;
const SECTOR = 512;
/** At the end of a card an old partition table (GPT keeps a second one there) would be found and "repaired". */
const TAIL = 1024 * 1024;

/** WebAssembly's memory begins at a page, as O_DIRECT wants it; no other buffer in Node does so reliably. */
declare const WebAssembly: { readonly Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer } };

function alignedBuffer(): Buffer {
  return Buffer.from(new WebAssembly.Memory({ initial: BLOCK / 65_536 }).buffer);
}

export interface DeviceProgress {
  readonly writing: Progress;
  readonly checking: Progress;
  /** The device does not take O_DIRECT (some readers and loop devices): what was read back may have come from memory. */
  readonly cached: () => void;
}

/** Throws FLASH_DEVICE_REFUSED (somebody else has it), FLASH_VERIFY_FAILED. */
export async function writeDevice(image: string, device: DeviceFacts, progress: DeviceProgress): Promise<void> {
  const source = await open(image, 'r');
  try {
    const { size } = await source.stat();
    const target = await openExclusive(device.path, progress.cached);
    try {
      await writeAll(source, target, size, progress.writing);
      await wipeTail(target, size, device.sizeBytes);
      await target.sync();
      await readBack(source, target, size, device, progress.checking);
    } catch (cause) {
      throw cause instanceof ChairError ? cause : failed(device, cause);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** O_EXCL on a block device: the kernel refuses what is mounted or claimed, whatever was true a moment ago. */
async function openExclusive(device: string, cached: () => void): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_EXCL;
  try {
    return await open(device, flags | constants.O_DIRECT);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : '';
    if (code === 'EINVAL') {
      cached();
      return await open(device, flags);
    }
    const why =
      { EBUSY: 'another program has it', EACCES: 'you may not write it', EROFS: 'it is write-protected' }[String(code)] ?? String(cause);
    throw new ChairError('FLASH_DEVICE_REFUSED', `${device} is not written: ${why}`, {
      todo:
        code === 'EACCES'
          ? 'Run the command with sudo, or make a file with --out and write it with Raspberry Pi Imager.'
          : 'Close what uses it.',
      cause,
    });
  }
}

/** Whole sectors: what is behind the image's end in the last one is zeros. */
function padded(count: number): number {
  return Math.ceil(count / SECTOR) * SECTOR;
}

async function writeAll(source: FileHandle, target: FileHandle, size: number, progress: Progress): Promise<void> {
  const buffer = alignedBuffer();
  for (let at = 0; at < size; ) {
    const count = await readFull(source, buffer, Math.min(BLOCK, size - at), at);
    buffer.fill(0, count, padded(count));
    await writeFull(target, buffer, padded(count), at);
    at += count;
    progress(at, size);
  }
}

async function wipeTail(target: FileHandle, imageBytes: number, deviceBytes: number): Promise<void> {
  const from = Math.max(padded(imageBytes), deviceBytes - TAIL);
  const count = Math.floor((deviceBytes - from) / SECTOR) * SECTOR;
  if (count <= 0) return;
  await writeFull(target, alignedBuffer(), count, from);
}

async function readBack(source: FileHandle, target: FileHandle, size: number, device: DeviceFacts, progress: Progress): Promise<void> {
  const wanted = alignedBuffer();
  const got = alignedBuffer();
  for (let at = 0; at < size; ) {
    const count = await readFull(source, wanted, Math.min(BLOCK, size - at), at);
    await readFull(target, got, padded(count), at);
    if (!got.subarray(0, count).equals(wanted.subarray(0, count))) {
      let first = 0;
      while (got[first] === wanted[first]) first++;
      throw new ChairError('FLASH_VERIFY_FAILED', `the card in ${device.path} does not hold what was written`, {
        expected: `the image's bytes everywhere`,
        came: `another at byte ${at + first}`,
        todo: 'The card or the reader is bad (or the card is smaller than it says): use another.',
      });
    }
    at += count;
    progress(at, size);
  }
}

async function readFull(file: FileHandle, buffer: Buffer, count: number, position: number): Promise<number> {
  for (let done = 0; done < count; ) {
    const { bytesRead } = await file.read(buffer, done, count - done, position + done);
    if (bytesRead === 0)
      throw new ChairError('FLASH_VERIFY_FAILED', 'reading ended too early', {
        expected: `${count} bytes at ${position}`,
        came: `${done}`,
      });
    done += bytesRead;
  }
  return count;
}

async function writeFull(file: FileHandle, buffer: Buffer, count: number, position: number): Promise<void> {
  for (let done = 0; done < count; ) {
    const { bytesWritten } = await file.write(buffer, done, count - done, position + done);
    done += bytesWritten;
  }
}

function failed(device: DeviceFacts, cause: unknown): ChairError {
  return new ChairError('FLASH_VERIFY_FAILED', `${device.path} could not be written or read`, {
    came: cause instanceof Error ? cause.message : String(cause),
    todo: 'The card or the reader is bad, or it was pulled out: try again, then use another.',
    cause,
  });
}
