import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { crc32 } from './crc32.js';
import { memoryDisk, openDisk } from './disk.js';
import { readPartitions } from './partitions.js';
import { lacking, testFolder } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking('sfdisk');
const { folder, remove } = testFolder();
afterAll(remove);

function disk(script: string, bytes = 32 * 1024 * 1024): Buffer {
  const file = path.join(folder, 'disk.img');
  writeFileSync(file, Buffer.alloc(bytes));
  execFileSync('sfdisk', ['-q', file], { input: script, env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
  return readFileSync(file);
}

describe.skipIf(absent !== '')(`partition tables that sfdisk wrote${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  const two = 'start=4MiB, size=8MiB, type=TYPE\nstart=12MiB, size=16MiB, type=linux\n';
  const places = [
    { number: 1, offset: 4 * 2 ** 20, sizeBytes: 8 * 2 ** 20 },
    { number: 2, offset: 12 * 2 ** 20, sizeBytes: 16 * 2 ** 20 },
  ];

  it('reads an MBR', () => {
    const { kind, partitions } = readPartitions(memoryDisk(disk(`label: dos\n${two.replace('TYPE', 'c')}`)));
    expect(kind).toBe('mbr');
    expect(partitions).toMatchObject(places);
    expect(partitions.map((p) => p.type)).toEqual(['0c', '83']);
  });

  it('reads a GPT', () => {
    const { kind, partitions } = readPartitions(memoryDisk(disk(`label: gpt\n${two.replace('TYPE', 'uefi')}`)));
    expect(kind).toBe('gpt');
    expect(partitions).toMatchObject(places);
    expect(partitions[0]?.type).toBe('c12a7328-f81f-11d2-ba4b-00a0c93ec93b');
  });

  it('finds an image that was cut off behind its table', () => {
    const cut = disk(`label: dos\n${two.replace('TYPE', 'c')}`).subarray(0, 20 * 2 ** 20);
    expect(() => readPartitions(memoryDisk(cut))).toThrow('partition 2 ends behind the end of the image');
  });

  it('finds one flipped bit in the header or the entries of a GPT', () => {
    for (const at of [512 + 40, 1024 + 32]) {
      const bytes = disk(`label: gpt\n${two.replace('TYPE', 'uefi')}`);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
      expect(() => readPartitions(memoryDisk(bytes))).toThrow('damaged');
    }
  });
});

const SECTOR = 512;

/** An MBR of these partitions, in sectors. */
function mbr(...partitions: readonly (readonly [start: number, count: number])[]): Buffer {
  const bytes = Buffer.alloc(100 * SECTOR);
  bytes.writeUInt16LE(0xaa55, 510);
  for (const [i, [start, count]] of partitions.entries()) {
    bytes.writeUInt8(0x83, 450 + 16 * i);
    bytes.writeUInt32LE(start, 454 + 16 * i);
    bytes.writeUInt32LE(count, 458 + 16 * i);
  }
  return bytes;
}

/** A GPT of these partitions, first and last sector, with checksums that fit. `entriesAt`: sector of the table. */
function gpt(partitions: readonly (readonly [first: bigint, last: bigint])[], entriesAt = 2n): Buffer {
  const bytes = mbr([1, 99]);
  bytes.writeUInt8(0xee, 450);
  const entries = Buffer.alloc(4 * 128);
  for (const [i, [first, last]] of partitions.entries()) {
    entries.fill(7, 128 * i, 128 * i + 32);
    entries.writeBigUInt64LE(first, 128 * i + 32);
    entries.writeBigUInt64LE(last, 128 * i + 40);
  }
  if (entriesAt < 90n) entries.copy(bytes, Number(entriesAt) * SECTOR);
  const header = bytes.subarray(SECTOR, SECTOR + 92);
  header.write('EFI PART');
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(3n, 40);
  header.writeBigUInt64LE(97n, 48);
  header.writeBigUInt64LE(entriesAt, 72);
  header.writeUInt32LE(4, 80);
  header.writeUInt32LE(128, 84);
  header.writeUInt32LE(crc32(entries), 88);
  header.writeUInt32LE(crc32(header), 16);
  return bytes;
}

describe('a table that no tool makes', () => {
  const huge = 2n ** 60n;
  it.each([
    ['two partitions in one place (MBR)', mbr([10, 20], [29, 5]), 'partition 2 overlaps with partition 1'],
    ['two partitions in one place, the later one first (MBR)', mbr([29, 5], [10, 20]), 'partition 1 overlaps with partition 2'],
    ['one partition in another (MBR)', mbr([10, 60], [20, 5], [70, 1]), 'partition 2 overlaps with partition 1'],
    ['a partition over the table (MBR)', mbr([0, 20]), 'partition 1 overlaps with the partition table'],
    [
      'two partitions in one place (GPT)',
      gpt([
        [10n, 20n],
        [20n, 30n],
      ]),
      'partition 2 overlaps with partition 1',
    ],
    ['a partition over the table (GPT)', gpt([[2n, 20n]]), 'partition 1 overlaps with the GPT'],
    ['a partition over the second table (GPT)', gpt([[10n, 98n]]), 'partition 1 overlaps with the GPT'],
    ['entries where no disk ends', gpt([[10n, 20n]], huge), 'ends too early'],
    ['entries at a negative place', gpt([[10n, 20n]], 2n ** 64n - 1n), 'ends too early'],
    ['a partition that ends where no disk does', gpt([[10n, huge]]), 'partition 1 overlaps with the GPT'],
    ['a partition that begins there', gpt([[2n ** 64n - 2n, 2n ** 64n - 1n]]), 'partition 1'],
  ])('is refused as damaged: %s', (_what, bytes, says) => {
    const refused = expect.objectContaining({ code: 'FLASH_IMAGE_DAMAGED', message: expect.stringContaining(says) });
    expect(() => readPartitions(memoryDisk(bytes))).toThrow(refused);
    const file = path.join(folder, 'odd.img');
    writeFileSync(file, bytes);
    const opened = openDisk(file, 'r');
    expect(() => readPartitions(opened)).toThrow(refused);
    opened.close();
  });

  it('is one that touches: what begins where another ends is right', () => {
    expect(readPartitions(memoryDisk(mbr([30, 5], [10, 20]))).partitions).toHaveLength(2);
    expect(
      readPartitions(
        memoryDisk(
          gpt([
            [3n, 20n],
            [21n, 97n],
          ]),
        ),
      ).partitions,
    ).toHaveLength(2);
  });
});

describe('what is no disk', () => {
  it.each([
    ['a ZIP archive', Buffer.from('PK\x03\x04')],
    ['a gzip file', Buffer.from([0x1f, 0x8b, 8])],
    ['a web page', Buffer.from('<!DOCTYPE html><title>404')],
    ['no partition table', Buffer.from('hello')],
  ])('is named: %s', (name, start) => {
    const bytes = Buffer.alloc(4_096);
    start.copy(bytes);
    expect(() => readPartitions(memoryDisk(bytes))).toThrow(name);
  });

  it('is refused when it is empty or has no partitions', () => {
    expect(() => readPartitions(memoryDisk(Buffer.alloc(0)))).toThrow('0 bytes');
    const empty = Buffer.alloc(1_024);
    empty.writeUInt16LE(0xaa55, 510);
    expect(() => readPartitions(memoryDisk(empty))).toThrow('without partitions');
  });
});
