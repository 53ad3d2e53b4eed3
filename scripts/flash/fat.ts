/**
 * Files of a FAT16 or FAT32 partition inside an image: read, written and removed without mounting, root or tools of the system.
 * ChaN's FatFs does the work (compiled to WebAssembly by `js-fatfs`); here it gets its sectors and its calls get names, types and errors.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import * as ff from 'js-fatfs';
import { ChairError } from '../../broker/errors.js';
import type { Disk } from './disk.js';
import type { Partition } from './partitions.js';

const SECTOR = 512;
/** Bytes that go through WebAssembly's memory at a time. */
const CHUNK = 1024 * 1024;
/** The boot partition's text files are a few kB. */
const MAX_READ = 16 * 1024 * 1024;

export interface FatEntry {
  readonly name: string;
  readonly sizeBytes: number;
  readonly directory: boolean;
}

/** What a file is written from: bytes, or a file that is copied piece by piece. */
export type FatSource = Uint8Array | { readonly file: string };

/** True when the partition begins like a FAT file system that FatFs takes: it knows by the boot sector, as the Pi's firmware does. */
export function looksLikeFat(disk: Disk, partition: Partition): boolean {
  if (partition.sizeBytes < 64 * SECTOR) return false;
  const boot = disk.read(partition.offset, SECTOR);
  const jump = boot[0] === 0xeb || boot[0] === 0xe9 || boot[0] === 0xe8;
  const sectorSize = boot.readUInt16LE(11);
  const cluster = boot[13] ?? 0;
  return jump && boot.readUInt16LE(510) === 0xaa55 && sectorSize === SECTOR && cluster > 0 && (cluster & (cluster - 1)) === 0;
}

/** FatFs sees the partition as a whole disk, so that it never looks at the partition table itself. */
function sectors(disk: Disk, partition: Partition): ff.DiskIO {
  const count = Math.floor(partition.sizeBytes / SECTOR);
  const place = (sector: number, n: number): number | undefined => (sector + n <= count ? partition.offset + sector * SECTOR : undefined);
  const guarded = (work: () => void): number => {
    try {
      work();
      return ff.RES_OK;
    } catch {
      return ff.RES_ERROR;
    }
  };
  return {
    initialize: () => (disk.writable ? 0 : ff.STA_PROTECT),
    status: () => (disk.writable ? 0 : ff.STA_PROTECT),
    read: (fs, _drive, buffer, sector, n) => {
      const at = place(sector >>> 0, n);
      return at === undefined ? ff.RES_PARERR : guarded(() => fs.HEAPU8.set(disk.read(at, n * SECTOR), buffer));
    },
    write: (fs, _drive, buffer, sector, n) => {
      const at = place(sector >>> 0, n);
      return at === undefined ? ff.RES_PARERR : guarded(() => disk.write(at, fs.HEAPU8.slice(buffer, buffer + n * SECTOR)));
    },
    ioctl: (fs, _drive, command, buffer) => {
      if (command === ff.CTRL_SYNC) return ff.RES_OK;
      if (command === ff.GET_SECTOR_COUNT) fs.setValue(buffer, count, 'i32');
      else if (command === ff.GET_SECTOR_SIZE) fs.setValue(buffer, SECTOR, 'i16');
      else if (command === ff.GET_BLOCK_SIZE) fs.setValue(buffer, 1, 'i32');
      else return ff.RES_PARERR;
      return ff.RES_OK;
    },
  };
}

export class FatVolume {
  readonly #fs: ff.FatFs;
  readonly #volume: number;
  /** Room for one FILINFO, one DIR or FIL, one number and one chunk: taken once. */
  readonly #info: number;
  readonly #handle: number;
  readonly #number: number;
  readonly #chunk: number;
  readonly clusterBytes: number;
  #closed = false;

  private constructor(fs: ff.FatFs, volume: number, clusterBytes: number) {
    this.#fs = fs;
    this.#volume = volume;
    this.clusterBytes = clusterBytes;
    this.#info = fs.malloc(ff.sizeof_FILINFO);
    this.#handle = fs.malloc(Math.max(ff.sizeof_FIL, ff.sizeof_DIR));
    this.#number = fs.malloc(8);
    this.#chunk = fs.malloc(CHUNK);
  }

  /** Throws FLASH_IMAGE_DAMAGED when there is no FAT file system in the partition. */
  static async open(disk: Disk, partition: Partition): Promise<FatVolume> {
    const fs = await ff.create({ diskio: sectors(disk, partition), codepage: 437 });
    const volume = fs.malloc(ff.sizeof_FATFS);
    check(fs.f_mount(volume, '', 1), 'the boot partition', 'opened');
    const boot = disk.read(partition.offset, SECTOR);
    return new FatVolume(fs, volume, (boot[13] ?? 1) * SECTOR);
  }

  get freeBytes(): number {
    const pointer = this.#fs.malloc(4);
    check(this.#fs.f_getfree('', this.#number, pointer), 'the boot partition', 'measured');
    this.#fs.free(pointer);
    return (this.#fs.getValue(this.#number, 'i32') >>> 0) * this.clusterBytes;
  }

  /** Undefined when nothing has this name. Names are compared without case, as FAT does. */
  find(path: string): FatEntry | undefined {
    const result = this.#fs.f_stat(path, this.#info);
    if (result === ff.FR_NO_FILE || result === ff.FR_NO_PATH) return undefined;
    check(result, path, 'looked up');
    return this.#entry();
  }

  list(path: string): FatEntry[] {
    check(this.#fs.f_opendir(this.#handle, path), path, 'listed');
    const entries: FatEntry[] = [];
    for (;;) {
      check(this.#fs.f_readdir(this.#handle, this.#info), path, 'listed');
      const entry = this.#entry();
      if (entry.name === '') break;
      entries.push(entry);
    }
    check(this.#fs.f_closedir(this.#handle), path, 'listed');
    return entries;
  }

  /** The whole file; undefined when there is none. */
  readFile(path: string): Buffer | undefined {
    const entry = this.find(path);
    if (entry === undefined || entry.directory) return undefined;
    if (entry.sizeBytes > MAX_READ) throw failure(path, 'read', `it is ${entry.sizeBytes} bytes long`);
    return Buffer.concat([...this.readPieces(path)]);
  }

  /** A file of any size, piece by piece. */
  *readPieces(path: string): Generator<Buffer> {
    check(this.#fs.f_open(this.#handle, path, ff.FA_READ), path, 'read');
    for (;;) {
      check(this.#fs.f_read(this.#handle, this.#chunk, CHUNK, this.#number), path, 'read');
      const count = this.#fs.getValue(this.#number, 'i32');
      if (count === 0) break;
      yield Buffer.from(this.#fs.HEAPU8.slice(this.#chunk, this.#chunk + count).buffer);
    }
    check(this.#fs.f_close(this.#handle), path, 'read');
  }

  /** Creates or replaces a file. Throws FLASH_BOOT_FULL. */
  writeFile(path: string, source: FatSource): void {
    check(this.#fs.f_open(this.#handle, path, ff.FA_WRITE | ff.FA_CREATE_ALWAYS), path, 'created');
    for (const piece of pieces(source)) {
      this.#fs.HEAPU8.set(piece, this.#chunk);
      check(this.#fs.f_write(this.#handle, this.#chunk, piece.byteLength, this.#number), path, 'written');
      // FatFs says "written less than asked" when the volume is full, and calls it a success.
      if (this.#fs.getValue(this.#number, 'i32') < piece.byteLength) throw full(`${path} does not fit`);
    }
    check(this.#fs.f_close(this.#handle), path, 'written');
  }

  makeDirectory(path: string): void {
    if (this.find(path)?.directory === true) return;
    check(this.#fs.f_mkdir(path), path, 'created');
  }

  /** No error when there is no such file. */
  remove(path: string): void {
    const result = this.#fs.f_unlink(path);
    if (result !== ff.FR_NO_FILE && result !== ff.FR_NO_PATH) check(result, path, 'removed');
  }

  /** Writes what is still in FatFs' buffers. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    check(this.#fs.f_unmount(''), 'the boot partition', 'closed');
    for (const pointer of [this.#info, this.#handle, this.#number, this.#chunk, this.#volume]) this.#fs.free(pointer);
  }

  #entry(): FatEntry {
    return {
      name: this.#fs.FILINFO_fname(this.#info),
      sizeBytes: this.#fs.FILINFO_fsize(this.#info),
      directory: (this.#fs.FILINFO_fattrib(this.#info) & ff.AM_DIR) !== 0,
    };
  }
}

function* pieces(source: FatSource): Generator<Uint8Array> {
  if (source instanceof Uint8Array) {
    for (let at = 0; at < source.byteLength; at += CHUNK) yield source.subarray(at, at + CHUNK);
    return;
  }
  const fd = openSync(source.file, 'r');
  try {
    const buffer = Buffer.alloc(CHUNK);
    for (let count = readSync(fd, buffer); count > 0; count = readSync(fd, buffer)) yield buffer.subarray(0, count);
  } finally {
    closeSync(fd);
  }
}

/** FatFs' results in words (its manual, "Return Code of API Functions"). */
const REASONS: Readonly<Record<number, string>> = {
  1: 'the image could not be read or written there',
  2: 'its tables contradict themselves',
  4: 'no such file',
  5: 'no such folder',
  6: 'the name is not allowed',
  7: 'no room, or it is a folder or protected',
  8: 'it exists already',
  10: 'the image is open for reading only',
  13: 'there is no FAT file system',
};

function check(result: number, what: string, done: string): void {
  if (result === ff.FR_OK) return;
  if (result === ff.FR_DENIED && done !== 'removed') throw full(`${what} could not be ${done}`);
  throw failure(what, done, REASONS[result] ?? `FatFs says ${result}`);
}

function full(what: string): ChairError {
  return new ChairError('FLASH_BOOT_FULL', `no room in the boot partition: ${what}`, {
    todo: 'Take a fresh image of Raspberry Pi OS; its boot partition has 512 MB.',
  });
}

function failure(what: string, done: string, came: string): ChairError {
  return new ChairError('FLASH_IMAGE_DAMAGED', `${what} could not be ${done}`, {
    expected: 'a FAT16 or FAT32 boot partition in order',
    came,
    todo: 'Download the image again and compare its checksum with the one beside it.',
  });
}
