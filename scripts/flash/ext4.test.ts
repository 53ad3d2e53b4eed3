import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { ChairError } from '../../broker/errors.js';
import { createRandom } from '../../models/random.js';
import { memoryDisk, openDisk } from './disk.js';
import { Ext4 } from './ext4.js';
import { lacking, testFolder, tool } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking('mkfs.ext4');
const { folder, remove } = testFolder();
afterAll(remove);

function makeFile(name: string, ...options: string[]): string {
  const tree = path.join(folder, `${name}.tree`);
  mkdirSync(path.join(tree, 'usr/lib/deep/er'), { recursive: true });
  mkdirSync(path.join(tree, 'etc'), { recursive: true });
  mkdirSync(path.join(tree, 'many'), { recursive: true });
  writeFileSync(path.join(tree, 'usr/lib/os-release'), 'ID=debian\n');
  writeFileSync(path.join(tree, 'usr/lib/deep/er/big'), Buffer.alloc(700_001, 'ab'));
  writeFileSync(path.join(tree, 'empty'), '');
  for (let i = 0; i < 600; i++) writeFileSync(path.join(tree, 'many', `a-file-with-a-long-name-${i}`), String(i));
  symlinkSync('usr/lib', path.join(tree, 'lib'));
  symlinkSync('../lib/os-release', path.join(tree, 'etc/os-release'));
  symlinkSync('/etc/os-release', path.join(tree, 'etc/absolute'));
  symlinkSync(`${'./'.repeat(60)}usr/lib/os-release`, path.join(tree, 'long-link'));
  symlinkSync('loop', path.join(tree, 'loop'));
  const file = path.join(folder, `${name}.ext4`);
  tool('truncate', '-s', '24M', file);
  tool('mkfs.ext4', '-q', '-F', ...options, '-d', tree, file);
  return file;
}

function make(name: string, ...options: string[]): Ext4 {
  const disk = openDisk(makeFile(name, ...options), 'r');
  const opened = Ext4.open(disk, { number: 2, offset: 0, sizeBytes: disk.sizeBytes, type: '83' });
  if (opened === undefined) throw new Error('not seen as ext4');
  return opened;
}

describe.skipIf(absent !== '')(`an ext4 that mkfs.ext4 made${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  for (const [name, ...options] of [['usual'], ['small blocks', '-b', '1024'], ['32 bit', '-O', '^64bit,^metadata_csum']] as const) {
    it(`gives files, follows links and says what is not there (${name})`, () => {
      const fs = make(name.replace(' ', '-'), ...options);
      expect(fs.readFile('/usr/lib/os-release')?.toString()).toBe('ID=debian\n');
      expect(fs.readFile('/etc/os-release')?.toString()).toBe('ID=debian\n');
      expect(fs.readFile('/etc/absolute')?.toString()).toBe('ID=debian\n');
      expect(fs.readFile('/long-link')?.toString()).toBe('ID=debian\n');
      expect(fs.readFile('/lib/deep/er/big')?.equals(Buffer.alloc(700_001, 'ab'))).toBe(true);
      expect(fs.readFile('/empty')?.length).toBe(0);
      for (const i of [0, 299, 599]) expect(fs.readFile(`/many/a-file-with-a-long-name-${i}`)?.toString()).toBe(String(i));
      expect(fs.exists('/lib/deep')).toBe(true);
      expect(fs.readFile('/lib/deep')).toBeUndefined();
      for (const no of ['/nothing', '/empty/below', '/loop', '/usr/lib/os-releas']) expect(fs.exists(no)).toBe(false);
    });
  }
});

/** What is read when an image is looked into. */
function lookInto(bytes: Uint8Array): void {
  const fs = Ext4.open(memoryDisk(bytes), { number: 2, offset: 0, sizeBytes: bytes.length, type: '83' });
  for (const name of ['/etc/os-release', '/lib/deep/er/big', '/long-link', '/many/a-file-with-a-long-name-7', '/nothing'])
    fs?.readFile(name);
}

/** Where a file system's root folder is described: its inode, and the size of a block. */
function rootInode(bytes: Buffer): { readonly at: number; readonly blockSize: number } {
  const blockSize = 1_024 << bytes.readUInt32LE(1_024 + 24);
  const descriptors = (bytes.readUInt32LE(1_024 + 20) + 1) * blockSize;
  return { at: bytes.readUInt32LE(descriptors + 8) * blockSize + bytes.readUInt16LE(1_024 + 88), blockSize };
}

describe.skipIf(absent !== '')(`a damaged ext4${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  it('gives files or a coded error, whichever of its numbers is wrong', () => {
    const bytes = readFileSync(makeFile('damaged', '-b', '4096'));
    lookInto(bytes);
    const random = createRandom(7);
    const { at, blockSize } = rootInode(bytes);
    // Superblock, descriptors, inodes: two bytes of each at a time, as extremes and at random.
    const places = [
      ...Array.from({ length: 160 }, (_, i) => 1_024 + 2 * i),
      ...Array.from({ length: 32 }, (_, i) => blockSize + 2 * i),
      ...Array.from({ length: 300 }, () => at + 2 * Math.floor(random() * 3_000)),
    ];
    let refused = 0;
    for (const place of places) {
      const before = bytes.readUInt16LE(place);
      for (const value of [0, 0xffff, Math.floor(random() * 65_536)]) {
        bytes.writeUInt16LE(value, place);
        try {
          lookInto(bytes);
        } catch (error) {
          expect(error, `${value} at ${place}`).toBeInstanceOf(ChairError);
          expect(error, `${value} at ${place}`).toMatchObject({ code: 'FLASH_IMAGE_DAMAGED' });
          refused++;
        }
      }
      bytes.writeUInt16LE(before, place);
    }
    expect(refused).toBeGreaterThan(20);
  });

  it('whose trees lead from every place to one is refused, and not walked for ever', () => {
    const bytes = readFileSync(makeFile('tree', '-b', '1024'));
    const { at, blockSize } = rootInode(bytes);
    const node = (place: number, depth: number, entries: number, next: number): void => {
      bytes.writeUInt16LE(0xf30a, place);
      bytes.writeUInt16LE(entries, place + 2);
      bytes.writeUInt16LE(depth, place + 6);
      for (let i = 1; i <= entries; i++) bytes.fill(0, place + 12 * i, place + 12 * i + 12).writeUInt32LE(next, place + 12 * i + 4);
    };
    const last = bytes.length / blockSize - 1;
    node(at + 40, 5, 4, last - 4);
    for (let depth = 4; depth >= 0; depth--) node((last - depth) * blockSize, depth, 84, last - depth + 1);
    expect(() => lookInto(bytes)).toThrow('an extent tree is damaged');
  });
});

describe('what is no ext4', () => {
  it('is not taken for one', () => {
    const bytes = Buffer.alloc(8_192, 7);
    expect(Ext4.open(memoryDisk(bytes), { number: 1, offset: 0, sizeBytes: bytes.length, type: '83' })).toBeUndefined();
  });

  it('is refused when only its mark is right', () => {
    const bytes = Buffer.alloc(8_192);
    bytes.writeUInt16LE(0xef53, 1_024 + 56);
    expect(() => Ext4.open(memoryDisk(bytes), { number: 1, offset: 0, sizeBytes: bytes.length, type: '83' })).toThrow('superblock');
  });
});
