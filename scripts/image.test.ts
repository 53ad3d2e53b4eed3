import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { frameOf, readPicture } from './image.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'mc-image-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const red = (channels: 3 | 4) => sharp({ create: { width: 6, height: 4, channels, background: { r: 250, g: 10, b: 20, alpha: 1 } } });

describe('images', () => {
  it.each(['png', 'webp', 'jpeg'] as const)('of format %s come as RGB bytes', async (format) => {
    const file = path.join(folder, `red.${format}`);
    await red(format === 'png' ? 4 : 3)
      .toFormat(format)
      .toFile(file);
    const picture = await readPicture(file);
    expect([picture.width, picture.height, picture.rgb.length]).toEqual([6, 4, 72]);
    expect(Math.abs((picture.rgb[0] ?? 0) - 250)).toBeLessThan(12);
    expect(picture.rgb[1]).toBeLessThan(30);
  });

  it('in grey come as RGB too', async () => {
    const file = path.join(folder, 'grey.png');
    await red(3).greyscale().toColourspace('b-w').png().toFile(file);
    const { rgb } = await readPicture(file);
    expect(rgb).toHaveLength(72);
    expect(rgb[0]).toBe(rgb[2]);
  });

  it('are scaled to the frame the deployment takes, and left alone when they fit', async () => {
    const picture = { width: 2, height: 1, rgb: Uint8Array.of(1, 2, 3, 4, 5, 6) };
    expect((await frameOf(picture, 1, 2)).bytes).toEqual(picture.rgb);
    const scaled = await frameOf(picture, 4, 8);
    expect([scaled.dims, scaled.bytes.length]).toEqual([[4, 8, 3], 96]);
  });

  it('that are none, or cut off, or not there, are refused with a code', async () => {
    const text = path.join(folder, 'text.jpg');
    writeFileSync(text, 'this is no image');
    await expect(readPicture(text)).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    const cut = path.join(folder, 'cut.png');
    const noise = Buffer.from(Uint8Array.from({ length: 90_000 }, (_, i) => (i * i) % 253));
    const whole = await sharp(noise, { raw: { width: 200, height: 150, channels: 3 } })
      .png()
      .toBuffer();
    writeFileSync(cut, whole.subarray(0, whole.length / 2));
    await expect(readPicture(cut)).rejects.toMatchObject({ code: 'IMAGE_UNREADABLE' });
    await expect(readPicture(path.join(folder, 'nowhere.png'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });
});
