import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Disk, openDisk } from './disk.js';
import { FatVolume, looksLikeFat } from './fat.js';
import { type Partition, readPartitions } from './partitions.js';
import { IMAGE_TOOLS, lacking, makeImage, type TestImage, testFolder, tool } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking(...IMAGE_TOOLS);
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

function image(options: Parameters<typeof makeImage>[1] = {}): { made: TestImage; disk: Disk; boot: Partition } {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const made = makeImage(folder, options);
  const disk = openDisk(made.file, 'r+');
  ends.push(disk.close);
  const [boot] = readPartitions(disk).partitions;
  if (boot === undefined) throw new Error('the image has no partition');
  return { made, disk, boot };
}

describe.skipIf(absent !== '')(`a FAT partition that mkfs.vfat made${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  for (const fat of [16, 32] as const) {
    it(`takes files of any size and long names, and mtools and fsck.fat agree (FAT${fat})`, async () => {
      const { made, disk, boot } = image({ fat });
      expect(looksLikeFat(disk, boot)).toBe(true);
      const big = randomBytes(3_000_001);
      const from = path.join(made.folder, 'from');
      writeFileSync(from, big);
      const volume = await FatVolume.open(disk, boot);
      const before = volume.freeBytes;
      volume.makeDirectory('/musical-chair');
      volume.makeDirectory('/musical-chair');
      volume.writeFile('/musical-chair/a rather long name.tar.gz', { file: from });
      volume.writeFile('/network-config', Buffer.from('network: {}\n'));
      volume.writeFile('/ssh', Buffer.alloc(0));
      expect(volume.freeBytes).toBeLessThanOrEqual(before - big.length);
      volume.close();
      expect(made.read('network-config')).toBe('network: {}\n');
      expect(made.names()).toContain('ssh');
      expect(made.names('musical-chair')).toEqual(['a rather long name.tar.gz']);
      const out = path.join(made.folder, 'out');
      tool('mcopy', '-n', '-i', `${made.file}@@${made.bootOffset}`, '::musical-chair/a rather long name.tar.gz', out);
      expect(tool('cmp', from, out)).toBe('');
      expect(made.fsck()).not.toMatch(/differ|wrong|orphan/i);
      const again = await FatVolume.open(disk, boot);
      expect(Buffer.concat([...again.readPieces('/musical-chair/a rather long name.tar.gz')]).equals(big)).toBe(true);
      again.close();
    });
  }

  it('reads what mtools wrote, and says what is not there', async () => {
    const { disk, boot } = image({ boot: { 'Mixed Case.txt': 'x'.repeat(10_000) } });
    const volume = await FatVolume.open(disk, boot);
    expect(volume.readFile('/mixed case.TXT')?.length).toBe(10_000);
    expect(volume.readFile('/config.txt')?.toString()).toBe('arm_64bit=1\n');
    expect(volume.readFile('/nothing')).toBeUndefined();
    expect(volume.readFile('/no/such/folder')).toBeUndefined();
    expect(volume.find('/config.txt')).toEqual({ name: 'config.txt', sizeBytes: 12, directory: false });
    expect(volume.list('/').map((e) => e.name)).toEqual(expect.arrayContaining(['config.txt', 'cmdline.txt', 'Mixed Case.txt']));
    volume.close();
  });

  it('replaces a long file by a short one and gives its room back', async () => {
    const { made, disk, boot } = image({ boot: { 'old.bin': Buffer.alloc(1_000_000, 1) } });
    const volume = await FatVolume.open(disk, boot);
    const before = volume.freeBytes;
    volume.writeFile('/old.bin', Buffer.from('new'));
    expect(volume.freeBytes).toBeGreaterThan(before + 990_000);
    volume.remove('/kernel8.img');
    volume.remove('/kernel8.img');
    volume.close();
    expect(made.read('old.bin')).toBe('new');
    expect(made.names()).not.toContain('kernel8.img');
    made.fsck();
  });

  it('says that it is full instead of writing half a file quietly', async () => {
    const { disk, boot } = image();
    const volume = await FatVolume.open(disk, boot);
    expect(() => volume.writeFile('/big', Buffer.alloc(9 * 1024 * 1024))).toThrow(expect.objectContaining({ code: 'FLASH_BOOT_FULL' }));
    volume.close();
  });

  it('writes nothing to an image that was opened for reading', async () => {
    const { made, boot } = image();
    const disk = openDisk(made.file, 'r');
    ends.push(disk.close);
    const volume = await FatVolume.open(disk, boot);
    expect(() => volume.writeFile('/x', Buffer.from('x'))).toThrow('for reading only');
    volume.close();
  });

  it('is told from a partition that is none', async () => {
    const { disk } = image();
    const root = readPartitions(disk).partitions[1];
    if (root === undefined) throw new Error('the image has no root');
    expect(looksLikeFat(disk, root)).toBe(false);
    await expect(FatVolume.open(disk, root)).rejects.toThrow(expect.objectContaining({ code: 'FLASH_IMAGE_DAMAGED' }));
  });
});
