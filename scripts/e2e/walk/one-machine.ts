/** The yardstick for the picture: the model as it is, whole, on the bare engine of this machine. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { createOnnxRuntimeEngine } from '../../../models/engine/onnxruntime.js';
import { DETECTOR_SHAPE, DETECTOR_SIZE, detectorImage, floats } from '../../demo/ocr.js';
import { imageTensor } from '../../demo/one-machine.js';
import { frameOf, readPicture } from '../../image.js';
import { readNpy } from '../../npy.js';

/** Largest difference to the one output that `infer --out` has written to `folder`. Throws when the picture makes no difference to the model: then nothing was proven. */
export async function sameOnOneMachine(photo: string, model: string, folder: string): Promise<number> {
  const [file, ...more] = readdirSync(folder).filter((name) => name.endsWith('.npy'));
  if (file === undefined || more.length > 0) throw new Error(`one output was expected in ${folder}; got ${[file, ...more].join(', ')}`);
  const came = floats(readNpy(readFileSync(path.join(folder, file)), file));
  const picture = await readPicture(photo);
  const { bytes: rgb } = await frameOf(picture, DETECTOR_SIZE, DETECTOR_SIZE);
  const scaled = { width: DETECTOR_SIZE, height: DETECTOR_SIZE, rgb };
  const engine = await createOnnxRuntimeEngine();
  try {
    const session = await engine.load(model);
    const { outputs } = await session.run({ x: imageTensor(scaled, detectorImage(scaled), DETECTOR_SHAPE) });
    const [tensor] = Object.values(outputs);
    const wanted = tensor === undefined ? new Float32Array() : floats(tensor);
    if (wanted.length !== came.length) throw new Error(`${file} has ${came.length} values; expected ${wanted.length}`);
    const spread = wanted.reduce((most, value) => Math.max(most, value), 0) - wanted.reduce((least, value) => Math.min(least, value), 1);
    if (!(spread > 0.5)) throw new Error(`the model sees nothing in the picture: its output varies by ${spread} only`);
    return wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (came[i] ?? Number.NaN))), 0);
  } finally {
    await engine.dispose();
  }
}
