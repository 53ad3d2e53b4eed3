import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { memoryDisk } from './disk.js';
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
