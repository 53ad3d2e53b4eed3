/** Image files to plain RGB and back. The only place (with the demo's drawing) where the image library enters. */
import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { ChairError } from '../broker/errors.js';
import type { Tensor } from '../broker/tensor.js';
import type { Picture } from './demo/picture.js';

/** More pixels than this are refused before they are decoded: a small file can unfold to gigabytes. */
const MAX_PIXELS = 100_000_000;

/** Reads a file that is named on the command line. Throws FILE_NOT_FOUND. */
export async function readNamedFile(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    const why = { ENOENT: 'no file of that name', EISDIR: 'a folder', EACCES: 'a file you may not read' }[code] ?? code;
    throw new ChairError('FILE_NOT_FOUND', `${file} cannot be read`, { expected: 'the path of a file', came: why, cause });
  }
}

/** Decodes an image (JPEG, PNG, WebP, GIF, TIFF, AVIF), upright as its EXIF says. Throws FILE_NOT_FOUND, IMAGE_UNREADABLE. */
export async function readPicture(file: string): Promise<Picture> {
  const bytes = await readNamedFile(file);
  try {
    const image = sharp(bytes, { limitInputPixels: MAX_PIXELS, failOn: 'error' }).rotate().toColourspace('srgb').removeAlpha();
    const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, rgb: info.channels === 3 ? data : greyToRgb(data) };
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw new ChairError('IMAGE_UNREADABLE', `${file} is not an image that can be decoded`, {
      expected: 'JPEG, PNG, WebP, GIF, TIFF or AVIF',
      came: why,
      cause,
    });
  }
}

function greyToRgb(grey: Uint8Array): Uint8Array {
  const rgb = new Uint8Array(grey.length * 3);
  grey.forEach((v, i) => {
    rgb.fill(v, i * 3, i * 3 + 3);
  });
  return rgb;
}

/** The picture as a frame `[height, width, 3]` of exactly this size; scaled when it has another. */
export async function frameOf(picture: Picture, height: number, width: number): Promise<Tensor> {
  if (picture.width === width && picture.height === height)
    return { dtype: 'uint8', dims: [height, width, 3], bytes: Uint8Array.from(picture.rgb) };
  const raw = { width: picture.width, height: picture.height, channels: 3 as const };
  const scaled = await sharp(picture.rgb, { raw }).resize(width, height, { fit: 'fill' }).raw().toBuffer();
  return { dtype: 'uint8', dims: [height, width, 3], bytes: Uint8Array.from(scaled) };
}
