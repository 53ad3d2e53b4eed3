import { truncateSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openDisk } from './disk.js';
import { type ImageFacts, inspectImage } from './image.js';
import { IMAGE_TOOLS, lacking, makeImage, type TestImageOptions, testFolder } from './test-image.js';
import { chooseWriter } from './writers.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking(...IMAGE_TOOLS);
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

async function inspect(options: TestImageOptions, change?: (file: string) => void): Promise<ImageFacts> {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const { file } = makeImage(folder, options);
  change?.(file);
  const disk = openDisk(file, 'r');
  ends.push(disk.close);
  return inspectImage(disk);
}

const refusedWith = (code: string, text: string) => expect.objectContaining({ code, message: expect.stringContaining(text) });

describe.skipIf(absent !== '')(`looking into an image${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  it('knows Raspberry Pi OS 13 and sets it up by cloud-init', async () => {
    const facts = await inspect({ release: 13 });
    expect(facts).toMatchObject({
      bootPath: '/boot/firmware',
      release: '2025-12-04',
      system: 'Debian GNU/Linux 13 (trixie)',
      cloudInit: true,
      networkManager: true,
    });
    expect(facts.cmdline).toContain('rootwait resize');
    expect(chooseWriter(facts).name).toBe('cloud-init');
  });

  it('knows Raspberry Pi OS 12 and sets it up by firstrun.sh', async () => {
    const facts = await inspect({ release: 12, fat: 16, table: 'gpt' });
    expect(facts).toMatchObject({ bootPath: '/boot/firmware', release: '2024-11-19', cloudInit: false, systemdRun: true });
    expect(chooseWriter(facts).name).toBe('firstrun.sh');
  });

  it('takes an early 13 without files for cloud-init the old way', async () => {
    const facts = await inspect({ release: 13, boot: { 'user-data': undefined, 'meta-data': undefined, 'network-config': undefined } });
    expect(chooseWriter(facts).name).toBe('firstrun.sh');
  });

  it('knows where systems before 12 mount the boot partition', async () => {
    const facts = await inspect({ release: 12, root: { 'etc/fstab': '# /boot/firmware\nPARTUUID=1-01  /boot\tvfat defaults 0 2\n' } });
    expect(facts.bootPath).toBe('/boot');
  });

  it('says what is missing when no first boot is known', async () => {
    const facts = await inspect({ release: 12, root: { 'usr/lib/systemd/system-generators/systemd-run-generator': undefined } });
    expect(() => chooseWriter(facts)).toThrow(refusedWith('FLASH_IMAGE_FOREIGN', 'cloud-init: not installed'));
  });

  it('refuses the 32-bit system, which has a 64-bit kernel all the same', async () => {
    await expect(inspect({ bits: 32 })).rejects.toThrow(refusedWith('FLASH_IMAGE_32_BIT', 'is the 32-bit one'));
  });

  it('refuses another system for the Pi by its name', async () => {
    await expect(
      inspect({
        boot: { 'issue.txt': undefined },
        root: { 'etc/rpi-issue': undefined, 'usr/lib/os-release': 'PRETTY_NAME="Ubuntu 24.04 LTS"\n' },
      }),
    ).rejects.toThrow(refusedWith('FLASH_IMAGE_FOREIGN', 'Ubuntu 24.04 LTS, not Raspberry Pi OS'));
  });

  it.each([
    ['a boot partition without cmdline.txt', { boot: { 'cmdline.txt': undefined } }, 'without config.txt and cmdline.txt'],
    ['an fstab that mounts nothing there', { root: { 'etc/fstab': 'proc /proc proc defaults 0 0\n' } }, 'mounts no boot partition'],
  ])('refuses %s', async (_what, options, text) => {
    await expect(inspect(options)).rejects.toThrow(refusedWith('FLASH_IMAGE_FOREIGN', text));
  });

  it.each([
    ['flashed before', { boot: { 'musical-chair/start.sh': 'x' } }, 'the folder musical-chair'],
    ['set up by Raspberry Pi Imager (12)', { release: 12, boot: { 'firstrun.sh': '#!/bin/bash\n' } } as const, 'a firstrun.sh'],
    ['set up by Raspberry Pi Imager (13)', { boot: { 'cmdline.txt': 'root=x rootwait ds=nocloud;i=rpi-imager-1\n' } }, 'ds=nocloud'],
  ])('refuses an image that was %s', async (_what, options, text) => {
    await expect(inspect(options)).rejects.toThrow(refusedWith('FLASH_IMAGE_FOREIGN', text));
  });

  it('finds an image that was cut off', async () => {
    await expect(inspect({}, (file) => truncateSync(file, 10 * 1024 * 1024))).rejects.toThrow(
      refusedWith('FLASH_IMAGE_DAMAGED', 'partition 2'),
    );
  });
});
