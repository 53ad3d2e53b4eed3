/**
 * Reads files of an ext4 file system without mounting it. Read only, and only what looking into an image needs: directories, links, files
 * in extents. Source: the kernel's Documentation/filesystems/ext4 (superblock, group descriptors, inodes, extent tree, linear directories;
 * a hashed directory reads as a linear one, its index blocks look like empty entries).
 */
import { ChairError } from '../../broker/errors.js';
import type { Disk } from './disk.js';
import type { Partition } from './partitions.js';

const ROOT_INODE = 2;
const EXTENTS_FLAG = 0x80000;
const INLINE_FLAG = 0x10000000;
/** INCOMPAT features under which the structures read here lie elsewhere. */
const UNREADABLE = { 8: 'a separate journal', 16: 'meta block groups' } as const;
const SIXTY_FOUR_BIT = 0x0080;
/** Files read here are a few kB; a damaged size must not eat the memory. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_LINKS = 12;
/** PATH_MAX of Linux. */
const MAX_TARGET_BYTES = 4_096;
/** A file of MAX_FILE_BYTES in pieces of 1 kB has 200; a tree whose nodes lead to each other has no end. */
const MAX_TREE_NODES = 1_000;

interface Inode {
  readonly mode: number;
  readonly sizeBytes: number;
  readonly flags: number;
  /** The 60 bytes that hold the extent tree, or a short link's target. */
  readonly block: Buffer;
}

/** How far a file's extents have been read. */
interface Reading {
  readonly out: Buffer;
  nodes: number;
  /** First block of the file that may come next. */
  next: number;
}

type Kind = 'file' | 'directory' | 'link' | 'other';

export class Ext4 {
  readonly #disk: Disk;
  readonly #start: number;
  readonly #blockSize: number;
  readonly #inodesPerGroup: number;
  readonly #inodeSize: number;
  readonly #descriptorSize: number;
  readonly #descriptorsAt: number;
  readonly #wide: boolean;

  private constructor(disk: Disk, start: number, superblock: Buffer) {
    this.#disk = disk;
    this.#start = start;
    this.#blockSize = 1024 << superblock.readUInt32LE(24);
    this.#inodesPerGroup = superblock.readUInt32LE(40);
    this.#inodeSize = superblock.readUInt32LE(76) === 0 ? 128 : superblock.readUInt16LE(88);
    this.#wide = (superblock.readUInt32LE(96) & SIXTY_FOUR_BIT) !== 0;
    this.#descriptorSize = this.#wide ? superblock.readUInt16LE(254) : 32;
    this.#descriptorsAt = (superblock.readUInt32LE(20) + 1) * this.#blockSize;
  }

  /** Undefined when the partition holds no ext4. Throws FLASH_IMAGE_DAMAGED when it holds a broken one. */
  static open(disk: Disk, partition: Partition): Ext4 | undefined {
    if (partition.sizeBytes < 4_096) return undefined;
    const superblock = disk.read(partition.offset + 1_024, 1_024);
    if (superblock.readUInt16LE(56) !== 0xef53) return undefined;
    const incompatible = superblock.readUInt32LE(96);
    for (const [bit, what] of Object.entries(UNREADABLE))
      if ((incompatible & Number(bit)) !== 0) throw broken(`it uses ${what}, which cannot be read here`);
    if (superblock.readUInt32LE(24) > 6 || superblock.readUInt32LE(40) === 0) throw broken('its superblock makes no sense');
    const opened = new Ext4(disk, partition.offset, superblock);
    for (const [size, least] of [
      [opened.#inodeSize, 128],
      [opened.#descriptorSize, 32],
    ] as const) {
      const fits = size >= least && size <= opened.#blockSize && (size & (size - 1)) === 0;
      if (!fits) throw broken(`its superblock makes no sense: a structure of ${size} bytes`);
    }
    return opened;
  }

  /** The file's bytes, links followed; undefined when there is none. */
  readFile(path: string): Buffer | undefined {
    const inode = this.#resolve(path);
    return inode !== undefined && kindOf(inode) === 'file' ? this.#content(inode) : undefined;
  }

  exists(path: string): boolean {
    return this.#resolve(path) !== undefined;
  }

  #resolve(path: string, links = 0): Inode | undefined {
    let pending = path.split('/').filter((part) => part !== '' && part !== '.');
    const walked: string[] = [];
    let inode = this.#inode(ROOT_INODE);
    while (pending.length > 0) {
      const [name = '', ...rest] = pending;
      pending = rest;
      if (kindOf(inode) !== 'directory') return undefined;
      const number = this.#lookUp(inode, name);
      if (number === undefined) return undefined;
      const next = this.#inode(number);
      if (kindOf(next) === 'link') {
        if (links >= MAX_LINKS) return undefined;
        const target = this.#target(next);
        const from = target.startsWith('/') ? [] : walked;
        return this.#resolve(normalise([...from, ...target.split('/'), ...rest]), links + 1);
      }
      walked.push(name);
      inode = next;
    }
    return inode;
  }

  #target(link: Inode): string {
    if (link.sizeBytes > MAX_TARGET_BYTES) throw broken('a link is damaged');
    if ((link.flags & EXTENTS_FLAG) === 0 && link.sizeBytes < 60) return link.block.toString('utf8', 0, link.sizeBytes);
    return this.#content(link).toString('utf8');
  }

  #lookUp(directory: Inode, name: string): number | undefined {
    const bytes = this.#content(directory);
    const wanted = Buffer.from(name);
    for (let at = 0; at + 8 <= bytes.length; ) {
      const length = bytes.readUInt16LE(at + 4);
      const nameLength = bytes[at + 6] ?? 0;
      const inode = bytes.readUInt32LE(at);
      if (length < 8 || length % 4 !== 0) throw broken('a directory is damaged');
      if (inode !== 0 && bytes.subarray(at + 8, at + 8 + nameLength).equals(wanted)) return inode;
      at += length;
    }
    return undefined;
  }

  #inode(number: number): Inode {
    const group = Math.floor((number - 1) / this.#inodesPerGroup);
    const descriptor = this.#disk.read(this.#start + this.#descriptorsAt + group * this.#descriptorSize, this.#descriptorSize);
    const high = this.#wide && this.#descriptorSize >= 64 ? descriptor.readUInt32LE(40) : 0;
    const table = (high * 2 ** 32 + descriptor.readUInt32LE(8)) * this.#blockSize;
    const index = (number - 1) % this.#inodesPerGroup;
    const bytes = this.#disk.read(this.#start + table + index * this.#inodeSize, 128);
    return {
      mode: bytes.readUInt16LE(0),
      sizeBytes: bytes.readUInt32LE(108) * 2 ** 32 + bytes.readUInt32LE(4),
      flags: bytes.readUInt32LE(32),
      block: bytes.subarray(40, 100),
    };
  }

  #content(inode: Inode): Buffer {
    if ((inode.flags & INLINE_FLAG) !== 0) throw broken('it holds inline data, which cannot be read here');
    if ((inode.flags & EXTENTS_FLAG) === 0) throw broken('it holds a file without extents, which cannot be read here');
    if (inode.sizeBytes > MAX_FILE_BYTES) throw broken(`a file of ${inode.sizeBytes} bytes stands where a small one should`);
    const bytes = Buffer.alloc(inode.sizeBytes);
    this.#extents(inode.block, inode.block.readUInt16LE(6), { out: bytes, nodes: 0, next: 0 });
    return bytes;
  }

  /** Copies what the extents below one node of the tree hold into `out`. `depth`: of the levels below it. */
  #extents(node: Buffer, depth: number, reading: Reading): void {
    const { out } = reading;
    const isRight = node.readUInt16LE(0) === 0xf30a && node.readUInt16LE(6) === depth && depth <= 5 && ++reading.nodes <= MAX_TREE_NODES;
    if (!isRight) throw broken('an extent tree is damaged');
    const entries = node.readUInt16LE(2);
    for (let i = 0; i < entries && 12 * (i + 2) <= node.length; i++) {
      const entry = node.subarray(12 * (i + 1), 12 * (i + 2));
      if (depth > 0) {
        const block = entry.readUInt16LE(8) * 2 ** 32 + entry.readUInt32LE(4);
        this.#extents(this.#disk.read(this.#start + block * this.#blockSize, this.#blockSize), depth - 1, reading);
        continue;
      }
      const [first, length] = [entry.readUInt32LE(0), entry.readUInt16LE(4)];
      if (first < reading.next) throw broken('an extent tree is damaged');
      // More than 32768 marks blocks that are reserved and not written: they read as zeros.
      reading.next = first + (length > 32_768 ? length - 32_768 : length);
      if (length > 32_768) continue;
      const block = entry.readUInt16LE(6) * 2 ** 32 + entry.readUInt32LE(8);
      const to = first * this.#blockSize;
      const count = Math.min(length * this.#blockSize, out.length - to);
      if (count > 0) this.#disk.read(this.#start + block * this.#blockSize, count).copy(out, to);
    }
  }
}

function kindOf(inode: Inode): Kind {
  const type = inode.mode & 0xf000;
  return type === 0x8000 ? 'file' : type === 0x4000 ? 'directory' : type === 0xa000 ? 'link' : 'other';
}

function normalise(parts: readonly string[]): string {
  const out: string[] = [];
  for (const part of parts) {
    if (part === '..') out.pop();
    else if (part !== '' && part !== '.') out.push(part);
  }
  return out.join('/');
}

function broken(why: string): ChairError {
  return new ChairError('FLASH_IMAGE_DAMAGED', `the root file system cannot be read: ${why}`, {
    expected: 'the ext4 of a Raspberry Pi OS image',
    todo: 'Download the image again and compare its checksum with the one beside it.',
  });
}
