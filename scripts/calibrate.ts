/** `--calibrate`: frames on which the error of short wires is measured, read here, sent to the gateway. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { ChairError } from '../broker/errors.js';
import type { ImageInput } from '../broker/messages.js';
import type { Tensor } from '../broker/tensor.js';
import type { OptionValues } from './command.js';
import { optionList } from './deploy-options.js';

/**
 * The frames of all `--calibrate`: a file as `infer` takes it, `input=FILE,input=FILE` for models of several inputs, or a folder of files. Names are '' where
 * none was given: the gateway knows the input of a model that has one, and whether the tensors fit. Throws USAGE, FRAME_INVALID, and what reading throws.
 */
export async function calibrationFrames(options: OptionValues, images: readonly ImageInput[]): Promise<Record<string, Tensor>[]> {
  const frames: Record<string, Tensor>[] = [];
  for (const given of optionList(options, 'calibrate')) {
    for (const argument of await expanded(given)) frames.push(await readFrame(argument, images));
  }
  return frames;
}

/** A folder is all its files, by name. */
async function expanded(given: string): Promise<string[]> {
  const info = await stat(given).catch(() => undefined);
  if (info?.isDirectory() !== true) return [given];
  const names = (await readdir(given)).filter((name) => !name.startsWith('.')).sort();
  if (names.length > 0) return names.map((name) => path.join(given, name));
  throw new ChairError('USAGE', '--calibrate names an empty folder', { expected: 'images or .npy files', came: `"${given}"` });
}

async function readFrame(argument: string, images: readonly ImageInput[]): Promise<Record<string, Tensor>> {
  const parts = argument.split(',').map((part) => /^([^=/\\]+)=(.+)$/.exec(part));
  const named = parts.every((part) => part !== null);
  const pairs = named ? parts.map((part) => [part?.[1] ?? '', part?.[2] ?? ''] as const) : [['', argument] as const];
  const frame: Record<string, Tensor> = {};
  for (const [input, file] of pairs) frame[input] = await readInput(input, file, images);
  return frame;
}

async function readInput(input: string, file: string, images: readonly ImageInput[]): Promise<Tensor> {
  const { frameOf, readNamedFile, readPicture } = await import('./image.js');
  if (file.toLowerCase().endsWith('.npy')) {
    const { readNpy } = await import('./npy.js');
    return readNpy(await readNamedFile(file), file);
  }
  const image = input === '' && images.length === 1 ? images[0] : images.find((one) => one.input === input);
  const picture = await readPicture(file);
  if (image !== undefined) return frameOf(picture, image.height, image.width);
  throw new ChairError('FRAME_INVALID', `${file} is an image, but no input is declared to take images`, {
    expected: 'a .npy file',
    todo: 'Or declare the input with --image input=NAME,size=HEIGHTxWIDTH.',
  });
}
