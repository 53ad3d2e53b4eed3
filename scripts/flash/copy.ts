/**
 * An image from one file into another: unpacked when it is an .xz, blocks of zeros left out (they cost no disk and no time). Never more than
 * a few megabytes in memory.
 */
import { constants, copyFile, type FileHandle, open, rm } from 'node:fs/promises';
import { ChairError } from '../../broker/errors.js';
import { openDisk } from './disk.js';
import { isXz, readXzIndex, unpackXz, type XzStream } from './xz.js';

/** `done` of `total` bytes. */
export type Progress = (done: number, total: number) => void;

export interface ImageSource {
  readonly file: string;
  /** Undefined for an image that is not packed. */
  readonly streams?: readonly XzStream[];
  /** Unpacked. */
  readonly sizeBytes: number;
}

const PIECE = 1024 * 1024;
const ZEROS = Buffer.alloc(PIECE);

/** Looks at a file without unpacking it. Throws FILE_NOT_FOUND, FLASH_IMAGE_DAMAGED. */
export function readSource(file: string): ImageSource {
  const disk = openDisk(file, 'r');
  try {
    if (!isXz(disk)) return { file, sizeBytes: disk.sizeBytes };
    const streams = readXzIndex(disk);
    return { file, streams, sizeBytes: streams.reduce((sum, s) => sum + s.unpackedBytes, 0) };
  } finally {
    disk.close();
  }
}

/** Writes the image into a file that must not exist yet. What was begun is removed when it fails. Throws FLASH_OUTPUT_UNUSABLE, FLASH_IMAGE_DAMAGED. */
export async function copyImage(source: ImageSource, to: string, progress: Progress): Promise<void> {
  if (source.streams === undefined && (await cloned(source.file, to))) return;
  let file: FileHandle;
  try {
    file = await open(to, 'wx', 0o600);
  } catch (cause) {
    throw unusable(to, cause);
  }
  try {
    await fill(file, source, progress);
    await file.sync();
    await file.close();
  } catch (error) {
    await file.close().catch(() => {});
    await rm(to, { force: true });
    throw error instanceof ChairError ? error : unusable(to, error);
  }
}

async function fill(file: FileHandle, source: ImageSource, progress: Progress): Promise<void> {
  const pieces = source.streams === undefined ? readPieces(source.file) : unpackXz(source.file, source.streams);
  let done = 0;
  for await (const piece of batched(pieces)) {
    if (!ZEROS.subarray(0, piece.length).equals(piece)) await writeAll(file, piece, done);
    done += piece.length;
    progress(done, source.sizeBytes);
  }
  if (done !== source.sizeBytes)
    throw new ChairError('FLASH_IMAGE_DAMAGED', `${source.file} changed while it was read`, {
      expected: `${source.sizeBytes} bytes`,
      came: `${done}`,
    });
  await file.truncate(done);
}

/** On file systems that can (Btrfs, XFS, APFS) a copy shares its blocks with the original and takes no time. */
async function cloned(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  }
}

async function* readPieces(path: string): AsyncGenerator<Uint8Array> {
  const file = await open(path, 'r');
  try {
    for (let at = 0; ; ) {
      const buffer = Buffer.allocUnsafe(PIECE);
      const { bytesRead } = await file.read(buffer, 0, PIECE, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** Pieces of any size as pieces of `PIECE` bytes; the last may be shorter. The buffer is used again: done with one before the next is asked for. */
async function* batched(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(PIECE);
  let fill = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.byteLength; ) {
      const count = Math.min(PIECE - fill, piece.byteLength - at);
      buffer.set(piece.subarray(at, at + count), fill);
      at += count;
      fill += count;
      if (fill < PIECE) continue;
      yield buffer;
      fill = 0;
    }
  }
  if (fill > 0) yield buffer.subarray(0, fill);
}

async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.byteLength - done, position + done);
    done += bytesWritten;
  }
}

function unusable(file: string, cause: unknown): ChairError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const came =
    {
      EEXIST: 'a file that exists',
      ENOSPC: 'no room on the disk',
      ENOENT: 'a folder that does not exist',
      EACCES: 'no right to write there',
    }[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return new ChairError('FLASH_OUTPUT_UNUSABLE', `${file} cannot be written`, {
    expected: 'the path of a new file on a disk with room',
    came,
    cause,
  });
}
