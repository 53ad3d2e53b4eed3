import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type DeviceFacts, describeDevice, deviceNumber, readFacts, whyNot } from './device.js';
import { testFolder } from './test-image.js';

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

interface FakeDevice {
  readonly at?: string;
  readonly files?: Readonly<Record<string, string>>;
  readonly parts?: readonly string[];
  readonly mountinfo?: string;
  readonly swaps?: string;
  readonly holders?: Readonly<Record<string, string>>;
}

/** /sys and /proc of a machine with one card in a USB reader, sdb. */
function facts(o: FakeDevice = {}): DeviceFacts {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const [sys, proc] = [path.join(folder, 'sys'), path.join(folder, 'proc')];
  const at = path.join(sys, o.at ?? 'devices/pci0000:00/usb1/1-2/block/sdb');
  const put = (file: string, text: string): void => {
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  };
  const files = {
    size: '62333952\n',
    removable: '1\n',
    ro: '0\n',
    dev: '8:16\n',
    'device/vendor': 'Generic \n',
    'device/model': 'STORAGE DEVICE\n',
    ...o.files,
  };
  for (const [name, text] of Object.entries(files)) put(path.join(at, name), text);
  mkdirSync(path.join(sys, 'dev/block'), { recursive: true });
  symlinkSync(at, path.join(sys, 'dev/block/8:16'));
  for (const [i, part] of (o.parts ?? ['sdb1', 'sdb2']).entries()) {
    put(path.join(at, part, 'partition'), `${i + 1}\n`);
    put(path.join(at, part, 'dev'), `8:${17 + i}\n`);
    mkdirSync(path.join(at, part, 'holders'));
    symlinkSync(path.join(at, part), path.join(sys, `dev/block/8:${17 + i}`));
  }
  for (const [part, holder] of Object.entries(o.holders ?? {})) put(path.join(at, part, 'holders', holder), '');
  put(path.join(proc, 'self/mountinfo'), `36 1 254:0 / / rw shared:1 - ext4 /dev/vda1 rw\n${o.mountinfo ?? ''}`);
  put(path.join(proc, 'swaps'), `Filename\tType\tSize\n${o.swaps ?? ''}`);
  return readFacts('/dev/sdb', '8:16', { sys, proc });
}

const IMAGE = 3_000_000_000;
const refusal = (o: FakeDevice, image = IMAGE) => whyNot(facts(o), image);

describe('which device may be written', () => {
  it('knows a card in a reader', () => {
    expect(facts()).toEqual({
      path: '/dev/sdb',
      name: 'sdb',
      model: 'Generic STORAGE DEVICE',
      sizeBytes: 62_333_952 * 512,
      kind: 'disk',
      removable: true,
      readOnly: false,
      mounts: [],
      uses: [],
    });
    expect(refusal({})).toBeUndefined();
  });

  it('takes an SD card in a slot of the machine, and never its soldered flash', () => {
    const at = 'devices/platform/mmc/mmc0:0001/block/mmcblk0';
    expect(refusal({ at, files: { removable: '0\n', 'device/type': 'SD\n' }, parts: [] })).toBeUndefined();
    expect(refusal({ at, files: { removable: '0\n', 'device/type': 'MMC\n' }, parts: [] })?.message).toContain('fixed disk');
  });

  it.each<[string, FakeDevice, string]>([
    ['the system disk', { mountinfo: '40 1 8:18 / / rw - ext4 /dev/sdb2 rw\n' }, 'this system runs from it'],
    ['a disk with /home', { mountinfo: '40 1 8:18 / /home rw - ext4 /dev/sdb2 rw\n' }, 'this system runs from it'],
    ['a mounted card', { mountinfo: '40 1 8:17 / /media/me/boot\\040fs rw - vfat /dev/sdb1 rw\n' }, 'mounted at /media/me/boot fs'],
    ['one mounted whole', { mountinfo: '40 1 8:16 / /mnt rw - ext4 /dev/sdb rw\n' }, 'mounted at /mnt'],
    ['one mounted under another number (Btrfs)', { mountinfo: '40 1 0:45 / /mnt rw - btrfs /dev/sdb2 rw\n' }, 'mounted at /mnt'],
    ['one with swap', { swaps: '/dev/sdb2 partition 1000\n' }, 'sdb2 is swap'],
    ['a part of an encrypted or logical volume', { holders: { sdb2: 'dm-0' } }, 'part of dm-0'],
    ['a fixed disk', { files: { removable: '0\n' } }, 'fixed disk'],
    ['a partition', { files: { partition: '1\n' }, parts: [] }, 'it is a partition'],
    ['a RAM disk', { at: 'devices/virtual/block/zram0', parts: [] }, 'not a card'],
    ['a loop device, outside tests', { at: 'devices/virtual/block/loop0', parts: [] }, 'not a card'],
    ['a card with its slider on lock', { files: { ro: '1\n' } }, 'write-protected'],
    ['an empty reader', { files: { size: '0\n' }, parts: [] }, 'no card in the reader'],
  ])('refuses %s', (_what, device, text) => {
    const error = refusal(device);
    expect(error?.code).toBe('FLASH_DEVICE_REFUSED');
    expect(error?.message).toContain(text);
  });

  it('refuses a card smaller than the image', () => {
    expect(refusal({ files: { size: '4000000\n' } })).toMatchObject({
      code: 'FLASH_DEVICE_TOO_SMALL',
      message: expect.stringContaining('expected at least 3.0 GB; got 2.0 GB'),
    });
    expect(refusal({}, 62_333_952 * 512)).toBeUndefined();
  });

  it('takes device numbers apart as the C library does', () => {
    expect(deviceNumber(0x0810)).toBe('8:16');
    expect(deviceNumber(0x10305)).toBe('259:5');
    expect(deviceNumber(0x10082c)).toBe('8:300');
  });
});

describe.runIf(process.platform === 'linux')('what is named', () => {
  it.each([
    ['/dev/no-such-device', 'does not exist'],
    ['/dev/null', 'not a block device'],
    ['/etc/hostname', 'not a block device'],
  ])('%s is refused', (device, text) => {
    expect(() => describeDevice(device)).toThrow(
      expect.objectContaining({ code: 'FLASH_DEVICE_REFUSED', message: expect.stringContaining(text) }),
    );
  });
});
