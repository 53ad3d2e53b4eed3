import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { copyImage, readSource } from './copy.js';
import { lacking, testFolder, tool } from './test-image.js';

// Each makes images with a dozen programs, which wait for each other on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const absent = lacking('xz');
const { folder, remove } = testFolder();
afterAll(remove);
const MIB = 1024 * 1024;
let files = 0;

/** Something, a hole, something that does not compress. */
function content(): Buffer {
  return Buffer.concat([Buffer.alloc(MIB, 'chair '), Buffer.alloc(3 * MIB), randomBytes(MIB + 77)]);
}

function packed(bytes: Buffer, ...options: string[]): string {
  const file = path.join(folder, `${files++}.img`);
  writeFileSync(file, bytes);
  tool('xz', '-k', ...options, file);
  return `${file}.xz`;
}

async function unpacked(file: string): Promise<Buffer> {
  const out = path.join(folder, `${files++}.out`);
  await copyImage(readSource(file), out, () => {});
  return readFileSync(out);
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe.skipIf(absent !== '')(`an .xz that xz made${absent === '' ? '' : ` (not here: ${absent})`}`, () => {
  it.each([
    ['one block', ['-1']],
    ['many blocks, as Raspberry Pi OS is packed', ['-1', '-T2', '--block-size=1MiB']],
    ['checked by CRC32', ['-1', '--check=crc32']],
    ['not checked', ['-1', '--check=none']],
  ])('unpacks to what went in: %s', async (_what, options) => {
    const bytes = content();
    const file = packed(bytes, ...options);
    expect(readSource(file).sizeBytes).toBe(bytes.length);
    expect(sha256(await unpacked(file))).toBe(sha256(bytes));
  });

  it('may be several joined, with padding between and behind', async () => {
    const [a, b] = [Buffer.from('first'), Buffer.alloc(100_000, 'second')];
    const file = path.join(folder, 'joined.xz');
    const padding = Buffer.alloc(8);
    writeFileSync(file, Buffer.concat([readFileSync(packed(a)), padding, readFileSync(packed(b)), padding]));
    expect((await unpacked(file)).equals(Buffer.concat([a, b]))).toBe(true);
  });

  it('leaves holes where there are zeros', async () => {
    const out = path.join(folder, 'sparse.out');
    await copyImage(readSource(packed(Buffer.concat([Buffer.alloc(64 * MIB), Buffer.from('end')]), '-0')), out, () => {});
    expect(statSync(out).size).toBe(64 * MIB + 3);
    expect(statSync(out).blocks * 512).toBeLessThan(2 * MIB);
  });

  it('is found to be cut off wherever it was cut, before anything is unpacked', () => {
    const bytes = readFileSync(packed(content(), '-1'));
    for (const length of [7, 20, 1_000, bytes.length - 40, bytes.length - 13, bytes.length - 12, bytes.length - 4, bytes.length - 1]) {
      const file = path.join(folder, 'cut.xz');
      writeFileSync(file, bytes.subarray(0, length));
      expect(() => readSource(file), `${length} of ${bytes.length}`).toThrow(expect.objectContaining({ code: 'FLASH_IMAGE_DAMAGED' }));
    }
  });

  it('is found to be damaged in the middle, and nothing half-unpacked is left', async () => {
    const good = readFileSync(packed(content(), '-1'));
    // Beyond the part that compresses: bytes stored as they are, which only the check can find.
    for (const at of [200, Math.floor(good.length / 2), good.length - 5_000]) {
      const file = path.join(folder, 'flipped.xz');
      const bytes = Buffer.from(good);
      bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at);
      writeFileSync(file, bytes);
      const out = path.join(folder, 'flipped.out');
      await expect(
        copyImage(readSource(file), out, () => {}),
        `byte ${at}`,
      ).rejects.toThrow(expect.objectContaining({ code: 'FLASH_IMAGE_DAMAGED' }));
      expect(existsSync(out)).toBe(false);
    }
  });

  it('is found when bytes are missing from its middle', () => {
    const bytes = readFileSync(packed(content(), '-1'));
    const file = path.join(folder, 'gap.xz');
    writeFileSync(file, Buffer.concat([bytes.subarray(0, 500_000), bytes.subarray(600_000)]));
    expect(() => readSource(file)).toThrow(/bytes are missing|does not begin/);
  });
});

describe('copying', () => {
  it('never writes over a file', async () => {
    const from = path.join(folder, 'from.img');
    const to = path.join(folder, 'to.img');
    writeFileSync(from, 'image');
    writeFileSync(to, 'mine');
    await expect(copyImage(readSource(from), to, () => {})).rejects.toThrow(expect.objectContaining({ code: 'FLASH_OUTPUT_UNUSABLE' }));
    expect(readFileSync(to, 'utf8')).toBe('mine');
  });

  it('says that a folder does not exist', async () => {
    const from = path.join(folder, 'from2.img');
    writeFileSync(from, 'image');
    await expect(copyImage(readSource(from), path.join(folder, 'no', 'to.img'), () => {})).rejects.toThrow('a folder that does not exist');
  });

  it('says that there is no such image', () => {
    expect(() => readSource(path.join(folder, 'none.img'))).toThrow(expect.objectContaining({ code: 'FILE_NOT_FOUND' }));
  });
});
