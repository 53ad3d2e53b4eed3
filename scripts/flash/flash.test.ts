import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { parse } from 'yaml';
import { makeBundle } from '../bundle/make.js';
import { smallProgram } from '../bundle/test-bundle.js';
import { type FlashOptions, flash } from './flash.js';
import type { FlashRequest } from './fleet.js';
import { BARE, FULL } from './test-card.js';
import {
  armProgram,
  IMAGE_TOOLS,
  lacking,
  makeImage,
  sameImage,
  type TestImage,
  type TestImageOptions,
  testFolder,
  tool,
} from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking(...IMAGE_TOOLS);
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

const shared = testFolder();
afterAll(shared.remove);
const bundle = path.join(shared.folder, 'agent-arm64.tgz');

beforeAll(async () => {
  await makeBundle({ arch: 'arm64', node: { from: armProgram(shared.folder) }, dist: smallProgram(shared.folder), out: bundle });
});

interface Tried {
  readonly image: TestImage;
  readonly invited: string[];
  readonly notes: string[];
  readonly request: (more?: Partial<FlashRequest>) => FlashRequest;
  readonly options: (more?: Partial<FlashOptions>) => FlashOptions;
  /** Files beside the image, sorted. */
  readonly left: () => string[];
}

function set(options: TestImageOptions = {}): Tried {
  const { folder, remove } = testFolder();
  ends.push(remove);
  const image = makeImage(folder, options);
  const invited: string[] = [];
  const notes: string[] = [];
  return {
    image,
    invited,
    notes,
    request: (more) => ({ image: image.file, bundle, targets: [{ card: FULL, out: path.join(folder, 'pi-1.img') }], ...more }),
    options: (more) => ({
      invite: async (name) => {
        invited.push(name);
        return { token: `mc1.token-of-${name}`, expiresMs: 1_800_000_000_000 };
      },
      confirm: async () => false,
      progress: () => () => {},
      note: (line) => notes.push(line),
      nowMs: () => Date.UTC(2026, 10, 21),
      ...more,
    }),
    left: () => readdirSync(folder).sort(),
  };
}

/** Progress that keeps what it was made for. */
const noting = (labels: string[]) => (label: string) => {
  labels.push(label);
  return () => {};
};

const refusedWith = (code: string, text = '') => expect.objectContaining({ code, message: expect.stringContaining(text) });

describe.skipIf(absent !== '')(`flashing an image${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  for (const { release, fat, table } of [
    { release: 13, fat: 32, table: 'dos' },
    { release: 12, fat: 16, table: 'gpt' },
  ] as const) {
    it(`of Raspberry Pi OS ${release} leaves a boot partition that mtools reads and fsck.fat finds in order`, async () => {
      const t = set({ release, fat, table });
      const before = readFileSync(t.image.file);
      const request = t.request();
      const out = request.targets[0]?.out ?? '';
      const cards = await flash(request, t.options());
      const writer = release === 13 ? 'cloud-init' : 'firstrun.sh';
      expect(cards).toEqual([
        { name: 'pi-1', written: out, release: release === 13 ? '2025-12-04' : '2024-11-19', writer, tokenExpiresMs: 1_800_000_000_000 },
      ]);
      const made = sameImage(t.image, out);
      made.fsck();
      expect(made.names('musical-chair')).toEqual(['agent.yaml', 'bundle.sum', 'bundle.tgz', 'start.sh', 'token']);
      expect(made.read('musical-chair/token')).toBe('mc1.token-of-pi-1\n');
      expect(parse(made.read('musical-chair/agent.yaml'))).toMatchObject({ cluster: 'default', agent: { name: 'pi-1' } });
      expect(made.read('cmdline.txt')).toMatch(/^[^\n]* cgroup_enable=memory cgroup_memory=1\n$/);
      expect(made.names()).toContain(release === 13 ? 'user-data' : 'firstrun.sh');
      const copy = path.join(t.image.folder, 'copied.tgz');
      tool('mcopy', '-n', '-i', `${out}@@${made.bootOffset}`, '::musical-chair/bundle.tgz', copy);
      expect(readFileSync(copy).equals(readFileSync(bundle))).toBe(true);
      // The token is nowhere else, the rest of the image is as it was, and nobody else may read it.
      for (const name of made.names().filter((n) => n.includes('.') || n.includes('-data'))) expect(made.read(name)).not.toContain('mc1.');
      const after = readFileSync(out);
      const rootAt = made.bootOffset + (fat === 32 ? 36 : 8) * 1024 * 1024;
      expect(after.subarray(rootAt).equals(before.subarray(rootAt))).toBe(true);
      expect(after.subarray(0, made.bootOffset).equals(before.subarray(0, made.bootOffset))).toBe(true);
      expect(readFileSync(t.image.file).equals(before)).toBe(true);
      expect(statSync(out).mode & 0o777).toBe(0o600);
    });
  }

  it('unpacks an .xz once for a whole fleet, with a token and an identity for each card', async () => {
    const t = set();
    tool('xz', '-0', t.image.file);
    const names = ['pi-1', 'pi-2', 'pi-3'];
    const unpacked: string[] = [];
    const targets = names.map((name) => ({ card: { ...BARE, name }, out: path.join(t.image.folder, 'cards', `${name}.img`) }));
    await flash(t.request({ image: `${t.image.file}.xz`, targets }), t.options({ progress: noting(unpacked) }));
    expect(unpacked.filter((label) => label === 'unpacking')).toHaveLength(1);
    expect(t.invited).toEqual(names);
    const seen = new Set<string>();
    for (const [i, name] of names.entries()) {
      const made = openFlashed(t.image, targets[i]?.out ?? '');
      made.fsck();
      expect(made.read('musical-chair/token')).toBe(`mc1.token-of-${name}\n`);
      expect(parse(made.read('user-data'))).toMatchObject({ hostname: name });
      seen.add(parse(made.read('meta-data'))['instance-id']);
    }
    expect(seen.size).toBe(3);
    expect(readdirSync(path.join(t.image.folder, 'cards')).sort()).toEqual(names.map((n) => `${n}.img`));
  });

  it('needs no token for a cluster without trust', async () => {
    const t = set();
    const { invite: _none, ...options } = t.options();
    await flash(t.request(), options);
    const made = sameImage(t.image, path.join(t.image.folder, 'pi-1.img'));
    expect(made.names('musical-chair')).not.toContain('token');
    expect(parse(made.read('musical-chair/agent.yaml')).broker).toMatch(/^mqtt:/);
  });

  it.each<[string, TestImageOptions, string, ((file: string) => void) | undefined]>([
    ['a full boot partition', { boot: { fill: Buffer.alloc(7 * 1024 * 1024) } }, 'FLASH_BOOT_FULL', undefined],
    ['the 32-bit system', { bits: 32 }, 'FLASH_IMAGE_32_BIT', undefined],
    ['an image that was flashed before', { boot: { 'musical-chair/start.sh': 'x' } }, 'FLASH_IMAGE_FOREIGN', undefined],
    ['an image that was cut off', {}, 'FLASH_IMAGE_DAMAGED', (file) => truncateSync(file, 10 * 1024 * 1024)],
    ['what is no image', {}, 'FLASH_IMAGE_FOREIGN', (file) => writeFileSync(file, '<!doctype html>'.padEnd(4_096))],
    ['Wi-Fi without NetworkManager', { root: { 'usr/sbin/NetworkManager': undefined } }, 'FLASH_IMAGE_FOREIGN', undefined],
  ])('refuses %s before a token is made, and leaves nothing behind', async (_what, image, code, change) => {
    for (const packed of code === 'FLASH_BOOT_FULL' ? [false, true] : [false]) {
      const t = set(image);
      change?.(t.image.file);
      if (packed) tool('xz', '-0', t.image.file);
      const before = t.left();
      await expect(
        flash(t.request({ image: packed ? `${t.image.file}.xz` : t.image.file }), t.options()),
        `packed: ${packed}`,
      ).rejects.toThrow(refusedWith(code));
      expect(t.left()).toEqual(before);
      expect(t.invited).toEqual([]);
    }
  });

  it('refuses an .xz that was cut off before it unpacks anything', async () => {
    const t = set();
    tool('xz', '-0', t.image.file);
    truncateSync(`${t.image.file}.xz`, statSync(`${t.image.file}.xz`).size - 100);
    const labels: string[] = [];
    const run = flash(t.request({ image: `${t.image.file}.xz` }), t.options({ progress: noting(labels) }));
    await expect(run).rejects.toThrow(refusedWith('FLASH_IMAGE_DAMAGED', 'cut off'));
    expect(labels).toEqual([]);
  });

  it('refuses a bundle with one byte flipped', async () => {
    const t = set();
    const bytes = readFileSync(bundle);
    const at = Math.floor(bytes.length / 2);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    const flipped = path.join(t.image.folder, 'flipped.tgz');
    writeFileSync(flipped, bytes);
    await expect(flash(t.request({ bundle: flipped }), t.options())).rejects.toThrow(refusedWith('BUNDLE_DAMAGED'));
    expect(t.invited).toEqual([]);
  });

  it('never writes over the image or the bundle, or a folder, whatever is forced', async () => {
    const t = set();
    for (const out of [t.image.file, `${t.image.folder}/../${path.basename(t.image.folder)}/raspios-13-64.img`, bundle, t.image.folder])
      await expect(flash(t.request({ targets: [{ card: FULL, out }] }), t.options({ force: true })), out).rejects.toThrow(
        refusedWith('FLASH_OUTPUT_UNUSABLE'),
      );
  });

  it('refuses an .xz that claims to unpack to more than any image has', async () => {
    const t = set();
    truncateSync(t.image.file, 70e9);
    await expect(flash(t.request(), t.options())).rejects.toThrow(refusedWith('FLASH_IMAGE_FOREIGN', 'at most 64.0 GB; got 70.0 GB'));
    await expect(flash(t.request({ image: t.image.folder }), t.options())).rejects.toThrow(refusedWith('FILE_NOT_FOUND', 'is not a file'));
  });

  it('never writes over a file unless it is forced to, and then only when all went well', async () => {
    const t = set();
    const out = path.join(t.image.folder, 'pi-1.img');
    writeFileSync(out, 'mine');
    await expect(flash(t.request(), t.options())).rejects.toThrow(refusedWith('FLASH_OUTPUT_UNUSABLE', 'exists already'));
    const failing = t.options({
      force: true,
      invite: async () => {
        throw new Error('the gateway is away');
      },
    });
    await expect(flash(t.request(), failing)).rejects.toThrow('the gateway is away');
    expect(readFileSync(out, 'utf8')).toBe('mine');
    await flash(t.request(), t.options({ force: true }));
    expect(sameImage(t.image, out).read('musical-chair/token')).toBe('mc1.token-of-pi-1\n');
  });
});

/** The image was packed away: its size is that of what was made of it. */
function openFlashed(image: TestImage, out: string): TestImage {
  return sameImage({ ...image, file: out }, out);
}

const root = process.getuid?.() === 0 && absent === '';
describe.skipIf(!root)(`flashing a card${root ? '' : ' (not here: needs root, loop devices and tools for images)'}`, () => {
  function loop(mib: number): { device: string; backing: string } | undefined {
    const { folder, remove } = testFolder();
    ends.push(remove);
    const backing = path.join(folder, 'card');
    writeFileSync(backing, randomBytes(mib * 1024 * 1024));
    try {
      const device = tool('losetup', '--find', '--show', backing).trim();
      ends.push(() => tool('losetup', '-d', device));
      return { device, backing };
    } catch {
      return undefined;
    }
  }

  it('writes it when its name is typed again, and only then', async (context) => {
    const t = set();
    const card = loop(32);
    if (card === undefined) return context.skip('no loop devices here');
    const before = readFileSync(card.backing);
    const request = t.request({ device: card.device, targets: [{ card: FULL }] });
    const rules = { allowLoop: true };
    await expect(flash(request, t.options({ rules }))).rejects.toThrow(refusedWith('FLASH_DEVICE_REFUSED', 'not typed again'));
    expect(readFileSync(card.backing).equals(before)).toBe(true);
    expect(t.invited).toEqual([]);
    const asked: string[] = [];
    const cards = await flash(request, t.options({ rules, confirm: async (facts, { name }) => asked.push(`${facts.name} ${name}`) > 0 }));
    expect(asked).toEqual([`${path.basename(card.device)} pi-1`]);
    expect(cards[0]?.written).toBe(card.device);
    tool('blockdev', '--flushbufs', card.device);
    const made = sameImage(t.image, card.backing);
    expect(made.read('musical-chair/token')).toBe('mc1.token-of-pi-1\n');
    made.fsck();
  });

  it('refuses a loop device outside tests, a card too small, and a file', async (context) => {
    const t = set();
    const card = loop(8);
    if (card === undefined) return context.skip('no loop devices here');
    const to = (device: string) => t.request({ device, targets: [{ card: FULL }] });
    await expect(flash(to(card.device), t.options())).rejects.toThrow(refusedWith('FLASH_DEVICE_REFUSED', 'not a card'));
    await expect(flash(to(card.device), t.options({ rules: { allowLoop: true } }))).rejects.toThrow(refusedWith('FLASH_DEVICE_TOO_SMALL'));
    await expect(flash(to(card.backing), t.options())).rejects.toThrow(refusedWith('FLASH_DEVICE_REFUSED', 'not a block device'));
    expect(existsSync(`${card.backing}.part`)).toBe(false);
  });
});
