/**
 * Reads the partition table of a disk: MBR, or GPT behind a protective MBR.
 * Sources: UEFI 2.10, chapter 5 (GPT); the classic layout of sector 0 for MBR. Logical partitions of an MBR are not followed: no image has any.
 */
import { ChairError } from '../../broker/errors.js';
import { crc32 } from './crc32.js';
import type { Disk } from './disk.js';

export interface Partition {
  /** As the system counts: the first is 1. */
  readonly number: number;
  readonly offset: number;
  readonly sizeBytes: number;
  /** `0c`, or the type's GUID. */
  readonly type: string;
}

export interface PartitionTable {
  readonly kind: 'mbr' | 'gpt';
  readonly partitions: readonly Partition[];
}

const SECTOR = 512;
/** A table larger than this is a damaged one: 128 entries are usual, and all that any system makes. */
const MAX_GPT_ENTRIES = 1_024;

/** Throws FLASH_IMAGE_FOREIGN (no table), FLASH_IMAGE_DAMAGED (a table that contradicts itself, or partitions beyond the end). */
export function readPartitions(disk: Disk): PartitionTable {
  if (disk.sizeBytes < 2 * SECTOR) throw noTable(`a file of ${disk.sizeBytes} bytes`);
  const first = disk.read(0, SECTOR);
  if (first.readUInt16LE(510) !== 0xaa55) throw noTable(describeFirst(first));
  const entries = [0, 1, 2, 3].map((i) => first.subarray(446 + 16 * i, 462 + 16 * i));
  const table = entries.some((e) => e[4] === 0xee) ? readGpt(disk) : { kind: 'mbr' as const, partitions: readMbr(entries) };
  if (table.partitions.length === 0) throw noTable('a table without partitions');
  for (const p of table.partitions) {
    if (p.offset + p.sizeBytes > disk.sizeBytes)
      throw damaged(`partition ${p.number} ends behind the end of the image`, `${p.offset + p.sizeBytes} bytes`, `${disk.sizeBytes}`);
  }
  refuseOverlaps(table.partitions);
  return table;
}

/** What is written into the one would be found in the other, or in the table itself. */
function refuseOverlaps(partitions: readonly Partition[]): void {
  let [end, before] = [SECTOR, 'the partition table'];
  for (const p of [...partitions].sort((a, b) => a.offset - b.offset)) {
    if (p.offset < end)
      throw damaged(`partition ${p.number} overlaps with ${before}`, `a start at or behind byte ${end}`, `byte ${p.offset}`);
    [end, before] = [p.offset + p.sizeBytes, `partition ${p.number}`];
  }
}

function readMbr(entries: readonly Buffer[]): Partition[] {
  return entries.flatMap((entry, i) => {
    const type = entry[4] ?? 0;
    const sectors = entry.readUInt32LE(12);
    if (type === 0 || sectors === 0) return [];
    return [
      { number: i + 1, offset: entry.readUInt32LE(8) * SECTOR, sizeBytes: sectors * SECTOR, type: type.toString(16).padStart(2, '0') },
    ];
  });
}

function readGpt(disk: Disk): PartitionTable {
  const header = disk.read(SECTOR, SECTOR);
  if (header.toString('latin1', 0, 8) !== 'EFI PART')
    throw damaged('the GPT is missing', '"EFI PART" in sector 1', JSON.stringify(header.toString('latin1', 0, 8)));
  const headerSize = header.readUInt32LE(12);
  if (headerSize < 92 || headerSize > SECTOR) throw damaged("the GPT's header is damaged", 'a size of 92 to 512', `${headerSize}`);
  const summed = Buffer.from(header.subarray(0, headerSize));
  summed.writeUInt32LE(0, 16);
  if (crc32(summed) !== header.readUInt32LE(16)) throw damaged("the GPT's header is damaged", 'a checksum that fits', 'another');
  const count = header.readUInt32LE(80);
  const size = header.readUInt32LE(84);
  if (count > MAX_GPT_ENTRIES || size < 128 || size > 4_096)
    throw damaged('the GPT is damaged', 'up to 1024 entries of 128 to 4096 bytes', `${count} of ${size}`);
  const entries = disk.read(Number(header.readBigUInt64LE(72)) * SECTOR, count * size);
  if (crc32(entries) !== header.readUInt32LE(88)) throw damaged("the GPT's entries are damaged", 'a checksum that fits', 'another');
  // What the table itself takes, at both ends of the disk, is outside of these.
  const [firstUsable, lastUsable] = [Number(header.readBigUInt64LE(40)), Number(header.readBigUInt64LE(48))];
  const partitions: Partition[] = [];
  for (let i = 0; i < count; i++) {
    const entry = entries.subarray(i * size, (i + 1) * size);
    const type = guid(entry);
    if (/^[0-]+$/.test(type)) continue;
    const start = Number(entry.readBigUInt64LE(32));
    const end = Number(entry.readBigUInt64LE(40)) + 1;
    if (end <= start) throw damaged(`partition ${i + 1} is damaged`, 'an end behind its start', `sectors ${start} to ${end}`);
    if (start < firstUsable || end - 1 > lastUsable) {
      throw damaged(`partition ${i + 1} overlaps with the GPT`, `sectors from ${firstUsable} to ${lastUsable}`, `${start} to ${end - 1}`);
    }
    partitions.push({ number: i + 1, offset: start * SECTOR, sizeBytes: (end - start) * SECTOR, type });
  }
  return { kind: 'gpt', partitions };
}

/** The first three fields of a GUID are little-endian. */
function guid(entry: Buffer): string {
  const hex = (from: number, to: number): string => entry.subarray(from, to).toString('hex');
  const swapped = (from: number, to: number): string => Buffer.from(entry.subarray(from, to)).reverse().toString('hex');
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${hex(8, 10)}-${hex(10, 16)}`;
}

/** People hand in archives and downloads of error pages: say which. */
function describeFirst(first: Buffer): string {
  const start = first.toString('latin1', 0, 16);
  if (start.startsWith('PK')) return 'a ZIP archive (unpack it first)';
  if (first.readUInt16BE(0) === 0x1f8b) return 'a gzip file (unpack it first)';
  if (first.readUInt32LE(0) === 0xfd2fb528) return 'a zstd file (unpack it first)';
  if (/^\s*<(!doctype|html)/i.test(start)) return 'a web page: the download went wrong';
  return 'no partition table in the first sector';
}

function noTable(came: string): ChairError {
  return new ChairError('FLASH_IMAGE_FOREIGN', 'this is not the image of a disk', {
    expected: 'a 64-bit Raspberry Pi OS image (.img or .img.xz)',
    came,
  });
}

function damaged(what: string, expected: string, came: string): ChairError {
  return new ChairError('FLASH_IMAGE_DAMAGED', what, {
    expected,
    came,
    todo: 'Download the image again and compare its checksum with the one beside it.',
  });
}
