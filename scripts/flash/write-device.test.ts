import { randomBytes } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type DeviceFacts, describeDevice, whyNot } from './device.js';
import { lacking, testFolder, tool } from './test-image.js';
import { writeDevice } from './write-device.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const MIB = 1024 * 1024;
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

/** A loop device on a file of random bytes, as a used card has. */
function card(bytes: number): { device: string; backing: string } {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const backing = path.join(folder, 'card');
  writeFileSync(backing, randomBytes(bytes));
  const device = tool('losetup', '--find', '--show', backing).trim();
  ends.push(() => tool('losetup', '-d', device));
  return { device, backing };
}

function why(): string {
  const absent = lacking('losetup');
  if (absent !== '') return `not here: ${absent}`;
  try {
    const { device } = card(MIB);
    return device === '' ? 'no loop device' : '';
  } catch {
    return 'needs root and loop devices';
  } finally {
    for (const end of ends.splice(0).reverse()) end();
  }
}
const reason = why();

function image(bytes: Buffer): string {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const file = path.join(folder, 'image');
  writeFileSync(file, bytes);
  return file;
}

const quiet = { writing: () => {}, checking: () => {}, cached: () => {} };

describe.skipIf(reason !== '')(`writing a card${reason === '' ? '' : ` (not here: ${reason})`}`, () => {
  it('writes every byte, wipes what an old table left at the end, and reads it back', async () => {
    const { device, backing } = card(24 * MIB);
    const bytes = Buffer.concat([randomBytes(9 * MIB + 700), Buffer.alloc(3 * MIB), Buffer.from('end')]);
    const seen: string[] = [];
    const facts = describeDevice(device);
    expect(facts).toMatchObject({ kind: 'loop', sizeBytes: 24 * MIB, mounts: [], uses: [] });
    expect(whyNot(facts, bytes.length, { allowLoop: true })).toBeUndefined();
    await writeDevice(image(bytes), facts, {
      writing: (done, total) => seen.push(`w${done === total}`),
      checking: (done, total) => seen.push(`r${done === total}`),
      cached: () => {},
    });
    tool('blockdev', '--flushbufs', device);
    const held = readFileSync(backing);
    expect(held.subarray(0, bytes.length).equals(bytes)).toBe(true);
    expect(held.subarray(23 * MIB).every((byte) => byte === 0)).toBe(true);
    expect(held.subarray(20 * MIB, 20 * MIB + 64).every((byte) => byte === 0)).toBe(false);
    expect(seen).toEqual(
      [...Array.from({ length: 3 }, () => 'wfalse'), 'wtrue', ...Array.from({ length: 3 }, () => 'rfalse'), 'rtrue'].slice(-8),
    );
  });

  it('finds a card that does not hold what was written', async () => {
    const { device, backing } = card(16 * MIB);
    const bytes = randomBytes(6 * MIB);
    let spoilt = false;
    const spoil = (): void => {
      if (spoilt) return;
      spoilt = true;
      // Behind the device's back, as a bad cell does.
      const fd = openSync(backing, 'r+');
      const byte = Buffer.alloc(1);
      readSync(fd, byte, 0, 1, 5 * MIB + 5);
      writeSync(fd, Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 5 * MIB + 5);
      closeSync(fd);
    };
    const progress = { ...quiet, checking: spoil };
    await expect(writeDevice(image(bytes), describeDevice(device), progress)).rejects.toThrow(
      expect.objectContaining({ code: 'FLASH_VERIFY_FAILED', message: expect.stringContaining(`byte ${5 * MIB + 5}`) }),
    );
  });

  it('finds a card that is smaller than it says', async () => {
    const { device } = card(4 * MIB);
    const facts = { ...describeDevice(device), sizeBytes: 16 * MIB };
    await expect(writeDevice(image(randomBytes(8 * MIB)), facts, quiet)).rejects.toThrow(
      expect.objectContaining({ code: 'FLASH_VERIFY_FAILED', message: expect.stringContaining('could not be written or read') }),
    );
  });

  it('is refused by the kernel when somebody took the device meanwhile', async () => {
    const { device } = card(16 * MIB);
    const facts: DeviceFacts = describeDevice(device);
    tool('mkfs.ext4', '-q', '-F', device);
    const { folder, remove } = testFolder();
    ends.push(remove);
    try {
      tool('mount', device, folder);
    } catch {
      return;
    }
    ends.push(() => tool('umount', folder));
    expect(whyNot(describeDevice(device), MIB, { allowLoop: true })?.message).toContain(`mounted at ${folder}`);
    await expect(writeDevice(image(randomBytes(MIB)), facts, quiet)).rejects.toThrow('another program has it');
  });
});
