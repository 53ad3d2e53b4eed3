import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { memoryDisk, openDisk } from './disk.js';
import { Ext4 } from './ext4.js';
import { lacking, testFolder, tool } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking('mkfs.ext4');
const { folder, remove } = testFolder();
afterAll(remove);

function make(name: string, ...options: string[]): Ext4 {
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
  const disk = openDisk(file, 'r');
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
