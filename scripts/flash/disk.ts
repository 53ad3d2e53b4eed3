/**
 * Bytes at a place, in an image file or a block device. Synchronous, because the FAT library asks for sectors in the middle of its own calls;
 * only small pieces are read and written this way, whole images are streamed (`copy.ts`).
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { ChairError } from '../../broker/errors.js';

export interface Disk {
  readonly sizeBytes: number;
  readonly writable: boolean;
  /** Throws FLASH_IMAGE_DAMAGED when the file ends before `length` bytes were read. */
  read(offset: number, length: number): Buffer;
  write(offset: number, bytes: Uint8Array): void;
  close(): void;
}

/** Throws FILE_NOT_FOUND. */
export function openDisk(file: string, mode: 'r' | 'r+'): Disk {
  let fd: number;
  try {
    fd = openSync(file, mode);
  } catch (cause) {
    const came = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be opened`, { expected: 'the path of an image file', came, cause });
  }
  const stat = fstatSync(fd);
  if (!stat.isFile()) {
    closeSync(fd);
    throw new ChairError('FILE_NOT_FOUND', `${file} is not a file`, {
      expected: 'the path of an image file',
      came: stat.isDirectory() ? 'a folder' : 'a device',
    });
  }
  const { size } = stat;
  let open = true;
  return {
    sizeBytes: size,
    writable: mode === 'r+',
    read: (offset, length) => {
      checkPlace(file, size, offset, length);
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length; ) {
        const count = readSync(fd, bytes, done, length - done, offset + done);
        if (count === 0) throw endedEarly(file, offset + length, offset + done);
        done += count;
      }
      return bytes;
    },
    write: (offset, bytes) => {
      for (let done = 0; done < bytes.byteLength; ) done += writeSync(fd, bytes, done, bytes.byteLength - done, offset + done);
    },
    close: () => {
      if (!open) return;
      open = false;
      if (mode === 'r+') fsyncSync(fd);
      closeSync(fd);
    },
  };
}

/** An image held in memory: for tests, and for looking at the first megabytes of a stream. */
export function memoryDisk(bytes: Uint8Array): Disk {
  return {
    sizeBytes: bytes.byteLength,
    writable: true,
    read: (offset, length) => {
      checkPlace('the image', bytes.byteLength, offset, length);
      return Buffer.from(bytes.subarray(offset, offset + length));
    },
    write: (offset, piece) => bytes.set(piece, offset),
    close: () => {},
  };
}

/** Tables of a damaged image name places that no disk has, and that no number can say exactly. */
function checkPlace(file: string, sizeBytes: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || !(offset + length <= sizeBytes)) throw endedEarly(file, offset + length, sizeBytes);
}

function endedEarly(file: string, wanted: number, has: number): ChairError {
  return new ChairError('FLASH_IMAGE_DAMAGED', `${file} ends too early`, {
    expected: `at least ${wanted} bytes`,
    came: `${has}`,
    todo: 'Download the image again and compare its checksum with the one beside it.',
  });
}
